//! [`Node`]: a task in its one allocation.
//!
//! Nodes link to one another, so a list of tasks allocates nothing.

use std::{borrow::Cow, panic::Location, pin::Pin, time::Duration};

use pin_project_lite::pin_project;
use sync_wrapper::SyncWrapper;
use tokio::time::Instant;

#[cfg(feature = "jobs")]
use super::label::Attachment;
use super::{
    added_in::AddedIn,
    id::TaskId,
    kind::TaskKind,
    label::{Label, Name},
    work::Work,
};
use crate::outcome::ResponseOutcome;

pub(crate) type Link = Pin<Box<Node<dyn Work>>>;

pin_project! {
    pub(crate) struct Node<W: ?Sized> {
        // The task behind this one, while both wait in a list.
        pub(crate) next: Option<Link>,
        pub(crate) header: Header,
        #[pin]
        pub(crate) work: W,
    }
}

pub(crate) struct Header {
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    /// `None` until the task is added.
    pub(crate) added: Option<Instant>,
    /// What only few tasks have. It is boxed, so that all other tasks stay small.
    pub(crate) extras: Option<Box<Extras>>,
}

#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) run_if: Option<SyncWrapper<RunIf>>,
    pub(crate) added_in: Option<AddedIn>,
    #[cfg(feature = "jobs")]
    pub(crate) attachment: Option<Attachment>,
}

/// A task's own condition.
pub(crate) type RunIf = Box<dyn FnOnce(&ResponseOutcome) -> bool + Send>;

/// Decides where a task runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) kind: TaskKind,
    /// The task's own timeout.
    pub(crate) timeout: Option<Duration>,
}

impl Node<dyn Work> {
    #[inline]
    pub(crate) fn needs(&self) -> Needs {
        Needs {
            kind: self.kind(),
            timeout: self.timeout(),
        }
    }

    #[inline]
    pub(crate) fn kind(&self) -> TaskKind {
        if self.work.is_blocking() {
            TaskKind::Blocking
        } else {
            TaskKind::Async
        }
    }

    #[inline]
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.header.extras.as_ref()?.timeout
    }

    #[inline]
    pub(crate) fn name(&self) -> Name {
        match &self.header.extras {
            None => Name::Type(self.work.type_name()),
            Some(extras) => match &extras.name {
                None => Name::Type(self.work.type_name()),
                Some(name) => Name::Given(name.clone()),
            },
        }
    }

    #[inline(always)]
    pub(crate) fn label(&self) -> Label {
        Label {
            id: self.header.id,
            name: self.name(),
            location: self.header.location,
            added: self.header.added.unwrap_or_else(Instant::now),
            kind: self.kind(),
            #[cfg(feature = "jobs")]
            attachment: (self.header.extras.as_ref()).and_then(|extras| extras.attachment.clone()),
        }
    }
}
