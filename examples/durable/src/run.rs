//! The plan by which the server and the worker of this process end.

use tower_background_tasks::{BoxError, Runner, ShutdownReport};

use crate::{Engine, Mode, Settings, runner::runner, serve::serve, work::work};

/// Accepts orders, ships them, or both, until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// This returns an error when it cannot listen, or cannot open the log of the orders shipped.
pub async fn run(settings: Settings, engine: Engine) -> Result<(), BoxError> {
    let (mode, in_process, grace) = (settings.mode, settings.in_process, settings.grace);
    let runner = runner(&settings, &engine)?;
    let running = runner.clone();
    let report = runner
        .serve(|shutdown| async move {
            let working = work(&settings, &engine, &running);
            match mode {
                Mode::Work => working.await,
                Mode::Both => {
                    tokio::try_join!(working, serve(&settings, &running, shutdown)).map(drop)
                }
                Mode::Serve | Mode::Dead => serve(&settings, &running, shutdown).await,
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
