//! What metadata contains: `{"a":{"b":1}}` is in `{"a":{"b":1,"c":2},"d":[]}`, as PostgreSQL's `@>` has it.

use serde_json::Value;

use crate::entity::Metadata;
use crate::refusal::Refusal;

/// Values of metadata, at all depths: each can be searched for.
pub const MAX_VALUES: usize = 1_000;
/// Values of what is searched for.
pub const MAX_WANTED: usize = 32;

/// Whether all of `wanted` is in `metadata`: of objects the named entries, of lists what is listed, in any order
/// and as often as it likes.
#[must_use]
pub fn contains(metadata: &Metadata, wanted: &Metadata) -> bool {
    wanted.iter().all(|(name, wanted)| {
        let value = metadata.get(name);
        value.is_some_and(|value| has(value, wanted))
    })
}

fn has(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => contains(value, wanted),
        (Value::Array(values), Value::Array(wanted)) => wanted
            .iter()
            .all(|wanted| values.iter().any(|value| has(value, wanted))),
        _ => scalar(value).is_some_and(|value| scalar(wanted) == Some(value)),
    }
}

/// The text of a value that holds no others; equal ones have the same: 1.0 is 1.
#[must_use]
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Object(_) | Value::Array(_) => None,
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            // Beyond this, doubles do not tell whole numbers apart.
            let whole = float.filter(|it| it.fract() == 0.0 && it.abs() < 9e15);
            Some(match whole {
                Some(whole) => (whole as i64).to_string(),
                None => number.to_string(),
            })
        }
        other => Some(other.to_string()),
    }
}

/// # Errors
/// [`Refusal::Invalid`] for more than can be searched for.
pub fn check_wanted(wanted: &Metadata) -> Result<(), Refusal> {
    match count(wanted) > MAX_WANTED {
        true => Err(Refusal::invalid(
            "metadata",
            "at most 32 values to search for",
        )),
        false => Ok(()),
    }
}

pub(crate) fn count(metadata: &Metadata) -> usize {
    metadata.values().map(count_of).sum()
}

fn count_of(value: &Value) -> usize {
    1 + match value {
        Value::Object(entries) => count(entries),
        Value::Array(values) => values.iter().map(count_of).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Metadata {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn whole_numbers_are_equal_however_they_are_written() {
        assert!(contains(&object(r#"{"a":1.0}"#), &object(r#"{"a":1}"#)));
        assert!(contains(&object(r#"{"a":-0.0}"#), &object(r#"{"a":0}"#)));
        assert!(contains(&object(r#"{"a":-10.0}"#), &object(r#"{"a":-10}"#)));
        assert!(!contains(&object(r#"{"a":1.5}"#), &object(r#"{"a":1}"#)));
        assert!(!contains(&object(r#"{"a":"1"}"#), &object(r#"{"a":1}"#)));
    }

    #[test]
    fn what_is_searched_for_has_a_bound() {
        let wanted = |values: usize| object(&format!("{{\"a\":[{}0]}}", "0,".repeat(values - 2)));
        assert!(check_wanted(&wanted(MAX_WANTED)).is_ok());
        assert!(check_wanted(&wanted(MAX_WANTED + 1)).is_err());
    }
}
