//! [`RunJobError`].

use std::{error::Error, fmt};

/// A stored job could not be run to its end, other than by its own error: from [`Jobs::run`](crate::Jobs::run).
///
/// To a worker it is an error like any other, which leaves the job in the store for its retries: a worker of another version may
/// know the name, or read the payload.
///
/// ```
/// # use tower_background_tasks::{Jobs, RunJobError, StoredJob};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), serde_json::Error> {
/// let stored: StoredJob = serde_json::from_str(
///     r#"{"id": "0f8fad5bd9cb469fa16570867728950e", "name": "from-next-year", "payload": {}}"#,
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
    /// No job is registered under that name.
    #[non_exhaustive]
    NotRegistered {
        /// The stored job's.
        name: String,
    },
    /// The payload is not that job's: an older or newer version stored it.
    #[non_exhaustive]
    Payload {
        /// The job's.
        name: String,
        /// What does not fit, and where.
        error: serde_json::Error,
    },
    /// What the store had is no job: it has no name, or no id.
    Unreadable,
    /// The job panicked. Nothing else of the worker is harmed.
    #[non_exhaustive]
    Panicked {
        /// The job's.
        name: String,
        /// The panic's.
        message: String,
    },
}

impl RunJobError {
    /// The stored job's name; empty where it has none.
    pub fn job_name(&self) -> &str {
        match self {
            Self::NotRegistered { name }
            | Self::Payload { name, .. }
            | Self::Panicked { name, .. } => name,
            Self::Unreadable => "",
        }
    }
}

/// With its cause, as stores keep no more than the text.
impl fmt::Display for RunJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered { name } => write!(
                f,
                "no job is registered as `{name}`: register it with the worker's `Jobs`, or leave it to a newer worker"
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
