//! [`RunJobError`].

use std::{error::Error, fmt};

/// A stored job could not start, or it panicked. [`Jobs::run`](crate::Jobs::run) returns this.
///
/// A worker treats this like any other error, so the job stays in the store for its retries. A
/// worker of another version may then know the name, or parse the payload.
///
/// ```
/// # use tower_background_tasks::{Jobs, RunJobError, StoredJob};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), serde_json::Error> {
/// let stored: StoredJob = serde_json::from_str(
///     r#"{"id": "0FHYPNQPEB8TFT2SBGGSVJH58E", "name": "from-next-year", "payload": {}}"#,
/// )?;
/// let error = Jobs::new(()).run(stored).await.unwrap_err();
/// match error.downcast_ref::<RunJobError>() {
///     Some(RunJobError::NotRegistered { name, .. }) => assert_eq!(name, "from-next-year"),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RunJobError {
    /// No job is registered under the stored name.
    #[non_exhaustive]
    NotRegistered {
        /// The name of the stored job.
        name: String,
    },
    /// The payload does not parse, usually because another version of the program stored it.
    #[non_exhaustive]
    Payload {
        /// The name of the job.
        name: String,
        /// What does not parse, and where.
        error: serde_json::Error,
    },
    /// The stored value is not a job: it has no name or no valid id.
    Unreadable,
    /// The job panicked. The worker and its other jobs continue.
    #[non_exhaustive]
    Panicked {
        /// The name of the job.
        name: String,
        /// The message of the panic.
        message: String,
    },
}

impl RunJobError {
    /// Returns the stored job's name. It is empty for [`Unreadable`](Self::Unreadable).
    pub fn job_name(&self) -> &str {
        match self {
            Self::NotRegistered { name }
            | Self::Payload { name, .. }
            | Self::Panicked { name, .. } => name,
            Self::Unreadable => "",
        }
    }
}

/// The text includes the cause, because stores keep only the text.
impl fmt::Display for RunJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered { name } => write!(
                f,
                "no job is registered as `{}`: register it with the worker's `Jobs`, or leave it to a newer worker",
                name.escape_debug() // it comes from the store
            ),
            Self::Payload { name, error } => write!(
                f,
                "the payload of job `{name}` does not parse, as another version of it was stored ({error}): give new fields `#[serde(default)]`"
            ),
            Self::Unreadable => f.write_str(
                "what was stored is no job, as it has no name or no id: does something else write to this queue?",
            ),
            Self::Panicked { name, message } => write!(f, "job `{name}` panicked: {message}"),
        }
    }
}

impl Error for RunJobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Payload { error, .. } => Some(error),
            _ => None,
        }
    }
}
