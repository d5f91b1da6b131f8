//! [`JobSide`]: what a queue knows for its jobs.

use std::{collections::HashMap, sync::Arc};

use http::{Extensions, HeaderValue, request::Parts};

use super::registered::Registry;
use crate::{BackgroundTasks, Jobs, queue::Queue, task::context::ContextSource};

/// The headers of W3C's Trace Context, and how many bytes of each are passed on at most. A
/// `traceparent` has 55 bytes, and may have more in a later version. Everybody should pass on 512
/// bytes of `tracestate`.
const TRACE_HEADERS: [(&str, usize); 2] = [("traceparent", 256), ("tracestate", 512)];

/// Kept in the extensions of a queue.
#[derive(Clone)]
pub(crate) struct JobSide {
    /// The jobs of a stand-alone queue that was made with them. For any other queue the runner has
    /// them.
    pub(crate) jobs: Option<Arc<Registry>>,
    /// The trace that the request came with, in the order of [`TRACE_HEADERS`].
    trace: [Option<HeaderValue>; 2],
}

impl JobSide {
    /// Makes the extensions of a stand-alone queue.
    pub(super) fn of_jobs(jobs: Arc<Registry>) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Self {
            jobs: Some(jobs),
            trace: [None, None],
        });
        extensions
    }

    /// Notes the request's trace, or nothing if the request came with none.
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

    /// Returns the trace that the request came with, as far as it is text.
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
    /// Makes a stand-alone queue that takes jobs: for a unit test of a handler, or to attach to a
    /// response.
    ///
    /// A job in it is a task like any other, even if the runner that takes the queue has a store.
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
