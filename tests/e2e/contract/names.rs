//! Values that stand for others in tables.

use std::collections::BTreeMap;

use serde_json::Value;

/// What was met so far.
#[derive(Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The text with values for names.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first: one may begin like another.
        for (name, value) in self.0.iter().rev() {
            text = text.replace(name, value);
        }
        text
    }

    /// Whether a text is what is expected; a name that is new is it from now on.
    pub(super) fn met(&mut self, expected: &str, found: &str) -> bool {
        let is_name = expected.starts_with('$') && !expected.contains(' ');
        match expected {
            "$any" => true,
            "$text" => !found.is_empty(),
            "$time" => {
                found.len() >= 20
                    && found.starts_with("20")
                    && found.as_bytes()[10] == b'T'
                    && found.ends_with('Z')
            }
            _ if is_name && !self.0.contains_key(expected) => {
                self.set(expected, found);
                true
            }
            _ => self.fill(expected) == found,
        }
    }

    /// What is wrong with a value, and where.
    pub(super) fn compare(
        &mut self,
        at: &str,
        expected: &Value,
        found: &Value,
        wrong: &mut Vec<String>,
    ) {
        match (expected, found) {
            (Value::String(text), _) if text == "$any" => {}
            (Value::String(text), Value::Number(_)) if text == "$number" => {}
            (Value::String(text), Value::String(other)) => {
                if !self.met(text, other) {
                    wrong.push(format!("{at} is {other:?}, not {text:?}"));
                }
            }
            (Value::Object(fields), Value::Object(others)) => {
                for (name, value) in fields {
                    let (name, optional) = match name.strip_suffix('?') {
                        Some(name) => (name, true),
                        None => (name.as_str(), false),
                    };
                    match others.get(name) {
                        Some(other) => self.compare(&format!("{at}.{name}"), value, other, wrong),
                        None if optional => {}
                        None => wrong.push(format!("{at}.{name} is missing")),
                    }
                }
                let known = |name: &str| {
                    fields.contains_key(name) || fields.contains_key(&format!("{name}?"))
                };
                for name in others.keys().filter(|name| !known(name)) {
                    wrong.push(format!("{at}.{name} is too much"));
                }
            }
            (Value::Array(values), Value::Array(others)) => {
                if values.len() != others.len() {
                    let (due, there) = (values.len(), others.len());
                    wrong.push(format!("{at} has {there} elements, not {due}"));
                }
                for (n, (value, other)) in values.iter().zip(others).enumerate() {
                    self.compare(&format!("{at}[{n}]"), value, other, wrong);
                }
            }
            (expected, found) if expected == found => {}
            (expected, found) => wrong.push(format!("{at} is {found}, not {expected}")),
        }
    }
}

#[test]
fn what_is_wrong_with_an_answer_is_found() {
    let expected = serde_json::json!({ "id": "$id", "name": "x", "at": "$time", "tags?": ["a"] });
    let compare = |found: Value| {
        let mut wrong = Vec::new();
        let mut names = Names::default();
        names.set("$id", "1");
        names.compare("it", &expected, &found, &mut wrong);
        wrong.join("; ")
    };
    let at = "2023-08-29T12:17:50.57866Z";
    for (found, wrong) in [
        (serde_json::json!({ "id": "1", "name": "x", "at": at }), ""),
        (
            serde_json::json!({ "id": "2", "name": "y", "at": at, "tags": ["a", "b"] }),
            "it.id is \"2\", not \"$id\"; it.name is \"y\", not \"x\"; it.tags has 2 elements, not 1",
        ),
        (
            serde_json::json!({ "id": "1", "at": "now", "secret": 1 }),
            "it.at is \"now\", not \"$time\"; it.name is missing; it.secret is too much",
        ),
    ] {
        assert_eq!(compare(found), wrong);
    }
}
