//! [`Attached`]: how a handler's stand-alone queue travels with its response to whoever runs it.

use http::Extensions;

use crate::BackgroundTasks;

/// In a response's extensions: tasks that came with the response.
#[derive(Clone)]
struct Attached(BackgroundTasks);

/// Puts `tasks` behind what is attached already.
#[cfg(feature = "axum")]
pub(crate) fn attach(extensions: &mut Extensions, tasks: BackgroundTasks) {
    match extensions.get::<Attached>() {
        Some(Attached(first)) => first.queue().merge(tasks.queue()),
        None => {
            extensions.insert(Attached(tasks));
        }
    }
}

/// Takes what is attached, so that no layer further out takes it too.
#[inline]
pub(crate) fn take(extensions: &mut Extensions) -> Option<BackgroundTasks> {
    extensions.remove().map(|Attached(tasks)| tasks)
}
