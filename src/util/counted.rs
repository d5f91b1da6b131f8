//! [`counted`]: formats a number with its noun.

/// Returns "1 task", "2 tasks".
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
