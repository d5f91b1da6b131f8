//! [`JobSide`]: what a queue keeps for its jobs.

use std::{collections::HashMap, sync::Arc};

use http::{Extensions, HeaderValue, request::Parts};

use super::registered::Registry;
use crate::{BackgroundTasks, Jobs, queue::Queue, task::context::ContextSource};

/// The headers of W3C Trace Context, each with the greatest length that jobs keep, in bytes. A
/// `traceparent` has 55 bytes, and a later version may have more. The specification requires
/// programs to pass on at least 512 bytes of `tracestate`.
const TRACE_HEADERS: [(&str, usize); 2] = [("traceparent", 256), ("tracestate", 512)];

/// A value in the extensions of a queue.
#[derive(Clone)]
pub(crate) struct JobSide {
    /// The jobs of a stand-alone queue from [`BackgroundTasks::with_jobs`]. Other queues use the
    /// jobs of their runner.
    pub(crate) jobs: Option<Arc<Registry>>,
    /// The trace that the request came with, in the order of [`TRACE_HEADERS`].
    trace: [Option<HeaderValue>; 2],
}

impl JobSide {
    /// Makes the extensions of a stand-alone queue with these jobs.
    pub(super) fn of_jobs(jobs: Arc<Registry>) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Self {
            jobs: Some(jobs),
            trace: [None, None],
        });
        extensions
    }

    /// Keeps the trace that the request came with, if it has one.
    pub(super) fn note_trace(request: &Parts, extensions: &mut Extensions) {
        let trace = TRACE_HEADERS.map(|(name, limit)| {
            let value = request.headers.get(name)?;
            let fits = (1..=limit).contains(&value.len()) && value.to_str().is_ok();
            fits.then(|| value.clone())
        });
        // A `tracestate` means nothing without its `traceparent`.
        if trace[0].is_some() {
            extensions.insert(Self { jobs: None, trace });
        }
    }

    pub(super) fn of(queue: &Queue) -> Option<&Self> {
        queue.extensions().get()
    }

    pub(crate) fn trace(&self) -> HashMap<String, String> {
        let values = TRACE_HEADERS.iter().zip(&self.trace);
        let header = |((name, _), value): (&(&str, usize), &Option<HeaderValue>)| {
            let value = value.as_ref()?.to_str().ok()?;
            Some((String::from(*name), value.to_owned()))
        };
        values.filter_map(header).collect()
    }
}

/// Jobs.
#[cfg_attr(docsrs, doc(cfg(feature = "jobs")))]
impl BackgroundTasks {
    /// Makes a stand-alone queue that accepts jobs. Use it in a unit test of a handler, or attach
    /// it to a response.
    ///
    /// Its jobs run as tasks, even if the queue is attached to a runner with a store.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tower_background_tasks::{AddJobError, BackgroundTasks, Job, JobContext, Jobs, TaskEnd, TaskResult};
    /// # #[derive(Serialize, Deserialize)] struct WelcomeEmail { to: String }
    /// # impl Job for WelcomeEmail {
    /// #     const NAME: &'static str = "welcome-email";
    /// #     type State = ();
    /// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// async fn signup(tasks: BackgroundTasks) -> Result<&'static str, AddJobError> {
    ///     tasks.add_job(WelcomeEmail { to: "ferris@example.org".into() }).await?;
    ///     Ok("signed up")
    /// }
    ///
    /// let tasks = BackgroundTasks::with_jobs(Jobs::new(()).register::<WelcomeEmail>());
    /// signup(tasks.clone()).await.unwrap();
    /// assert_eq!(tasks.names(), ["welcome-email"]);
    /// assert!(matches!(tasks.run().await[..], [TaskEnd::Completed]));
    /// # }
    /// ```
    pub fn with_jobs<S>(jobs: Jobs<S>) -> Self {
        let extensions = JobSide::of_jobs(jobs.into_registry());
        Self::of(Queue::stand_alone_with(extensions))
    }
}
