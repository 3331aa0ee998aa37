//! What an event must look like: one file in `events/` for each operation.
//!
//! A file says `when` the event is written, how documents and Mainflux `differ` and what is done here, and whether
//! its `example` is the documented one or ours. Then come the fields, those with a question mark only when they have a
//! value, each with its format; `operation` (in the mqtt stream `event_type`) and `occurred_at` go without saying. Then come
//! examples, as redis-cli shows them. Certificates in them are cut short.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The fields of an event.
pub(crate) type Event = BTreeMap<String, String>;

/// What an operation announces.
#[derive(Debug, Default)]
pub(crate) struct Golden {
    pub(crate) stream: String,
    pub(crate) operation: String,
    pub(crate) when: String,
    /// How documents and Mainflux differ, and what is done here.
    pub(crate) differs: String,
    /// The example is the documented one.
    pub(crate) documented: bool,
    /// What the example lacks, since it is of an earlier time.
    pub(crate) lacks: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) examples: Vec<Event>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) optional: bool,
    pub(crate) format: String,
}

/// All there are, in the order of streams and operations.
pub(crate) fn all() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events");
    let mut goldens = Vec::new();
    for stream in ["users", "things", "bootstrap", "mqtt"] {
        let files = fs::read_dir(folder.join(stream)).expect("a folder");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        for path in paths {
            let operation = path.file_stem().expect("a name").to_str().expect("text");
            let text = fs::read_to_string(&path).expect("text");
            goldens.push(parse(stream, operation, &text));
        }
    }
    goldens
}

fn parse(stream: &str, operation: &str, text: &str) -> Golden {
    let mut golden = Golden {
        stream: stream.to_owned(),
        operation: operation.to_owned(),
        ..Golden::default()
    };
    let mut parts = text.split("\n\n");
    for line in parts.next().expect("a head").lines() {
        let (name, value) = line.split_once(' ').expect("a value");
        let value = value.trim().to_owned();
        match name {
            "when" => golden.when = value,
            "differs" => golden.differs = value,
            "lacks" => golden.lacks = value,
            "example" => golden.documented = value == "documented",
            other => panic!("{stream}/{operation}: {other}?"),
        }
    }
    for part in parts {
        if part.starts_with("1) ") {
            golden.examples.push(example(part));
            continue;
        }
        golden.fields.extend(part.lines().map(|line| {
            let (name, format) = line.split_once(' ').expect("a format");
            Field {
                name: name.trim_end_matches('?').to_owned(),
                optional: name.ends_with('?'),
                format: format.trim().to_owned(),
            }
        }));
    }
    golden
}

/// An entry as redis-cli shows it: its id, then names and values in turn.
fn example(text: &str) -> Event {
    let values = text.lines().map(|line| {
        let begin = line.find('"').expect("a value");
        let value = line[begin + 1..].strip_suffix('"').expect("a value");
        value.replace("\\\"", "\"").replace("\\\\", "\\")
    });
    let values: Vec<String> = values.skip(1).collect();
    let (pairs, rest) = values.as_chunks::<2>();
    assert!(rest.is_empty(), "a name without a value: {text}");
    pairs.iter().cloned().map(|[n, v]| (n, v)).collect()
}

impl Golden {
    /// The field that names the operation.
    pub(crate) fn discriminator(&self) -> &'static str {
        match self.stream.as_str() {
            "mqtt" => "event_type",
            _ => "operation",
        }
    }

    /// What is wrong with an event of this operation.
    pub(crate) fn problems(&self, event: &Event) -> Vec<String> {
        let mut problems = Vec::new();
        let mut rest = event.clone();
        if rest.remove(self.discriminator()).as_ref() != Some(&self.operation) {
            problems.push(format!("{} is another", self.discriminator()));
        }
        match rest.remove("occurred_at") {
            Some(at) if is(&at, "nanoseconds") => {}
            at => problems.push(format!("occurred_at: {at:?}")),
        }
        for field in &self.fields {
            match rest.remove(&field.name) {
                Some(value) if is(&value, &field.format) => {}
                Some(value) => {
                    problems.push(format!("{} is not {}: {value:?}", field.name, field.format))
                }
                None if field.optional => {}
                None => problems.push(format!("{} is missing", field.name)),
            }
        }
        problems.extend(rest.keys().map(|name| format!("{name} is too much")));
        problems
    }
}

const ACTIONS: [&str; 10] = [
    "g_add", "g_delete", "g_update", "g_list", "c_delete", "c_update", "c_list", "c_share",
    "m_write", "m_read",
];

/// Whether a value has this format.
fn is(value: &str, format: &str) -> bool {
    let digits = |value: &str| !value.is_empty() && value.bytes().all(|it| it.is_ascii_digit());
    let uuids = |list: &str| list.split(", ").all(|it| is(it, "uuid"));
    let inner = || value.strip_prefix('[')?.strip_suffix(']');
    match format {
        "uuid" => {
            let sizes = value.split('-').map(str::len);
            let hex = |it: u8| matches!(it, b'-' | b'0'..=b'9' | b'a'..=b'f');
            sizes.eq([8, 4, 4, 4, 12]) && value.bytes().all(hex)
        }
        "text" => !value.is_empty(),
        "any" => true,
        "number" => digits(value) && (value == "0" || !value.starts_with('0')),
        "nanoseconds" => digits(value) && value.len() == 19,
        "seconds" => digits(value) && value.len() == 10,
        "time" => is_time(value),
        "status" => matches!(value, "enabled" | "disabled"),
        "filter" => matches!(value, "enabled" | "disabled" | "all"),
        "state" | "bool" => matches!(value, "0" | "1"),
        "action" => ACTIONS.contains(&value),
        "actions" => inner().is_some_and(|it| it.split(',').all(|it| is(it, "action"))),
        "entity" => matches!(value, "thing" | "client" | "group"),
        "json" => is_json(value),
        "[a,b]" => inner().is_some_and(|it| !it.is_empty()),
        "[a, b]" => inner().is_some_and(uuids),
        "a, b" => uuids(value),
        "key" => match value.strip_prefix("sha256:") {
            Some(hash) => hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_hexdigit()),
            None => value.starts_with("-----BEGIN "),
        },
        other => panic!("no such format: {other}"),
    }
}

fn is_time(value: &str) -> bool {
    let Some((seconds, fraction)) = value.strip_suffix('Z').map(|it| match it.split_once('.') {
        Some((seconds, fraction)) => (seconds, Some(fraction)),
        None => (it, None),
    }) else {
        return false;
    };
    let shape: String = seconds
        .chars()
        .map(|it| if it.is_ascii_digit() { '0' } else { it })
        .collect();
    let sound = |it: &str| {
        (1..=6).contains(&it.len())
            && it.bytes().all(|it| it.is_ascii_digit())
            && !it.ends_with('0')
    };
    shape == "0000-00-00T00:00:00" && fraction.is_none_or(sound)
}

fn is_json(value: &str) -> bool {
    let Ok(Value::Object(object)) = serde_json::from_str(value) else {
        return false;
    };
    let text = Value::Object(object).to_string();
    let text = text.replace('<', "\\u003c").replace('>', "\\u003e");
    text.replace('&', "\\u0026") == value
}
