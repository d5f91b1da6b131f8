//! [`assert_added!`](crate::assert_added): compares the names of added tasks with expected names.

use std::fmt;

use crate::{BackgroundTasks, Runner, TaskInfo};

/// Asserts that exactly the tasks with these names were added, in this order.
///
/// The first argument is a [`BackgroundTasks`](crate::BackgroundTasks) or a
/// [recording](crate::Runner::recording) [`Runner`](crate::Runner), or a reference to one. The
/// names are compared with the waiting tasks of the queue, or with the recorded tasks of the
/// runner. A name is any `AsRef<str>`.
///
/// ```
/// use tower_background_tasks::{BackgroundTasks, Runner, Task, assert_added};
///
/// fn signup(tasks: &BackgroundTasks) {
///     tasks.add_task(Task::new(async {}).named("welcome-mail"));
///     tasks.add_task(Task::new(async {}).named("audit"));
/// }
///
/// let tasks = BackgroundTasks::new();
/// assert_added!(tasks, []);
/// signup(&tasks);
/// assert_added!(tasks, ["welcome-mail", "audit"]);
///
/// let runner = Runner::recording();
/// let response = runner.attach(http::Response::new(String::new()), tasks);
/// assert_added!(runner, ["welcome-mail", "audit"]);
/// # drop(response);
/// ```
///
/// # Panics
///
/// If other tasks were added, or the same tasks in another order. The message has both lists, and
/// says where each task was added.
///
/// If there is nothing to compare: the runner does not record, or the queue's own runner records
/// the tasks instead.
#[macro_export]
macro_rules! assert_added {
    ($from:expr, [$($name:expr),* $(,)?] $(,)?) => {
        $crate::testing::added::assert_added(
            &$from,
            &[$(::core::convert::AsRef::<str>::as_ref(&$name)),*],
        )
    };
}

/// What [`assert_added!`](crate::assert_added) can inspect.
pub trait Added {
    /// Returns the added tasks, in their order.
    ///
    /// # Errors
    ///
    /// This returns an error, which names the remedy, when there is nothing to compare.
    fn added(&self) -> Result<Vec<TaskInfo>, &'static str>;
}

impl Added for BackgroundTasks {
    fn added(&self) -> Result<Vec<TaskInfo>, &'static str> {
        let waiting = self.queue().waiting();
        waiting
            .ok_or("the runner of these tasks records them: pass the `Runner` to `assert_added!`")
    }
}

impl Added for Runner {
    fn added(&self) -> Result<Vec<TaskInfo>, &'static str> {
        if self.owner().is_recording() {
            return Ok(self.recorded());
        }
        Err("this runner does not record what is added: make it with `Runner::recording()`")
    }
}

impl<T: Added + ?Sized> Added for &T {
    fn added(&self) -> Result<Vec<TaskInfo>, &'static str> {
        (**self).added()
    }
}

/// The function behind [`assert_added!`](crate::assert_added).
#[track_caller]
pub fn assert_added(from: &impl Added, expected: &[&str]) {
    let added = match from.added() {
        Ok(added) => added,
        Err(remedy) => panic!("{remedy}"),
    };
    if !added
        .iter()
        .map(TaskInfo::name)
        .eq(expected.iter().copied())
    {
        panic!("{}", Different { expected, added });
    }
}

struct Different<'a> {
    expected: &'a [&'a str],
    added: Vec<TaskInfo>,
}

impl fmt::Display for Different<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("other tasks were added than expected\nexpected:")?;
        for name in self.expected {
            write!(f, "\n  {name:?}")?;
        }
        f.write_str("\nadded:")?;
        for task in &self.added {
            write!(f, "\n  {:?}, at {}", task.name(), task.location())?;
        }
        Ok(())
    }
}
