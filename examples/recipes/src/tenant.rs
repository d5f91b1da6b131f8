//! A task-local: code deep inside of a task finds the tenant of its request.

use std::sync::Arc;

use tower_background_tasks::{Runner, RunnerBuilder};

tokio::task_local! {
    /// Whose request it is.
    pub static TENANT: Arc<str>;
}

#[derive(Clone)]
struct Tenant(Arc<str>);

/// Takes the tenant from a header.
pub fn builder() -> RunnerBuilder {
    Runner::builder()
        .capture(|request| {
            let tenant = request.headers.get("x-tenant")?.to_str().ok()?;
            Some(Tenant(tenant.into()))
        })
        .around(|cx, next| match cx.get() {
            Some(Tenant(name)) => TENANT.sync_scope(Arc::clone(name), || next.run()),
            None => next.run(), // a task of no tenant, or of no request
        })
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tower_background_tasks::BackgroundTasks;

    use super::*;
    use crate::support::{Log, send};

    /// Nobody passed the tenant down to here.
    fn write_mail(log: &Log) {
        log.write(format!("mail of {}", TENANT.get()));
    }

    #[tokio::test]
    async fn tasks_find_the_tenant_of_their_request() {
        let (runner, log) = (builder().build(), Log::default());
        let written = log.clone();
        let handler = async move |tasks: BackgroundTasks| {
            let log = written.clone();
            tasks.add_task(async move { write_mail(&log) });
            tasks.add_blocking_task(move || write_mail(&written));
        };
        let app = Router::new().route("/", get(handler)).layer(runner.layer());
        send(app, &runner, ("x-tenant", "ferris")).await;
        assert_eq!(log.lines(), ["mail of ferris", "mail of ferris"]);
    }
}
