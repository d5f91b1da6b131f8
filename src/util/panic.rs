//! [`TaskPanic`]: what is known of a panic; and the hook that sees where it happens.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    fmt,
    panic::{PanicHookInfo, set_hook, take_hook},
    sync::Once,
};

use super::contain::message_of;

/// A panic of a task: its message, and where it happened, if
/// [`install_panic_hook`] was called.
///
/// Its [`Display`](fmt::Display) is the message and the place: `no such user, at
/// src/signup.rs:20:11`. The message is the panic's own, and may have several lines.
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
    /// The message and the place of the last panic on this thread that nobody has asked about.
    static LAST: RefCell<Option<(String, Place)>> = const { RefCell::new(None) };
}

/// Has each panic of a task tell where it happened: in the log, in
/// [`TaskEnd::Panicked`](crate::TaskEnd::Panicked), and in all that shows it. With
/// `RUST_BACKTRACE=1` the log has the backtrace, too.
///
/// This installs a hook for the whole process, which calls the one before it. A panic hook is the
/// only one to know where a panic happens, so without this only its message is known. Later calls
/// do nothing.
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
/// If it is called while this thread panics.
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

/// A thread that ends has no place for it any more, and a second panic may come within the first.
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
    /// Makes the panic that this thread has just caught. A panic that was resumed calls no hook: the
    /// last place is then that of another panic, unless both have the same message.
    pub(crate) fn caught(message: String) -> Self {
        let last = LAST.try_with(|last| last.try_borrow_mut().ok()?.take());
        let last = last.ok().flatten();
        let own = last.filter(|(of, _)| *of == message);
        let place = own.map(|(_, place)| place);
        Self(Box::new(Inner { message, place }))
    }

    /// Returns the message. A panic whose payload is no text has a general one.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns where the panic happened, as file, line and column. `None` without
    /// [`install_panic_hook`].
    pub fn location(&self) -> Option<&str> {
        self.0.place.as_ref().map(|place| &*place.location)
    }

    /// Returns the backtrace. `None` without [`install_panic_hook`], and where
    /// [`Backtrace::capture`](std::backtrace::Backtrace::capture) makes none.
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
