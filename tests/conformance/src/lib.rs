//! The suite is in `tests/`.
