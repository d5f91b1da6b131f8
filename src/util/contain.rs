//! Catches the panics of user code. Keeps the promises "isolation" and "no panic of ours".

use std::{
    any::Any,
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Wake, Waker},
};

use super::panic::TaskPanic;

/// Calls user code and catches its panic.
///
/// After a panic, nothing reads what `f` touched. The caller drops the task, and contains that
/// drop too.
#[inline]
pub(crate) fn contain<T>(f: impl FnOnce() -> T) -> Result<T, TaskPanic> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| TaskPanic::caught(message(payload)))
}

/// Drops a value whose destructor is user code, and catches its panic.
pub(crate) fn contain_drop<T>(value: T) -> Result<(), TaskPanic> {
    contain(|| drop(value))
}

/// Awaits `future` with a waker that contains panics. The thread that wakes it also wakes other
/// waiters. A panic would leave those asleep.
pub(crate) async fn woken_contained<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // A weak handle, so that only `future` keeps the waker alive. The waker may own the future
    // that awaits this one, and a strong handle would leak both.
    let mut last = Weak::<ContainedWaker>::new();
    poll_fn(|cx| {
        let same = last.upgrade().filter(|last| last.wakes_as(cx.waker()));
        let waker = same.unwrap_or_else(|| Arc::new(ContainedWaker(Some(cx.waker().clone()))));
        last = Arc::downgrade(&waker);
        future
            .as_mut()
            .poll(&mut Context::from_waker(&Waker::from(waker)))
    })
    .await
}

/// Contains the panics of the inner waker. `Some` until the drop.
struct ContainedWaker(Option<Waker>);

impl ContainedWaker {
    fn wakes_as(&self, other: &Waker) -> bool {
        self.0.as_ref().is_some_and(|waker| waker.will_wake(other))
    }
}

impl Wake for ContainedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let _ = contain(|| self.0.as_ref().map(Waker::wake_by_ref));
    }
}

impl Drop for ContainedWaker {
    fn drop(&mut self) {
        let _ = contain_drop(self.0.take());
    }
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let message = message_of(&*payload);
    // The payload is user code too. If its destructor panics, the second payload is leaked.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        forget(second);
    }
    message
}

/// Returns the text of a panic.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[expect(clippy::mem_forget, reason = "dropping it may panic again, and again")]
fn forget(payload: Box<dyn Any + Send>) {
    mem::forget(payload);
}

#[cfg(test)]
mod tests {
    use std::{panic::panic_any, pin::Pin};

    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic_any(PanicsWhenDropped);
        }
    }

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contain(|| 1).unwrap(), 1);
        let message = |panic: TaskPanic| panic.message().to_owned();
        assert_eq!(
            contain(|| panic!("plain")).map_err(message),
            Err::<(), _>("plain".into())
        );
        assert_eq!(
            contain(|| panic!("{}", 1)).map_err(message),
            Err::<(), _>("1".into())
        );
    }

    /// A future, and the waker that polls it.
    struct Polled(std::sync::Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

    impl Wake for Polled {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_waker_that_holds_the_future_goes_when_it_was_woken() {
        let notify = Arc::new(tokio::sync::Notify::new());
        let waits = Arc::clone(&notify);
        let future = woken_contained(async move { waits.notified().await });
        let polled = Arc::new(Polled(std::sync::Mutex::new(Some(Box::pin(future)))));
        let waker = Waker::from(Arc::clone(&polled));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..2 {
            let mut future = polled.0.lock().unwrap();
            assert!(future.as_mut().unwrap().as_mut().poll(&mut cx).is_pending());
        }
        let weak = Arc::downgrade(&polled);
        drop((waker, polled));
        assert!(weak.upgrade().is_some(), "it is to be woken");
        notify.notify_waiters();
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        assert!(contain(|| panic_any(PanicsWhenDropped)).is_err());
        assert!(contain_drop(PanicsWhenDropped).is_err());
    }
}
