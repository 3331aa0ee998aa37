//! Operations of which nothing is told.

use std::str::FromStr;

use serde::Deserialize;

use super::Event;
use crate::setting::one_or_many;

/// Patterns such as `*.view`, where `*` stands for any text, none included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclude(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of operations: write things.list, *.view or thing.*, with small letters, dots, _ and *"
)]
pub struct BadPattern(String);

/// Longer than the name of any operation.
const MAX_PATTERN: usize = 64;

impl Exclude {
    #[must_use]
    pub fn has(&self, event: &Event) -> bool {
        let operation = event.fields.first();
        let operation = operation.filter(|(name, _)| name == "operation");
        operation.is_some_and(|(_, operation)| {
            let mut patterns = self.0.iter();
            patterns.any(|pattern| fits(pattern.0.as_bytes(), operation.as_bytes()))
        })
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let allowed = |byte| matches!(byte, b'a'..=b'z' | b'_' | b'.' | b'*');
        let is_one = (1..=MAX_PATTERN).contains(&text.len())
            && text.bytes().all(allowed)
            && (text.contains('.') || text.contains('*'));
        match is_one {
            true => Ok(Self(text.to_owned())),
            false => Err(BadPattern(text.to_owned())),
        }
    }
}

/// One pattern or a list; in text, with commas.
impl<'de> Deserialize<'de> for Exclude {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_many(deserializer).map(Self)
    }
}

/// Whether `text` is what `pattern` says. Where a `*` took too little, it takes one more, and all behind is tried
/// again: only the last `*` ever has to.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            last_star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, taken)) = last_star {
            last_star = Some((star, taken + 1));
            (p, t) = (star + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stream;

    fn exclude(json: &str) -> Result<Exclude, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, operation, excluded) in [
            ("*.view", "thing.view", true),
            ("*.view", "thing.view_by_key", false),
            ("*view*", "thing.view_by_key", true),
            ("thing.*", "thing.list", true),
            ("thing.*", "things.list", false),
            ("thing.list", "thing.list", true),
            ("thing.list", "thing.list_by_channel", false),
            ("*.list*", "user.list_by_group", true),
            ("*", "thing.create", true),
            ("t*g.*e*", "thing.remove", true),
            ("t*g.*x*", "thing.remove", false),
            ("**.view**", "thing.view", true),
        ] {
            let exclude = exclude(&format!("{pattern:?}")).expect("a pattern");
            let event = Event::operation(Stream::Things, operation, []);
            assert_eq!(exclude.has(&event), excluded, "{pattern} {operation}");
        }
    }

    #[test]
    fn one_pattern_or_many_are_taken_and_wrong_ones_named() {
        let two = exclude(r#"["*.view", "*.list"]"#).expect("patterns");
        assert_eq!(exclude(r#""*.view, *.list""#).expect("patterns"), two);
        assert_eq!(exclude(r#""""#).expect("none"), Exclude::default());
        let long = format!("{:?}", "a.".repeat(40));
        for wrong in [
            r#"["*.view", "Thing.*"]"#,
            r#""*.view,""#,
            r#""view""#,
            r#"["a b.c"]"#,
            &long,
        ] {
            let error = exclude(wrong).expect_err(wrong).to_string();
            assert!(error.contains("no pattern of operations"), "{error}");
        }
        assert!(
            exclude(r#"["Thing.*"]"#)
                .expect_err("wrong")
                .to_string()
                .contains("Thing.*")
        );
    }
}
