//! Panics of user code end here. Keeps the promises "isolation" and "no panic of ours".

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Calls user code; a panic becomes its message.
///
/// What `f` touched is not looked at again after a panic: the task is dropped, and that is contained too.
#[inline]
pub(crate) fn contain<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(message)
}

/// Drops a value whose destructor is user code.
pub(crate) fn contain_drop<T>(value: T) -> Result<(), String> {
    contain(|| drop(value))
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let message = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    };
    // A payload is user code as well: one that panics in its own destructor is left to leak from then on.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        forget(second);
    }
    message
}

#[expect(clippy::mem_forget, reason = "dropping it may panic again, and again")]
fn forget(payload: Box<dyn Any + Send>) {
    mem::forget(payload);
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic_any(PanicsWhenDropped);
        }
    }

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contain(|| 1), Ok(1));
        assert_eq!(contain(|| panic!("plain")), Err::<(), _>("plain".into()));
        assert_eq!(contain(|| panic!("{}", 1)), Err::<(), _>("1".into()));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        assert!(contain(|| panic_any(PanicsWhenDropped)).is_err());
        assert!(contain_drop(PanicsWhenDropped).is_err());
    }
}
