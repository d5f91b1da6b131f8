//! [`Waiting`]: what waits for somebody who is on their way. And [`pop`], for whatever waits.

use std::collections::VecDeque;

/// Room for so many is kept when nothing waits.
pub(crate) const KEPT_ROOM: usize = 64;

/// First in, first out.
///
/// While anything waits, somebody is expected, who takes it: whoever puts something in, or takes something and leaves more behind,
/// sends for somebody where nobody is expected.
pub(crate) struct Waiting<T> {
    list: VecDeque<T>,
    expected: bool,
}

impl<T> Waiting<T> {
    pub(crate) fn push(&mut self, one: T) {
        self.list.push_back(one);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        pop(&mut self.list)
    }

    /// Whether the caller is to send for somebody, who is expected from now on.
    #[must_use]
    pub(crate) fn sends(&mut self) -> bool {
        let sends = !self.expected && !self.list.is_empty();
        self.expected |= sends;
        sends
    }

    /// Who was expected is here.
    pub(crate) fn arrived(&mut self) {
        self.expected = false;
    }

    /// Who was expected will never come: all that waits is the caller's.
    #[must_use]
    pub(crate) fn missed(&mut self) -> VecDeque<T> {
        self.expected = false;
        std::mem::take(&mut self.list)
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            list: VecDeque::new(),
            expected: false,
        }
    }
}

/// The first of those that wait. When there are no more, the room for a rush is given back.
#[inline]
pub(crate) fn pop<T>(list: &mut VecDeque<T>) -> Option<T> {
    let one = list.pop_front();
    if list.is_empty() && list.capacity() > KEPT_ROOM {
        *list = VecDeque::new();
    }
    one
}

#[cfg(all(test, not(background_tasks_loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_is_sent_for_at_a_time_and_only_where_something_waits() {
        let mut waiting = Waiting::default();
        assert!(!waiting.sends());
        waiting.push(1);
        waiting.push(2);
        assert_eq!([waiting.sends(), waiting.sends()], [true, false]);
        waiting.arrived();
        assert_eq!((waiting.pop(), waiting.sends()), (Some(1), true));
        waiting.arrived();
        assert_eq!((waiting.pop(), waiting.sends()), (Some(2), false));
    }

    #[test]
    fn room_for_a_rush_is_given_back() {
        let mut waiting = Waiting::default();
        (0..10_000).for_each(|one| waiting.push(one));
        while waiting.pop().is_some() {}
        assert!(waiting.list.capacity() <= KEPT_ROOM);
    }
}
