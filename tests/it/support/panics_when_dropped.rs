//! What a user's destructor may do. The conformance suite has this file too.

#[derive(Debug)]
pub(crate) struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("on purpose: a destructor");
    }
}
