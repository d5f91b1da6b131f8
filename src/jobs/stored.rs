//! [`StoredJob`]: what a store keeps.

use std::{collections::HashMap, fmt};

use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Job, JobId, info::RequestLine};

/// A job as a store keeps it: an id, a name and a payload, and where it came from.
///
/// It is serialisable; a backend of apalis stores it as its arguments. A worker hands it to [`Jobs::run`](crate::Jobs::run).
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tower_background_tasks::{Job, JobContext, StoredJob, TaskResult};
/// # #[derive(Serialize, Deserialize)]
/// # struct WelcomeEmail { to: String }
/// # impl Job for WelcomeEmail {
/// #     const NAME: &'static str = "welcome-email";
/// #     type State = ();
/// #     async fn run(self, _: (), _: JobContext) -> TaskResult { Ok(()) }
/// # }
/// let stored = StoredJob::new(&WelcomeEmail { to: "ferris@example.org".into() })?;
/// let json = serde_json::to_string(&stored)?;
/// let read: StoredJob = serde_json::from_str(&json)?;
/// assert_eq!((read.name(), read.id()), ("welcome-email", stored.id()));
/// assert_eq!(read.payload()["to"], "ferris@example.org");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredJob {
    id: JobId,
    name: String,
    payload: Value,
    // What follows may be missing: an older version may have stored the job, or somebody by hand.
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    request: Option<JobRequest>,
    #[serde(default)]
    trace: HashMap<String, String>,
}

/// The request that a job came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRequest {
    /// Its method, such as `POST`.
    pub method: String,
    /// Its path, without the query: that may hold what is not for a store.
    pub path: String,
}

impl StoredJob {
    /// A job of no request: to store it by other means than a [`JobStore`](crate::JobStore), such as a row in the same transaction
    /// as what it is about.
    ///
    /// # Errors
    ///
    /// This returns an error when the job cannot be serialised to JSON.
    pub fn new<J: Job>(job: &J) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: JobId::random(),
            name: J::NAME.to_owned(),
            payload: serde_json::to_value(job)?,
            attempts: 0,
            request: None,
            trace: HashMap::new(),
        })
    }

    pub(crate) fn with_origin(
        mut self,
        request: Option<&RequestLine>,
        trace: HashMap<String, String>,
    ) -> Self {
        self.request = request.map(JobRequest::from);
        self.trace = trace;
        self
    }

    /// Counts an attempt that was cut short before the job came to the store.
    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The same for each run of the job.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// [`Job::NAME`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job's own fields.
    pub fn payload(&self) -> &Value {
        &self.payload
    }

    /// How often it had begun to run before it was stored: once for a job that was running when its runner shut down, and otherwise
    /// never. The store counts its own attempts.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The request in which it was added; `None` for a job of no request.
    pub fn request(&self) -> Option<&JobRequest> {
        self.request.as_ref()
    }

    /// The trace in which it was added, as the headers by which W3C's Trace Context travels: `traceparent`, `tracestate`. Or whatever
    /// [`RunnerBuilder::job_trace`](crate::RunnerBuilder::job_trace) put there.
    pub fn trace(&self) -> &HashMap<String, String> {
        &self.trace
    }

    pub(crate) fn into_parts(self) -> (Value, Option<JobRequest>, HashMap<String, String>) {
        (self.payload, self.request, self.trace)
    }
}

impl From<&RequestLine> for JobRequest {
    fn from(request: &RequestLine) -> Self {
        let path = request.path.as_ref().map(PathAndQuery::path);
        Self {
            method: request.method.to_string(),
            path: path.unwrap_or_default().to_owned(),
        }
    }
}

/// Without the payload, which may hold what is not for a log.
impl fmt::Debug for StoredJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredJob")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("attempts", &self.attempts)
            .field("request", &self.request)
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}
