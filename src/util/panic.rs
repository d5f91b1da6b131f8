//! [`TaskPanic`]: the message and place of a panic. [`install_panic_hook`]: the hook that finds
//! the place.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    fmt,
    panic::{PanicHookInfo, set_hook, take_hook},
    sync::Once,
};

use super::contain::message_of;

/// A task's panic: its message, and the place where it happened if [`install_panic_hook`] was
/// called.
///
/// Its [`Display`](fmt::Display) is the message and the place:
/// `no such user, at src/signup.rs:20:11`. The message may have several lines.
pub struct TaskPanic(Box<Inner>);

struct Inner {
    message: String,
    place: Option<Place>,
}

struct Place {
    location: String,
    backtrace: Option<String>,
}

thread_local! {
    /// The message and place of the last panic on this thread, until [`TaskPanic::caught`] takes
    /// them.
    static LAST: RefCell<Option<(String, Place)>> = const { RefCell::new(None) };
}

/// Records where each panic of a task happens. The place then appears in the log, in
/// [`TaskEnd::Panicked`](crate::TaskEnd::Panicked) and wherever that end is shown. With
/// `RUST_BACKTRACE=1`, the log has the backtrace too.
///
/// This installs a panic hook for the whole process. The new hook calls the one before it. Only a
/// hook can see where a panic happens, so without this only the message is known. Later calls do
/// nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_background_tasks::{BackgroundTasks, TaskEnd, install_panic_hook};
///
/// install_panic_hook();
/// let tasks = BackgroundTasks::new();
/// tasks.add_task(async { panic!("no such user") });
/// let ends = tasks.run().await;
/// let TaskEnd::Panicked(panic) = &ends[0] else { panic!("{}", ends[0]) };
/// assert_eq!(panic.message(), "no such user");
/// assert!(panic.location().is_some_and(|location| location.contains(".rs:")));
/// # }
/// ```
///
/// # Panics
///
/// This panics if the calling thread is already panicking.
pub fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            remember(info);
            before(info);
        }));
    });
}

/// Stores the panic for [`TaskPanic::caught`]. Both accesses may fail: the thread may be ending,
/// and a second panic may start within the first.
fn remember(info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let place = Place {
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: matches!(backtrace.status(), BacktraceStatus::Captured)
            .then(|| backtrace.to_string()),
    };
    let panic = (message_of(info.payload()), place);
    let _ = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = Some(panic)));
}

impl TaskPanic {
    /// Describes the panic that this thread has just caught. A resumed panic calls no hook, so the
    /// stored place belongs to an earlier panic. The messages are compared to detect that.
    pub(crate) fn caught(message: String) -> Self {
        let last = LAST.try_with(|last| last.try_borrow_mut().ok()?.take());
        let last = last.ok().flatten();
        let own = last.filter(|(of, _)| *of == message);
        let place = own.map(|(_, place)| place);
        Self(Box::new(Inner { message, place }))
    }

    /// Returns the message. If the payload is not text, the message says that there is none.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the file, line and column of the panic. Returns `None` without
    /// [`install_panic_hook`].
    pub fn location(&self) -> Option<&str> {
        self.0.place.as_ref().map(|place| &*place.location)
    }

    /// Returns the backtrace. Returns `None` without [`install_panic_hook`], and if
    /// [`Backtrace::capture`](std::backtrace::Backtrace::capture) captures none.
    pub fn backtrace(&self) -> Option<&str> {
        self.0.place.as_ref()?.backtrace.as_deref()
    }
}

impl fmt::Display for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        match self.location() {
            Some(location) => write!(f, ", at {location}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPanic")
            .field("message", &self.message())
            .field("location", &self.location())
            .finish_non_exhaustive()
    }
}
