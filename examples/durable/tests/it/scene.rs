//! A queue of its own on an engine, a server, workers, clients, and the log of what was shipped.

use std::{
    collections::HashMap,
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use durable::Settings;
use tempfile::TempDir;
use tower_background_tasks::StoredJob;

use crate::{engines::Engine, process::Process};

pub(crate) struct Scene {
    pub(crate) engine: Engine,
    pub(crate) server: SocketAddr,
    dir: TempDir,
    url: String,
    queue: String,
    /// For each process.
    variables: Vec<(&'static str, String)>,
}

/// How often each order was shipped.
pub(crate) type Shipped = HashMap<u64, u32>;

impl Scene {
    pub(crate) fn new(engine: Engine) -> Self {
        static SCENES: AtomicU64 = AtomicU64::new(0);
        let scene = SCENES.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new().expect("a folder");
        let queue = format!("orders-{}-{scene}", std::process::id());
        Self {
            engine,
            server: free_address(),
            url: engine.url(dir.path(), &queue),
            dir,
            queue,
            variables: vec![
                ("HEARTBEAT", "1".into()),
                ("FIRST_RETRY", "0.1".into()),
                ("MAX_ATTEMPTS", "5".into()),
                ("NO_COLOR", "1".into()),
            ],
        }
    }

    pub(crate) fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.push((variable, value.to_owned()));
        self
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A server that stores its jobs; it listens.
    pub(crate) fn serve(&self) -> Process {
        self.serve_as("server", &["serve"])
    }

    /// A server that runs its jobs itself; it listens.
    pub(crate) fn serve_in_process(&self) -> Process {
        self.serve_as("server", &["serve", "--in-process"])
    }

    fn serve_as(&self, name: &str, arguments: &[&str]) -> Process {
        let process = self.start(name, arguments);
        self.wait_for_server();
        process
    }

    /// Another server than the example's; it listens.
    pub(crate) fn serve_by(&self, mut program: Command) -> Process {
        self.set_variables(&mut program);
        let process = Process::start(program, &self.dir().join("server.log"));
        self.wait_for_server();
        process
    }

    pub(crate) fn work(&self, name: &str) -> Process {
        self.start(name, &["work"])
    }

    /// The page to look at, where the server would be; it listens.
    pub(crate) fn board(&self) -> Process {
        self.serve_as("board", &["board"])
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Process {
        let log = self.dir().join(name).with_extension("log");
        Process::start(self.command(arguments), &log)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_durable"));
        command.args(arguments);
        self.set_variables(&mut command);
        command
    }

    fn set_variables(&self, command: &mut Command) {
        command
            .env("DATABASE_URL", self.url())
            .env("QUEUE", &self.queue)
            .env("ADDR", self.server.to_string())
            .env("SHIPPED", self.dir().join("shipped"));
        for (name, value) in &self.variables {
            command.env(name, value);
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    pub(crate) fn wait_for_server(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.server).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            sleep(Duration::from_millis(5));
        }
    }

    /// What `durable dead` says.
    pub(crate) fn dead(&self) -> String {
        self.run(&["dead"])
    }

    /// `durable retry ID`.
    pub(crate) fn retry(&self, id: &str) {
        self.run(&["retry", id]);
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("it can be run");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it is text")
    }

    /// Stores jobs without a server.
    pub(crate) fn push(&self, jobs: Vec<StoredJob>) {
        self.push_to(&self.queue, jobs);
    }

    pub(crate) fn push_to(&self, queue: &str, jobs: Vec<StoredJob>) {
        let arguments = [self.url.clone()].into_iter();
        let mut settings = Settings::read(arguments).expect("they are right");
        queue.clone_into(&mut settings.queue);
        settings.max_attempts = 5;
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let engine = durable::Engine::connect(&settings).await.expect("a store");
            for job in jobs {
                engine.store().push(job).await.expect("it is stored");
            }
        });
    }

    /// How often any order was shipped.
    pub(crate) fn shipped_lines(&self) -> u64 {
        let log = fs::read(self.dir().join("shipped")).unwrap_or_default();
        log.iter().filter(|&&byte| byte == b'\n').count() as u64
    }

    pub(crate) fn shipped(&self) -> Shipped {
        let mut shipped = Shipped::new();
        let log = fs::read_to_string(self.dir().join("shipped")).unwrap_or_default();
        for line in log.lines() {
            let number = line
                .split(' ')
                .next()
                .and_then(|number| number.parse().ok());
            *shipped
                .entry(number.expect("an order's number"))
                .or_default() += 1;
        }
        shipped
    }

    /// Waits until all `accepted` orders are shipped, or for half a minute none has been.
    pub(crate) fn wait_until_shipped(&self, accepted: &[u64]) -> Shipped {
        let (mut last, mut progress) = (0, Instant::now());
        loop {
            let shipped = self.shipped();
            let left = accepted
                .iter()
                .filter(|number| !shipped.contains_key(number));
            if left.count() == 0 || progress.elapsed() > Duration::from_secs(30) {
                return shipped;
            }
            if shipped.len() > last {
                (last, progress) = (shipped.len(), Instant::now());
            }
            sleep(Duration::from_millis(100));
        }
    }
}

/// A port that was free just now.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number")
}

/// A size of a test: `name` makes it another.
pub(crate) fn size(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}
