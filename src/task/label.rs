//! [`Label`]: identifies a task, even after its work is dropped.

#[cfg(feature = "jobs")]
use std::{any::Any, sync::Arc};
use std::{borrow::Cow, panic::Location};

use tokio::time::Instant;

use super::{id::TaskId, kind::TaskKind};

#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) id: TaskId,
    pub(crate) name: Name,
    pub(crate) location: &'static Location<'static>,
    pub(crate) added: Instant,
    pub(crate) kind: TaskKind,
    /// The stored form of a job, which a shutdown needs again.
    #[cfg(feature = "jobs")]
    pub(crate) attachment: Option<Attachment>,
}

#[cfg(feature = "jobs")]
pub(crate) type Attachment = Arc<dyn Any + Send + Sync>;

/// A task's name. A type name is shortened only when it is read.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Given(Cow<'static, str>),
    /// The type name of the future or closure. An async fn's future has the function's name,
    /// followed by `::{{closure}}`.
    Type(&'static str),
}

impl Label {
    pub(crate) fn name(&self) -> Cow<'static, str> {
        self.name.to_cow()
    }
}

impl Name {
    pub(crate) fn to_cow(&self) -> Cow<'static, str> {
        match self {
            Self::Given(name) => name.clone(),
            Self::Type(name) => Cow::Borrowed(without_closures(name)),
        }
    }

    /// Returns `None` for a name made at run time, which could be anything, even user input.
    #[cfg(any(feature = "dashboard", feature = "metrics", feature = "tracing"))]
    pub(crate) fn of_the_program(&self) -> Option<&'static str> {
        match self {
            Self::Given(Cow::Borrowed(name)) => Some(name),
            Self::Given(Cow::Owned(_)) => None,
            Self::Type(name) => Some(without_closures(name)),
        }
    }
}

/// Shortens the type name of a future or closure.
pub(crate) fn without_closures(type_name: &'static str) -> &'static str {
    let mut name = type_name;
    while let Some(shorter) = name.strip_suffix("::{{closure}}") {
        name = shorter;
    }
    name
}
