//! Shortens texts.

/// Returns at most the first `bytes` bytes of `text`, and splits no character. The result uses no
/// more memory than that.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let ends = (0..=bytes).rev();
        let end = ends.into_iter().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn no_character_is_cut_in_two() {
        assert_eq!(cut("short".into(), 5), "short");
        assert_eq!(cut("aäö".into(), 4), "aä");
        assert_eq!(cut("aäö".into(), 2), "a");
        assert!(cut("x".repeat(1_000), 10).capacity() < 100);
    }
}
