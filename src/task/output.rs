//! What a task can return.

/// Any error that a task can fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The result of a task that can fail.
///
/// ```
/// use tower_background_tasks::TaskResult;
///
/// async fn ping(host: &str) -> TaskResult {
///     let _port: u16 = host.parse()?; // any error will do
///     Ok(())
/// }
/// ```
pub type TaskResult<E = BoxError> = Result<(), E>;

/// What a task's future or closure may return: `()`, a `Result` whose error converts into
/// [`BoxError`], or `!` (a task that never ends).
///
/// The value of an `Ok` is dropped. The error of an `Err` becomes
/// [`TaskEnd::Failed`](crate::TaskEnd::Failed). The error moves between threads, so a
/// `Box<dyn Error>` needs `+ Send + Sync`: use [`BoxError`].
///
/// ```
/// use tower_background_tasks::Task;
///
/// let _ = Task::new(async {});
/// let _ = Task::new(async { "42".parse::<u32>() });
/// let _ = Task::blocking(|| std::fs::read_to_string("/etc/hostname"));
/// ```
///
/// An async block or closure that uses `?` has no signature that names its error. Name the error
/// in its last line. Otherwise the compiler reports `type annotations needed` (E0282):
///
/// ```
/// use tower_background_tasks::{BoxError, Task};
///
/// let _ = Task::new(async {
///     let _port: u16 = "80".parse()?;
///     Ok::<(), BoxError>(())
/// });
/// ```
///
/// A number, for example, is neither success nor failure, so this does not compile:
///
/// ```compile_fail
/// # use tower_background_tasks::Task;
/// let _ = Task::new(async { 42 });
/// ```
#[diagnostic::on_unimplemented(
    message = "a background task cannot give back `{Self}`",
    label = "the task's output is `{Self}`",
    note = "a task gives back `()`, a `Result<T, E>` whose error converts into `Box<dyn Error + Send + Sync>`, or `!`",
    note = "end an async block or a closure with `;`, or with `Ok::<(), BoxError>(())` where it uses `?`",
    note = "where it is a future, the closure around it is not needed: `add_task(future)`"
)]
pub trait TaskOutput {
    /// Converts the output into success or failure.
    ///
    /// # Errors
    ///
    /// This returns an error when the task failed.
    fn into_task_result(self) -> TaskResult;
}

impl TaskOutput for () {
    fn into_task_result(self) -> TaskResult {
        Ok(())
    }
}

impl<T, E: Into<BoxError>> TaskOutput for Result<T, E> {
    fn into_task_result(self) -> TaskResult {
        self.map(drop).map_err(Into::into)
    }
}

/// Names the type `!`, which stable Rust cannot write. In edition 2024, an `async { loop { … } }`
/// has this output.
mod never {
    #[expect(unnameable_types, reason = "only `Never` below is for use")]
    pub trait Returns {
        type Output;
    }

    impl<R> Returns for fn() -> R {
        type Output = R;
    }

    pub(super) type Never = <fn() -> ! as Returns>::Output;
}

#[diagnostic::do_not_recommend] // its name would only confuse in an error
impl TaskOutput for never::Never {
    fn into_task_result(self) -> TaskResult {
        self
    }
}
