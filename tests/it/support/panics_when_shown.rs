//! What the text of a user's error may do. The binary `observe` has this file too.

use std::{error::Error, fmt};

#[derive(Debug)]
pub(crate) struct PanicsWhenShown;

impl fmt::Display for PanicsWhenShown {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("on purpose: an error's text");
    }
}

impl Error for PanicsWhenShown {}
