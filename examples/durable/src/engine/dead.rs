//! [`Dead`]: a job that was given up.

use std::fmt;

use serde_json::Value;
use tower_background_tasks::StoredJob;

/// A job that was given up; it is kept.
#[derive(Clone, Debug)]
pub struct Dead {
    /// Its number, which `add_job` returned.
    pub id: String,
    /// As it is stored.
    pub job: String,
    /// Why.
    pub error: String,
}

impl Dead {
    /// `result` is as apalis writes it: `{"Err": "…"}`.
    pub(super) fn new(id: String, job: String, result: String) -> Self {
        let parsed: Option<Value> = serde_json::from_str(&result).ok();
        let error = parsed.and_then(|result| Some(result["Err"].as_str()?.to_owned()));
        let error = error.unwrap_or(result);
        Self { id, job, error }
    }

    /// Of a row of a database.
    pub(super) fn of_row((id, job, result): (String, Vec<u8>, String)) -> Self {
        Self::new(id, String::from_utf8_lossy(&job).into_owned(), result)
    }
}

/// `ID NAME PAYLOAD, for METHOD PATH: ERROR`
impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, job, error } = self;
        let Ok(stored) = serde_json::from_str::<StoredJob>(job) else {
            return write!(f, "{id} {job}: {error}");
        };
        write!(f, "{id} {} {}", stored.name(), stored.payload())?;
        if let Some(request) = stored.request() {
            write!(f, ", for {} {}", request.method, request.path)?;
        }
        write!(f, ": {error}")
    }
}
