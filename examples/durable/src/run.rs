//! The plan by which the server and the worker of this process end.

use tower_background_tasks::{BoxError, Runner, ShutdownReport};

use crate::{Engine, Mode, Settings, progress, runner::runner, serve::serve, work::work};

/// Accepts orders, ships them, or both, until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// This returns an error when it cannot listen, or cannot open the log of the orders shipped.
pub async fn run(settings: Settings, engine: Engine) -> Result<(), BoxError> {
    let (in_process, grace) = (settings.in_process, settings.grace);
    let runner = runner(&settings, &engine)?;
    let running = runner.clone();
    let report = runner
        .serve(|shutdown| async move {
            let (runner, works) = (&running, settings.mode != Mode::Serve);
            let serving = async {
                match settings.mode {
                    Mode::Work => Ok(()),
                    _ => serve(&settings, &engine, runner, shutdown).await,
                }
            };
            let working = async {
                match works {
                    true => work(&settings, &engine, runner).await,
                    false => Ok(()),
                }
            };
            tokio::select! {
                ended = async { tokio::try_join!(serving, working) } => ended.map(drop),
                () = progress::of_store(&engine), if works => Ok(()),
                () = progress::of_runner(runner), if in_process => Ok(()),
            }
        })
        .requests(grace)
        .tasks(grace)
        .await?;
    if in_process {
        print_what_was_shipped(&runner, &report);
    }
    println!("{report}");
    report.exit()
}

fn print_what_was_shipped(runner: &Runner, report: &ShutdownReport) {
    println!(
        "Shipped {} here, handed {} to the store, left {}",
        runner.stats().completed,
        report.spilled().len(),
        report.unfinished().len()
    );
}
