//! A recipe: what is refused is refused with a place in the text.
#![no_main]

use ashlar_builder::recipe::{Recipe, RecipeError};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Err(error) = Recipe::parse("image.toml", text) else { return };
    if let RecipeError::Text { line, column, span, .. } = &error {
        let end = span.offset().checked_add(span.len());
        assert!(end.is_some_and(|end| end <= text.len()), "{span:?} of {}: {error}", text.len());
        let lines = text.matches('\n').count() + 1;
        assert!((1..=lines).contains(line) && *column > 0, "line {line} of {lines}, column {column}");
    }
    // What `ashlar` prints: the message with an excerpt.
    let shown = format!("{:?}", miette::Report::new(error));
    assert!(!shown.is_empty());
});
