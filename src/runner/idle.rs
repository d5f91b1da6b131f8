//! [`Runner::idle`] and what it returns, [`Idle`].

use std::{fmt, time::Duration};

use super::Runner;
use crate::{
    observe::{info::TaskInfo, report},
    queue::waiting::Waiting,
    util::{counted::counted, timer::within},
};

/// How long [`Runner::idle`] waits for responses that have not ended. A server drops a body a
/// moment after its client has read it.
const FOR_RESPONSES: Duration = Duration::from_secs(1);

/// How many tasks a line names.
const NAMED: usize = 5;

/// What [`Runner::idle`] saw when it returned.
///
/// Its [`Display`](fmt::Display) is one line for a person. It says how many tasks still wait and
/// what to do, and names the first five:
///
/// ```text
/// 1 background task still waiting: read the body to its end or drop the response
/// (mail: waiting for 1.0s, for POST /signup, added at src/signup.rs:17:11)
/// ```
#[derive(Clone, Debug)]
pub struct Idle {
    waiting: Vec<TaskInfo>,
    /// How many of them wait for a release.
    held: usize,
}

impl Idle {
    /// Returns true if no task waited for its response or for a release. Every task that had been
    /// added has ended then, except for those [run by hand](crate::BackgroundTasks::run).
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the tasks that wait for a response that has not ended, or for a release of what
    /// [`hold`](crate::BackgroundTasks::hold) returned, in the order added.
    pub fn waiting(&self) -> &[TaskInfo] {
        &self.waiting
    }

    fn remedy(&self) -> &'static str {
        match self.held {
            0 => "read the body to its end or drop the response",
            held if held == self.waiting.len() => "release or drop what `hold` returned",
            _ => {
                "read the body to its end or drop the response, and release or drop what `hold` returned"
            }
        }
    }
}

impl From<Waiting> for Idle {
    fn from(waiting: Waiting) -> Self {
        Self {
            waiting: waiting.tasks,
            held: waiting.held,
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.waiting.split_first() else {
            return f.write_str("no background task waits for its response");
        };
        let tasks = counted(self.waiting.len(), "background task");
        write!(f, "{tasks} still waiting: {} ({first}", self.remedy())?;
        for task in others.iter().take(NAMED - 1) {
            write!(f, "; {task}")?;
        }
        match self.waiting.len().saturating_sub(NAMED) {
            0 => f.write_str(")"),
            more => write!(f, "; and {more} more)"),
        }
    }
}

impl Runner {
    /// Waits until every task whose response has ended is done. In a test, everything that a
    /// request promised has happened then.
    ///
    /// A task that still waits for its response, or for a release of what
    /// [`hold`](crate::BackgroundTasks::hold) returned, gets one second more. A server needs a
    /// moment to drop a body that its client has read. After that second this returns all the
    /// same. What it returns names the tasks that wait, and a warning in the log says the same: the
    /// test holds a response, or a client has not read one. [`finish`](crate::testing::finish)
    /// reads a response to its end.
    ///
    /// Tasks that are [run by hand](crate::BackgroundTasks::run) do not count. Tasks that are added
    /// while this waits do count. This returns at the first moment when no task is on the runner.
    /// Under a steady load that moment may never come. A task that awaits this waits for itself,
    /// for ever.
    ///
    /// The second is one of Tokio's clock: under `start_paused` it passes at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use http::Response;
    /// use tower_background_tasks::{BackgroundTasks, Runner, testing::finish};
    ///
    /// let runner = Runner::new();
    /// let tasks = BackgroundTasks::new();
    /// tasks.add_task(async { tokio::task::yield_now().await });
    /// let response = runner.attach(Response::new(String::from("hello")), tasks);
    ///
    /// let idle = runner.idle().await; // the response is still here
    /// assert_eq!(idle.waiting().len(), 1);
    /// assert!(idle.to_string().contains("read the body to its end or drop the response"));
    ///
    /// finish(response).await.unwrap();
    /// assert!(runner.idle().await.is_complete());
    /// assert_eq!(runner.stats().completed, 1);
    /// # }
    /// ```
    ///
    /// # Runtimes that freeze
    ///
    /// A function on AWS Lambda is frozen when it has handed over its answer, and its tasks with
    /// it. So it finishes the response first, then waits for this, and hands over the answer
    /// afterwards:
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, response::Response};
    /// use tower::ServiceExt; // for `oneshot`
    /// use tower_background_tasks::{BoxError, Runner, testing::finish};
    ///
    /// async fn invoke(
    ///     app: Router,
    ///     runner: &Runner,
    ///     request: Request<Body>,
    /// ) -> Result<Response, BoxError> {
    ///     let response = finish(app.oneshot(request).await?).await?; // the whole body is here
    ///     runner.idle().await;
    ///     Ok(response.map(Body::from))
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let app = Router::new().route("/", axum::routing::get(async || "hello"));
    /// # let request = Request::get("/").body(Body::empty()).unwrap();
    /// # assert!(invoke(app, &Runner::new(), request).await.unwrap().status().is_success());
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting and nothing else.
    pub async fn idle(&self) -> Idle {
        let (owner, shared) = (&self.owner, self.shared());
        shared.quiet().await;
        let settled = shared.until(|| shared.is_settled());
        if within(FOR_RESPONSES, settled).await.is_some() {
            return Idle::from(Waiting::default());
        }
        let idle = loop {
            shared.quiet().await;
            let waiting = owner.waiting();
            // A response that has ended meanwhile has its batch counted by now.
            if shared.is_quiet() {
                break Idle::from(waiting);
            }
        };
        if !idle.is_complete() {
            report::still_waiting(&idle);
        }
        idle
    }
}
