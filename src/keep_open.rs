//! [`KeepOpen`]: a connection that a shutdown waits for. Keeps the promise "late is fine" for
//! connections that add tasks when they close.
//!
//! It uses the handle [`BackgroundTasks`], `queue` and `shared`.

use std::{fmt, panic::Location, sync::Arc};

use crate::{BackgroundTasks, queue::owner::Owner, util::contain::woken_contained};

/// Makes a shutdown wait while this lives. Made by [`BackgroundTasks::keep_open`].
#[must_use = "the connection is kept open for as long as this lives"]
pub struct KeepOpen {
    /// The runner, and the number under which it keeps the connection. `None` without a runner.
    kept: Option<(Arc<Owner>, u64)>,
}

impl BackgroundTasks {
    /// Makes a shutdown wait for this connection while the returned [`KeepOpen`] lives. Use it for
    /// an upgrade or an event stream that adds tasks when it closes.
    ///
    /// A server does not wait for an upgraded connection, as its request has ended. Without this,
    /// a shutdown that finds no task is over at once. A task that the socket's handler adds later
    /// is [`Rejected`](crate::TaskEnd::Rejected). With this, the runner accepts such tasks until
    /// the end of the grace period.
    /// [`ShutdownReport::connections`](crate::ShutdownReport::connections) lists the connections
    /// that are still kept open then.
    ///
    /// **Call it before the response**, in the handler, and move the guard into the upgraded
    /// connection's task. That task begins some time after the response has ended. A shutdown in
    /// between would not wait for it.
    ///
    /// [`shutting_down`](Self::shutting_down) tells the connection to end.
    /// [`Runner::idle`](crate::Runner::idle) does not wait for the connection. A stand-alone queue
    /// has no runner yet, so it keeps nothing open.
    ///
    /// ```
    /// use tokio::sync::mpsc::Receiver;
    /// use tower_background_tasks::{BackgroundTasks, KeepOpen};
    ///
    /// /// Upgrades the connection.
    /// async fn handler(tasks: BackgroundTasks, messages: Receiver<String>) {
    ///     let open = tasks.keep_open();
    ///     tokio::spawn(chat(tasks, open, messages)); // with axum, in `upgrade.on_upgrade(..)`
    /// }
    ///
    /// /// Runs behind the upgrade, until the client has gone.
    /// async fn chat(tasks: BackgroundTasks, open: KeepOpen, mut messages: Receiver<String>) {
    ///     loop {
    ///         tokio::select! {
    ///             message = messages.recv() => match message {
    ///                 Some(message) => println!("{message}"),
    ///                 None => break,
    ///             },
    ///             () = tasks.shutting_down() => break,
    ///         }
    ///     }
    ///     tasks.add_task(async { println!("the room is empty") });
    ///     drop(open);
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let (sender, receiver) = tokio::sync::mpsc::channel(1);
    /// # drop(sender);
    /// # let tasks = BackgroundTasks::new();
    /// # let open = tasks.keep_open();
    /// # chat(tasks.clone(), open, receiver).await;
    /// # assert_eq!(tasks.len(), 1);
    /// # let (_, receiver) = tokio::sync::mpsc::channel(1);
    /// # handler(tasks, receiver).await;
    /// # }
    /// ```
    #[track_caller]
    pub fn keep_open(&self) -> KeepOpen {
        let kept = self.queue().keep_open(Location::caller());
        KeepOpen { kept }
    }

    /// Returns true once the runner shuts down: see
    /// [`shutting_down`](Self::shutting_down).
    pub fn is_shutting_down(&self) -> bool {
        let owner = self.queue().root().owner().cloned();
        owner.is_some_and(|owner| owner.shared.closing.is_cancelled())
    }

    /// Waits until the runner shuts down. An event stream or a socket then has the rest of its
    /// time to end. On a stand-alone queue this waits forever.
    ///
    /// # Cancel safety
    ///
    /// Dropping this stops the waiting and nothing else.
    pub async fn shutting_down(&self) {
        match self.queue().root().owner() {
            Some(owner) => woken_contained(owner.shared.closing.cancelled()).await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for KeepOpen {
    fn drop(&mut self) {
        if let Some((owner, number)) = self.kept.take() {
            owner.shared.close_connection(number);
        }
    }
}

impl fmt::Debug for KeepOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepOpen").finish_non_exhaustive()
    }
}
