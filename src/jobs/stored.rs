//! [`StoredJob`]: what a store keeps.

use std::{collections::HashMap, fmt, time::SystemTime};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser::SerializeStruct,
};
use serde_json::Value;

use super::job_request::JobOptions;
use crate::{Job, JobId, task::request_info::RequestInfo};

/// A job as a store keeps it: its id, name and payload, and the request and trace that it comes
/// from.
///
/// A store serialises this, and apalis' backends store it as a task's arguments. A worker passes
/// it to [`Jobs::run`](crate::Jobs::run).
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
/// assert_eq!(read.payload(), r#"{"to":"ferris@example.org"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # What cannot be read
///
/// An apalis worker stops at arguments that it cannot read, and stops again after each restart. So
/// this type can read everything that it writes. It writes the payload as a string, which is
/// parsed only when the job runs. If the payload does not parse, the job fails under its own name
/// with [`RunJobError::Payload`](crate::RunJobError::Payload). This type can also read JSON
/// without a name or a valid id. Such a value fails with
/// [`RunJobError::Unreadable`](crate::RunJobError::Unreadable) when it runs.
///
/// A value from another writer cannot be read if `serde_json` does not accept it as JSON. Examples
/// are nesting deeper than 127 levels, a number too large for an `f64`, and half a surrogate pair.
/// In a job that is written by hand, the payload may be an object (`"payload": {"to": …}`). A
/// string is always parsed as JSON text, so a job that is itself a string must be encoded twice.
#[derive(Clone, PartialEq)]
pub struct StoredJob {
    id: JobId,
    name: String,
    /// JSON text.
    payload: String,
    attempts: u32,
    request: Option<JobOrigin>,
    trace: HashMap<String, String>,
    /// The options for the store that keeps the job. They are not in the JSON.
    options: JobOptions,
    /// The value that was read, if it is not a job.
    no_job: Option<Value>,
}

/// The request that added a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobOrigin {
    /// The request's method, such as `POST`.
    pub method: String,
    /// The request's path, without the query, which may hold data that does not belong in a store.
    pub path: String,
}

impl StoredJob {
    /// Makes a stored job that belongs to no request. A program can store it without a
    /// [`JobStore`](crate::JobStore), for example in the same transaction as its data.
    ///
    /// # Errors
    ///
    /// This returns an error when the job cannot be serialised to JSON.
    pub fn new<J: Job>(job: &J) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: JobId::random(),
            name: J::NAME.to_owned(),
            payload: serde_json::to_string(job)?,
            attempts: 0,
            request: None,
            trace: HashMap::new(),
            options: JobOptions::default(),
            no_job: None,
        })
    }

    pub(crate) fn with_origin(
        mut self,
        request: Option<&RequestInfo>,
        trace: HashMap<String, String>,
    ) -> Self {
        self.request = request.map(JobOrigin::of);
        self.trace = trace;
        self
    }

    pub(super) fn with_options(mut self, options: JobOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the number of attempts that began before the job was stored.
    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Returns the job's id, which is the same for each run of the job.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Returns [`Job::NAME`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the job's own fields as JSON. If the value that was read is not a job, this returns
    /// the whole value.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Returns how many attempts began before the job was stored: 1 for a job that ran when its
    /// runner shut down, and otherwise 0. The store counts its own attempts.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the request that added the job, or `None` if no request did.
    pub fn request(&self) -> Option<&JobOrigin> {
        self.request.as_ref()
    }

    /// Returns the trace in which the job was added, as the headers of W3C Trace Context:
    /// `traceparent` and `tracestate`.
    /// [`RunnerBuilder::job_trace`](crate::RunnerBuilder::job_trace) may write other entries.
    pub fn trace(&self) -> &HashMap<String, String> {
        &self.trace
    }

    /// Returns the earliest time at which the job may run ([`Job::after`]).
    ///
    /// This and the other options are `None` in a job that was read from JSON, because a store
    /// keeps them elsewhere.
    pub fn run_at(&self) -> Option<SystemTime> {
        self.options.run_at
    }

    /// Returns the job's priority ([`Job::priority`]).
    pub fn priority(&self) -> Option<u16> {
        self.options.priority
    }

    /// Returns the key that no other job of this name may have ([`Job::unique`]).
    pub fn unique_key(&self) -> Option<&str> {
        self.options.unique_key.as_deref()
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.no_job.is_none()
    }
}

impl Serialize for StoredJob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(value) = &self.no_job {
            return value.serialize(serializer);
        }
        let mut parts = serializer.serialize_struct("StoredJob", 6)?;
        parts.serialize_field("id", &self.id)?;
        parts.serialize_field("name", &self.name)?;
        parts.serialize_field("payload", &self.payload)?;
        parts.serialize_field("attempts", &self.attempts)?;
        parts.serialize_field("request", &self.request)?;
        parts.serialize_field("trace", &self.trace)?;
        parts.end()
    }
}

impl StoredJob {
    fn of(mut value: Value) -> Self {
        let id = value.get("id").and_then(|id| JobId::deserialize(id).ok());
        let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
        match (id, name) {
            (Some(id), Some(name)) => Self {
                id,
                name,
                payload: match taken(&mut value, "payload") {
                    Value::String(json) => json,
                    payload => payload.to_string(),
                },
                // These may be missing if an older version or a person wrote the job.
                attempts: taken(&mut value, "attempts"),
                request: taken(&mut value, "request"),
                trace: taken(&mut value, "trace"),
                options: JobOptions::default(),
                no_job: None,
            },
            (id, name) => Self {
                id: id.unwrap_or(JobId::NONE),
                name: name.unwrap_or_default(),
                payload: value.to_string(),
                attempts: 0,
                request: None,
                trace: HashMap::new(),
                options: JobOptions::default(),
                no_job: Some(value),
            },
        }
    }
}

/// Takes a part out of the value that was read. Returns the default if the part is missing or has
/// another type.
fn taken<T: DeserializeOwned + Default>(value: &mut Value, part: &str) -> T {
    let part = value.get_mut(part).map(Value::take).unwrap_or_default();
    serde_json::from_value(part).unwrap_or_default()
}

impl<'de> Deserialize<'de> for StoredJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::of)
    }
}

impl JobOrigin {
    pub(super) fn of(request: &RequestInfo) -> Self {
        let path = request.path();
        Self {
            method: request.method.to_string(),
            path: path.unwrap_or_default().to_owned(),
        }
    }
}

/// Omits the payload, which may hold data that does not belong in a log.
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
