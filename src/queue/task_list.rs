//! [`TaskList`]: tasks in the order added. They are linked through their own nodes, so the list
//! allocates nothing.

use std::borrow::Cow;

use crate::{
    task::{
        Task,
        id::TaskId,
        label::Label,
        node::{Link, Needs},
    },
    util::contain::contain_drop,
};

/// A first-in, first-out list.
///
/// A singly linked list in safe code has one cheap end, so this type keeps two lists. Tasks enter
/// at the head of `newest` and leave from the head of `oldest`. When `oldest` is empty, `newest`
/// is reversed into it. So each task moves once.
#[derive(Default)]
pub(crate) struct TaskList {
    /// The next task to leave, linked to those behind it.
    oldest: Option<Link>,
    /// The task added last, linked to those before it. All of these come after those in `oldest`.
    newest: Option<Link>,
    /// What the first-added task in `newest` needs, so that no reader walks the list.
    newest_from: Option<Needs>,
    len: usize,
}

impl TaskList {
    #[inline]
    pub(crate) fn push(&mut self, task: Task) {
        if self.newest.is_none() {
            self.newest_from = Some(task.needs());
        }
        push_head(&mut self.newest, task.into_link());
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Task> {
        if self.oldest.is_none() {
            self.reverse_newest();
        }
        let link = pop_head(&mut self.oldest)?;
        self.len -= 1;
        Some(Task::from_link(link))
    }

    /// Returns what the next task needs, in constant time.
    pub(crate) fn first_needs(&self) -> Option<Needs> {
        match &self.oldest {
            Some(oldest) => Some(oldest.needs()),
            None => self.newest.as_ref().and(self.newest_from),
        }
    }

    /// Takes a task out of the middle. This walks the list, and walks it again if the task is
    /// there.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        self.remove_first(|link| link.header.id == id)
    }

    /// Like [`remove`](Self::remove), for the first task of this name.
    pub(crate) fn remove_named(&mut self, name: &str) -> Option<Task> {
        self.remove_first(|link| link.name().to_cow() == name)
    }

    fn remove_first(&mut self, is_it: impl Fn(&Link) -> bool) -> Option<Task> {
        if !self.contains(&is_it) {
            return None;
        }
        let mut removed = None;
        for _ in 0..self.len {
            match self.pop().map(Task::into_link) {
                Some(link) if removed.is_none() && is_it(&link) => removed = Some(link),
                Some(link) => self.push(Task::from_link(link)),
                None => {}
            }
        }
        removed.map(Task::from_link)
    }

    fn contains(&self, is_it: impl Fn(&Link) -> bool) -> bool {
        let mut all = chain(self.oldest.as_ref()).chain(chain(self.newest.as_ref()));
        all.any(is_it)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the tasks' names in the order added.
    pub(crate) fn names(&self) -> Vec<Cow<'static, str>> {
        let links = self.in_order();
        links.iter().map(|link| link.name().to_cow()).collect()
    }

    /// Returns the labels of the first tasks, in the order added.
    pub(crate) fn first_labels(&self, limit: usize) -> Vec<Label> {
        let links = self.in_order();
        links.iter().take(limit).map(|link| link.label()).collect()
    }

    fn in_order(&self) -> Vec<&Link> {
        let mut links: Vec<_> = chain(self.oldest.as_ref()).collect();
        let newest_from = links.len();
        links.extend(chain(self.newest.as_ref()));
        links[newest_from..].reverse();
        links
    }

    fn reverse_newest(&mut self) {
        while let Some(link) = pop_head(&mut self.newest) {
            push_head(&mut self.oldest, link);
        }
    }
}

/// Drops one node at a time, as a recursive drop would be as deep as the list. Each drop is
/// contained, as the thread may already be unwinding.
impl Drop for TaskList {
    fn drop(&mut self) {
        while let Some(task) = self.pop() {
            let _ = contain_drop(task);
        }
    }
}

fn push_head(head: &mut Option<Link>, mut link: Link) {
    *link.as_mut().project().next = head.take();
    *head = Some(link);
}

fn pop_head(head: &mut Option<Link>) -> Option<Link> {
    let mut link = head.take()?;
    *head = link.as_mut().project().next.take();
    Some(link)
}

fn chain(head: Option<&Link>) -> impl Iterator<Item = &Link> {
    std::iter::successors(head, |link| link.next.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: usize) -> Task {
        Task::new(async {}).named(name.to_string())
    }

    #[test]
    fn tasks_come_out_in_the_order_they_went_in_however_both_are_interleaved() {
        let mut list = TaskList::default();
        let (mut pushed, mut popped) = (0, 0);
        for round in 0..50 {
            for _ in 0..round % 7 {
                list.push(named(pushed));
                pushed += 1;
            }
            for _ in 0..round % 5 {
                if let Some(task) = list.pop() {
                    assert_eq!(task.name(), popped.to_string());
                    popped += 1;
                }
            }
            let waiting: Vec<_> = (popped..pushed).map(|name| name.to_string()).collect();
            assert_eq!(list.names(), waiting);
            assert_eq!(list.len(), waiting.len());
        }
        assert!(popped > 40);
    }

    #[test]
    fn the_first_of_a_name_leaves_and_the_others_keep_their_order() {
        let mut list = TaskList::default();
        for name in [1, 2, 3] {
            list.push(named(name));
        }
        list.pop(); // the list now has both its ends
        for name in [2, 1] {
            list.push(named(name));
        }
        assert_eq!(
            list.remove_named("2").map(|task| task.name()),
            Some("2".into())
        );
        assert_eq!(list.names(), ["3", "2", "1"]);
        assert!(list.remove_named("4").is_none());
        assert_eq!((list.names().len(), list.len()), (3, 3));
    }

    #[test]
    fn dropping_a_long_list_does_not_overflow_the_stack() {
        let mut list = TaskList::default();
        for _ in 0..200_000 {
            list.push(Task::new(async {}));
        }
        drop(list);
    }

    #[test]
    fn a_waiting_task_is_one_small_allocation() {
        let task = Task::new(std::future::ready(()));
        let link = task.into_link();
        assert!(size_of_val(&*link) <= 64, "{}", size_of_val(&*link));
    }
}
