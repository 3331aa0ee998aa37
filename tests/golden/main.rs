//! The event contract itself: do goldens, examples and the table of events say the same?
//!
//! `UPDATE=1 cargo test --test golden` writes the table anew.

mod golden;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use golden::{Event, Golden};

/// The chapters of the documented events, and the operation that each has an example of.
const CHAPTERS: [(&str, &str, &str); 57] = [
    ("users", "User create", "user.create"),
    ("users", "User view", "user.view"),
    ("users", "User view profile", "user.view_profile"),
    ("users", "User list", "user.list"),
    ("users", "User list by group", "user.list_by_group"),
    ("users", "User identify", "user.identify"),
    (
        "users",
        "User generate reset token",
        "user.generate_reset_token",
    ),
    ("users", "User issue token", "user.issue_token"),
    ("users", "User refresh token", "user.refresh_token"),
    ("users", "User reset secret", "user.update_secret"),
    ("users", "User update", "user.update"),
    ("users", "User update identity", "user.update_identity"),
    ("users", "User update tags", "user.update_tags"),
    ("users", "User remove", "user.remove"),
    ("users", "Group create", "group.create"),
    ("users", "Group update", "group.update"),
    ("users", "Group view", "group.view"),
    ("users", "Group list", "group.list"),
    ("users", "Group list by user", "group.list_by_user"),
    ("users", "Group remove", "group.remove"),
    ("users", "Policy authorize", "policies.authorize"),
    ("users", "Policy add", "policies.add"),
    ("users", "Policy update", "policies.update"),
    ("users", "Policy remove", "policies.delete"),
    ("users", "Policy list", "policies.list"),
    ("things", "Thing create", "thing.create"),
    ("things", "Thing update", "thing.update"),
    ("things", "Thing update secret", "thing.update_secret"),
    ("things", "Thing update tags", "thing.update_tags"),
    ("things", "Thing remove", "thing.remove"),
    ("things", "Thing view", "thing.view"),
    ("things", "Thing list", "thing.list"),
    ("things", "Thing list by channel", "thing.list_by_channel"),
    ("things", "Thing identify", "thing.identify"),
    ("things", "Channel create", "channel.create"),
    ("things", "Channel update", "channel.update"),
    ("things", "Channel remove", "channel.remove"),
    ("things", "Channel view", "channel.view"),
    ("things", "Channel list", "channel.list"),
    ("things", "Channel list by thing", "channel.list_by_thing"),
    ("things", "Policy authorize", "policies.authorize"),
    ("things", "Policy add", "policies.add"),
    ("things", "Policy update", "policies.update"),
    ("things", "Policy remove", "policies.delete"),
    ("things", "Policy list", "policies.list"),
    ("bootstrap", "Configuration create", "config.create"),
    ("bootstrap", "Configuration update", "config.update"),
    ("bootstrap", "Certificate update", "cert.update"),
    ("bootstrap", "Configuration list", "config.list"),
    ("bootstrap", "Configuration view", "config.view"),
    ("bootstrap", "Configuration remove", "config.remove"),
    (
        "bootstrap",
        "Configuration remove handler",
        "config.remove_handler",
    ),
    ("bootstrap", "Thing bootstrap", "thing.bootstrap"),
    ("bootstrap", "Thing change state", "thing.state_change"),
    (
        "bootstrap",
        "Thing update connections",
        "thing.update_connections",
    ),
    (
        "bootstrap",
        "Channel update handler",
        "channel.update_handler",
    ),
    (
        "bootstrap",
        "Channel remove handler",
        "config.remove_handler",
    ),
];

/// What is documented without an example.
const LISTED: [(&str, &str); 2] = [
    ("users", "user.reset_secret"),
    ("users", "user.send_password_reset"),
];

fn find<'a>(goldens: &'a [Golden], stream: &str, operation: &str) -> &'a Golden {
    let found = goldens
        .iter()
        .find(|it| it.stream == stream && it.operation == operation);
    found.unwrap_or_else(|| panic!("no golden of {operation} in {stream}"))
}

#[test]
fn every_example_is_what_its_golden_asks_for() {
    for golden in golden::all() {
        assert!(!golden.examples.is_empty(), "{golden:?}");
        assert!(!golden.when.is_empty(), "{golden:?}");
        for mut example in golden.examples.iter().cloned() {
            if !golden.lacks.is_empty() {
                example.insert(golden.lacks.clone(), "1555405294806000000".to_owned());
            }
            let problems = golden.problems(&example);
            assert!(problems.is_empty(), "{}: {problems:?}", golden.operation);
        }
    }
}

#[test]
fn every_documented_event_has_a_golden_with_its_example() {
    let goldens = golden::all();
    for (stream, chapter, operation) in CHAPTERS {
        let golden = find(&goldens, stream, operation);
        assert!(golden.documented, "{chapter} in {stream} has an example");
    }
    for event_type in ["connect", "disconnect"] {
        assert!(find(&goldens, "mqtt", event_type).documented);
    }
    for (stream, operation) in LISTED {
        find(&goldens, stream, operation);
    }
    let chapters: BTreeSet<_> = CHAPTERS.iter().map(|(s, _, o)| (*s, *o)).collect();
    for golden in goldens.iter().filter(|it| it.stream != "mqtt") {
        let known = chapters.contains(&(&*golden.stream, &*golden.operation));
        assert_eq!(known, golden.documented, "{}", golden.operation);
    }
}

#[test]
fn a_golden_finds_what_is_wrong_with_an_event() {
    let goldens = golden::all();
    let wrong = |stream: &str, operation: &str, change: &dyn Fn(&mut Event)| {
        let golden = find(&goldens, stream, operation);
        let mut event = golden.examples[0].clone();
        change(&mut event);
        golden.problems(&event)
    };
    let cases: [(&str, &str, &str, &str); 14] = [
        ("user.create", "id", "lamp", "id is not uuid"),
        ("user.create", "id", "", "id is missing"),
        ("user.create", "secret", "x", "secret is too much"),
        ("user.create", "name", "", ""),
        ("user.create", "metadata", "{ }", "metadata is not json"),
        (
            "user.create",
            "metadata",
            "{\"b\":1,\"a\":2}",
            "metadata is not json",
        ),
        (
            "user.create",
            "metadata",
            "{\"a\":\"<\"}",
            "metadata is not json",
        ),
        (
            "user.create",
            "created_at",
            "2023-08-29T11:06:11.9140Z",
            "created_at is not time",
        ),
        ("user.create", "created_at", "2023-08-29T11:06:11Z", ""),
        ("user.create", "occurred_at", "1693307171", "occurred_at"),
        (
            "user.update_tags",
            "tags",
            "patient-thunder",
            "tags is not [a,b]",
        ),
        ("user.list", "total", "-1", "total is not number"),
        (
            "policies.add",
            "actions",
            "[g_add, c_list]",
            "actions is not actions",
        ),
        ("group.remove", "operation", "group.create", "another"),
    ];
    for (operation, field, value, problem) in cases {
        let problems = wrong("users", operation, &|event| {
            event.remove(field);
            if !value.is_empty() {
                event.insert(field.to_owned(), value.to_owned());
            }
        });
        match problem {
            "" => assert!(problems.is_empty(), "{operation} {field}: {problems:?}"),
            problem => assert!(
                problems.len() == 1 && problems[0].contains(problem),
                "{operation} {field}: {problems:?}"
            ),
        }
    }
    for (operation, field, value) in [
        ("thing.update_connections", "channels", "a1"),
        ("config.create", "client_key", "sha256:abc"),
        (
            "config.create",
            "channels",
            "[8d77099e-4911-4140-8555-7d3be65a1694,8d77099e-4911-4140-8555-7d3be65a1694]",
        ),
    ] {
        let problems = wrong("bootstrap", operation, &|event| {
            event.insert("occurred_at".to_owned(), "1555405294806000000".to_owned());
            event.insert(field.to_owned(), value.to_owned());
        });
        assert_eq!(problems.len(), 1, "{operation} {field}: {problems:?}");
    }
}

/// Formats that a field may have, each in a sentence.
const FORMATS: [(&str, &str); 19] = [
    ("uuid", "a lower-case, hyphenated UUID"),
    ("text", "any text but none"),
    ("any", "any text, or none"),
    ("number", "decimal"),
    ("nanoseconds", "since the Unix epoch, decimal"),
    ("seconds", "since the Unix epoch, decimal"),
    (
        "time",
        "RFC 3339 in UTC, at most microseconds, no trailing zeros: 2023-08-29T12:17:50.57866Z",
    ),
    ("status", "enabled or disabled"),
    ("filter", "enabled, disabled or all"),
    ("state", "0 inactive, 1 active"),
    ("bool", "0 or 1"),
    (
        "action",
        "g_add, g_delete, g_update, g_list, c_delete, c_update, c_list, c_share, m_write or m_read",
    ),
    ("actions", "of these, as [a,b]"),
    ("entity", "thing, client or group"),
    (
        "json",
        "a compact JSON object with sorted keys; <, > and & as \\u003c, \\u003e and \\u0026",
    ),
    ("[a,b]", "texts in brackets, without spaces and unescaped"),
    ("[a, b]", "UUIDs in brackets, with spaces"),
    ("a, b", "UUIDs without brackets, with spaces"),
    (
        "key",
        "sha256: and 64 hexadecimal digits; a private key in PEM with events.private_keys",
    ),
];

const HEAD: &str = "\
# Events

Every operation, what it announces, and in which stream. `tests/golden/events` has a file for each, with an example;
this table is made from them (`UPDATE=1 cargo test --test golden`), and end-to-end tests hold the program to them.

All values are text. Events of users, things and bootstrap have an `operation`, those of mqtt an `event_type`; all
have `occurred_at`, nanoseconds since the Unix epoch, strictly increasing within a stream of one producer. A field
with a question mark is there when it has a value. The order of fields means nothing. No event holds a password, key or token.

Names and fields follow the documented examples first, then the documented lists, then what Mainflux (autumn 2023) writes.
";

#[test]
fn the_table_of_events_says_what_the_goldens_say() {
    let mut text = HEAD.to_owned();
    let goldens = golden::all();
    for stream in ["users", "things", "bootstrap", "mqtt"] {
        let _ = write!(
            text,
            "\n## mainflux.{stream}\n\n| operation | when | fields | where documents and Mainflux differ, and what is done |\n\
             |---|---|---|---|\n"
        );
        for golden in goldens.iter().filter(|it| it.stream == stream) {
            let fields = golden.fields.iter().map(|it| {
                let mark = if it.optional { "?" } else { "" };
                format!("`{}`{mark} {}", it.name, it.format)
            });
            let fields: Vec<String> = fields.collect();
            let (operation, when, differs) = (&golden.operation, &golden.when, &golden.differs);
            let fields = fields.join("; ");
            let _ = writeln!(text, "| `{operation}` | {when} | {fields} | {differs} |");
        }
    }
    text += "\n## Formats\n\n| format | value |\n|---|---|\n";
    for (format, value) in FORMATS {
        let _ = writeln!(text, "| {format} | {value} |");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain/EVENTS.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).expect("written");
    }
    let table = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        table == text,
        "{} is not what the goldens say: UPDATE=1",
        path.display()
    );
}

#[test]
fn every_format_is_explained_and_used() {
    let goldens = golden::all();
    let used: BTreeSet<&str> = goldens
        .iter()
        .flat_map(|it| it.fields.iter().map(|field| &*field.format))
        .chain(["nanoseconds"])
        .collect();
    let explained: BTreeSet<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
    assert_eq!(used, explained);
}
