//! [`IntoTask`].

use super::{Task, output::TaskOutput};

/// Can be added as a task with [`add_task`](crate::BackgroundTasks::add_task): a [`Task`], or any
/// future whose output is a [`TaskOutput`].
///
/// ```
/// use tower_background_tasks::{BackgroundTasks, Task};
///
/// let tasks = BackgroundTasks::new();
/// tasks.add_task(async { println!("a future") });
/// tasks.add_task(Task::blocking(|| println!("sync code")).named("greet"));
/// assert_eq!(tasks.len(), 2);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a background task",
    label = "neither a `Task` nor a future",
    note = "pass a future (call the async fn: `send(mail)`), or wrap sync code: `add_blocking_task(move || …)`",
    note = "the future must be `Send + 'static`: move what it needs into it"
)]
pub trait IntoTask {
    /// Makes the task.
    fn into_task(self) -> Task;
}

impl IntoTask for Task {
    fn into_task(self) -> Task {
        self
    }
}

impl<F> IntoTask for F
where
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    fn into_task(self) -> Task {
        Task::new(self)
    }
}
