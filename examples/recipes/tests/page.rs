//! The page `docs/context.md` shows these recipes, some of which its own doc tests cannot compile.

const PAGE: &str = include_str!("../../../docs/context.md");

/// The text of a function, from its name to its closing brace.
fn function<'a>(source: &'a str, name: &str) -> &'a str {
    let begin = source.find(&format!("pub fn {name}(")).unwrap();
    let end = source[begin..].find("\n}\n").unwrap();
    &source[begin..begin + end]
}

#[test]
fn the_page_shows_what_is_tested_here() {
    for (source, name) in [
        (include_str!("../src/tenant.rs"), "builder"),
        (include_str!("../src/sentry_hub.rs"), "builder"),
        (include_str!("../src/open_telemetry.rs"), "builder"),
    ] {
        let function = function(source, name);
        assert!(PAGE.contains(function), "not in the page:\n{function}");
    }
}
