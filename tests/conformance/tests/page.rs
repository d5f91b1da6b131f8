//! The dashboard's page in a browser, by `chromedriver`. Skipped, and told so, where there is none; with `CHROMIUM_REQUIRED`
//! set, that is a failure.

use std::{
    env,
    error::Error,
    future::pending,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{Router, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use fantoccini::{Client, ClientBuilder, Locator, key::Key};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower_background_tasks::{BackgroundTasks, Dashboard, Runner, ShutdownReport, Task};

/// For a test, and for each thing that it waits for.
const LIMIT: Duration = Duration::from_secs(60);

type Outcome = Result<(), Box<dyn Error>>;

const HTML: &str = "<img src=x onerror=\"document.title='owned'\">";

/// A server whose page is at `/admin/tasks`.
struct Server {
    address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    served: JoinHandle<ShutdownReport>,
}

impl Server {
    async fn start(runner: &Runner, dashboard: Dashboard) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/orders/{id}", post(order))
            .layer(runner.layer())
            .nest_service("/admin/tasks", dashboard);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serve = runner.serve_until(async { stopped.await.unwrap_or_default() }, |shutdown| {
            axum::serve(listener, app).with_graceful_shutdown(shutdown)
        });
        let serve = serve
            .requests(Duration::from_secs(5))
            .tasks(Duration::from_secs(2));
        Self {
            address,
            stop,
            served: tokio::spawn(async { serve.await.unwrap() }),
        }
    }

    fn page(&self) -> String {
        format!("http://{}/admin/tasks", self.address)
    }

    async fn stop(self) -> ShutdownReport {
        let _ = self.stop.send(());
        self.served.await.unwrap()
    }
}

async fn order(tasks: BackgroundTasks) {
    tasks.add_task(Task::new(async { Err::<(), _>(format!("no card for {HTML}")) }).named(HTML));
}

struct Browser {
    driver: Child,
    client: Client,
}

impl Browser {
    /// Returns `None` where there is none.
    async fn start(width: u32, is_dark: bool) -> Option<Self> {
        let mut driver = match Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
        {
            Ok(driver) => driver,
            Err(error) => {
                assert!(env::var_os("CHROMIUM_REQUIRED").is_none(), "{error}");
                println!("SKIPPED: no chromedriver here ({error})");
                return None;
            }
        };
        let output = driver.stdout.take().unwrap();
        let port = tokio::task::spawn_blocking(move || port_in(output));
        let port = port.await.unwrap();
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--window-size={width},1000"),
        ];
        if is_dark {
            args.push("--force-dark-mode".to_owned());
        }
        let capabilities = json!({
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self { driver, client })
    }

    async fn script(&self, script: &str) -> Result<Value, Box<dyn Error>> {
        Ok(self.client.execute(script, Vec::new()).await?)
    }

    /// Waits until `script` returns true.
    async fn until(&self, script: &str) -> Outcome {
        let begun = Instant::now();
        while self.script(script).await? != true {
            if begun.elapsed() > Duration::from_secs(20) {
                let text = self.script("return document.body.innerText").await?;
                return Err(format!("never: {script}; the page: {text}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn shoot(&self, name: &str) -> Outcome {
        if let Some(folder) = env::var_os("SCREENSHOTS") {
            let path = PathBuf::from(folder).join(format!("{name}.png"));
            std::fs::write(path, self.client.screenshot().await?)?;
        }
        Ok(())
    }

    /// Calls `f` with a browser, if there is one, and ends both.
    async fn with(width: u32, is_dark: bool, f: impl AsyncFnOnce(&Self) -> Outcome) {
        let Some(browser) = Self::start(width, is_dark).await else {
            return;
        };
        let outcome = timeout(LIMIT, f(&browser)).await;
        let _ = timeout(LIMIT, browser.client.clone().close()).await;
        outcome.expect("it takes too long").unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Reads on until `chromedriver` says where it listens.
fn port_in(output: impl std::io::Read) -> u16 {
    use std::io::{BufRead, BufReader};
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    let mut ports = lines.filter_map(|line| {
        let (_, port) = line.rsplit_once("on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    ports.find(|&port| port > 0).unwrap()
}

fn export(seconds: u64) -> Task {
    Task::with_context(move |cx| async move {
        for second in 0..seconds {
            cx.progress(second as f64 / seconds as f64);
            sleep(Duration::from_secs(1)).await;
        }
    })
    .named("export")
}

#[tokio::test(flavor = "multi_thread")]
async fn page_is_live_cancels_and_keeps_text_text() {
    Browser::with(1_200, false, live).await;
}

async fn live(browser: &Browser) -> Outcome {
    let runner = Runner::builder()
        .max_running(4)
        .route(|_| Some("/orders/{id}"))
        .build();
    let server = Server::start(&runner, runner.dashboard().allow_cancel()).await;
    let id = runner.try_add_task(export(60)).unwrap();
    runner.add_task(Task::new(pending::<()>()).named(HTML));
    runner.add_task(Task::new(pending::<()>()).named("rtl\u{202e}gnp"));
    browser.client.goto(&server.page()).await?;
    browser
        .until("return document.querySelector('#state').textContent.trim() == 'Ready'")
        .await?;
    let rows = "document.querySelectorAll('#tasks-rows tr').length";
    browser.until(&format!("return {rows} == 3")).await?;
    let text = "return document.body.innerText.replace(/\\s+/g, ' ')";
    let text = browser.script(text).await?;
    let text = text.as_str().unwrap();
    for shown in ["export", HTML, "rtl\\u{202e}gnp", "3 / 4"] {
        assert!(text.contains(shown), "no {shown:?} in {text}");
    }
    assert_eq!(
        browser.script("return document.images.length").await?,
        0,
        "a name became a part of the page"
    );

    // What happens now is shown without a reload.
    browser.script("window.isTheSamePage = true").await?;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<axum::body::Body>();
    let order = http::Request::post(format!("http://{}/orders/7", server.address));
    client
        .request(order.body(axum::body::Body::empty())?)
        .await?;
    browser
        .until("return document.querySelector('#failures-rows').innerText.includes('no card for')")
        .await?;
    browser
        .until("return document.querySelector('#groups-rows').innerText.includes('/orders/{id}')")
        .await?;
    let bars = "return [...document.querySelectorAll('[role=progressbar]')].some(bar => +bar.getAttribute('aria-valuenow') > 0)";
    browser.until(bars).await?;
    browser.shoot("light").await?;

    // By keyboard: the first row is the task added first.
    browser
        .script("document.querySelector('#tasks-rows button').focus()")
        .await?;
    let focused = browser.client.active_element().await?;
    focused
        .send_keys(&String::from(char::from(Key::Enter)))
        .await?;
    browser
        .until("return document.querySelector('#confirm').open")
        .await?;
    let focused = browser.client.active_element().await?;
    focused
        .send_keys(&String::from(char::from(Key::Escape)))
        .await?;
    browser
        .until("return !document.querySelector('#confirm').open")
        .await?;
    assert_eq!(runner.stats().aborted, 0, "Escape keeps the task");
    browser
        .script("document.querySelector('#tasks-rows button').click()")
        .await?;
    browser
        .client
        .find(Locator::Css("#sure"))
        .await?
        .click()
        .await?;
    browser.until(&format!("return {rows} == 2")).await?;
    assert_eq!(runner.stats().aborted, 1);
    assert!(!runner.cancel(id));
    assert_eq!(browser.script("return window.isTheSamePage").await?, true);

    // It counts down at a shutdown, which it does not hold up.
    let begun = Instant::now();
    let report = server.stop().await;
    assert_eq!(report.unfinished().len(), 2);
    assert!(report.requests().is_empty(), "{report}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the page held it up"
    );
    browser
        .until("return document.querySelector('#banner-text').textContent != ''")
        .await?;
    browser.shoot("shutdown").await?;
    assert_ne!(browser.script("return document.title").await?, "owned");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn page_fits_a_phone_in_the_dark_and_offers_no_cancel_unasked() {
    Browser::with(360, true, phone).await;
}

async fn phone(browser: &Browser) -> Outcome {
    let runner = Runner::new();
    let server = Server::start(&runner, runner.dashboard()).await;
    let long = "a-rather-long-name-of-a-task-that-somebody-made-up-and-that-has-no-end".repeat(3);
    runner.add_task(Task::new(pending::<()>()).named(long));
    let failing = async { Err::<(), _>("x".repeat(500)) };
    runner.add_task(Task::new(failing).named("fails"));
    browser.client.goto(&server.page()).await?;
    browser
        .until("return document.querySelectorAll('#failures-rows tr').length == 1")
        .await?;
    let overflow =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.script(overflow).await?, 0, "it scrolls sideways");
    let offers = "return [...document.querySelectorAll('#tasks-rows button')].some(button => button.checkVisibility())";
    assert_eq!(browser.script(offers).await?, false);
    let dark = "return getComputedStyle(document.body).backgroundColor";
    browser.shoot("dark").await?;
    println!("dark: {}", browser.script(dark).await?);
    drop(server.stop().await);
    Ok(())
}

#[tokio::test]
async fn the_policy_has_the_hashes_of_script_and_style() {
    use http_body_util::BodyExt;
    use tower::Service;

    let mut dashboard = Runner::new().dashboard();
    let response = dashboard.call(http::Request::new(())).await.unwrap();
    let policy = response.headers()["content-security-policy"].clone();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let page = std::str::from_utf8(&bytes).unwrap();
    for tag in ["script", "style"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!(page.matches(&format!("<{tag}")).count(), 1, "{tag}");
        let (_, after) = page.split_once(&open).unwrap();
        let (text, _) = after.split_once(&close).unwrap();
        assert!(text.len() > 1_000, "{tag} is not in the page");
        let hash = STANDARD.encode(Sha256::digest(text));
        let source = format!("{tag}-src 'sha256-{hash}'");
        assert!(
            policy.to_str().unwrap().contains(&source),
            "src/dashboard/page.rs: the policy needs {source}"
        );
    }
}
