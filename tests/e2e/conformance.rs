//! What the standards ask of a server, clause by clause: `tests/conformance` has the tables and the conversations.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::script::{self, Stage};
use crate::table;
use crate::world::World;

const CONNECT: &str = include_str!("../conformance/connect.txt");
const PUBLISH: &str = include_str!("../conformance/publish.txt");
const SUBSCRIBE: &str = include_str!("../conformance/subscribe.txt");
const SHARING: &str = include_str!("../conformance/sharing.txt");

/// Plays on both kinds of listeners: as a thing on its channel, and as anybody.
fn play(text: &'static str) {
    let world = World::with(&[
        ("ROLLCALL_MQTT__LISTENERS__OPEN__LISTEN", "127.0.0.1:0"),
        ("ROLLCALL_MQTT__LISTENERS__OPEN__ACCESS", "open"),
    ]);
    let open = world.listener("open").parse().expect("an address");
    let stages = [
        Stage::of(&world),
        Stage {
            address: open,
            member: None,
        },
    ];
    script::play(text, &stages);
}

#[test]
fn connecting() {
    play(CONNECT);
}

#[test]
fn publishing() {
    play(PUBLISH);
}

#[test]
fn subscribing() {
    play(SUBSCRIBE);
}

#[test]
fn sharing_naming_and_aliasing() {
    play(SHARING);
}

/// Sections with the numbers of their first and last statement.
type Sections = [(&'static str, u32, u32)];

const MQTT5: &Sections = &[
    ("1.5.4", 1, 3),
    ("1.5.5", 1, 1),
    ("1.5.7", 1, 1),
    ("2.1.3", 1, 1),
    ("2.2.1", 2, 6),
    ("2.2.2", 1, 1),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 30),
    ("3.1.3", 1, 12),
    ("3.1.4", 1, 6),
    ("3.2.0", 1, 2),
    ("3.2.2", 1, 22),
    ("3.3.1", 1, 13),
    ("3.3.2", 1, 20),
    ("3.3.4", 1, 10),
    ("3.4.2", 1, 3),
    ("3.5.2", 1, 3),
    ("3.6.1", 1, 1),
    ("3.6.2", 1, 3),
    ("3.7.2", 1, 3),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 5),
    ("3.8.4", 1, 8),
    ("3.9.2", 1, 2),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.11.2", 1, 2),
    ("3.11.3", 1, 2),
    ("3.12.4", 1, 1),
    ("3.14.0", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.2", 1, 4),
    ("3.14.4", 1, 3),
    ("3.15.1", 1, 1),
    ("3.15.2", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 5),
    ("4.3.3", 1, 13),
    ("4.4.0", 1, 2),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.0", 1, 1),
    ("4.7.1", 1, 2),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.2", 1, 6),
    ("4.9.0", 1, 3),
    ("4.12.0", 1, 7),
    ("4.12.1", 1, 2),
    ("4.13.1", 1, 1),
    ("4.13.2", 1, 1),
    ("6.0.0", 1, 4),
];

const MQTT311: &Sections = &[
    ("1.5.3", 1, 3),
    ("2.2.2", 1, 2),
    ("2.3.1", 1, 7),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 24),
    ("3.1.3", 1, 11),
    ("3.1.4", 1, 5),
    ("3.2.0", 1, 1),
    ("3.2.2", 1, 6),
    ("3.3.1", 1, 12),
    ("3.3.2", 1, 3),
    ("3.3.4", 1, 1),
    ("3.3.5", 1, 2),
    ("3.6.1", 1, 1),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 4),
    ("3.8.4", 1, 6),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.12.4", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.4", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2.0", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 2),
    ("4.3.3", 1, 2),
    ("4.4.0", 1, 1),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.1", 1, 3),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.0", 1, 2),
    ("6.0.0", 1, 4),
    ("7.0.0", 1, 2),
    ("7.1.1", 1, 1),
    ("7.1.2", 1, 1),
];

/// What proves a statement: `room::test`, `script: name`, or `table: row`.
fn proofs() -> HashSet<String> {
    let mut proofs: HashSet<String> = HashSet::new();
    for text in [CONNECT, PUBLISH, SUBSCRIBE, SHARING] {
        for script in script::scripts(text) {
            assert!(
                proofs.insert(format!("script: {}", script.name)),
                "{}",
                script.name
            );
        }
    }
    proofs.extend(table::rows().iter().map(|row| {
        let (bytes, _) = row.line.rsplit_once(" | ").expect("three parts");
        format!("table: {bytes}")
    }));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [
        "tests/e2e",
        "adapters/mqtt/src",
        "adapters/mqtt/tests",
        "src/domain",
    ] {
        for file in fs::read_dir(root.join(folder)).expect("a folder") {
            let path = file.expect("a file").path();
            let Some(room) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            if path.extension().is_none_or(|it| it != "rs") {
                continue;
            }
            let mut text = fs::read_to_string(&path).expect("text");
            // Tests may be in a file of their own beside the room.
            let tests = path.with_extension("").join("tests.rs");
            text += &fs::read_to_string(tests).unwrap_or_default();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" {
                    is_test = true;
                } else if let Some(rest) = line.strip_prefix("fn ") {
                    let name = rest.split('(').next().expect("a name");
                    if is_test {
                        let inner = if folder.ends_with("src") || folder == "src/domain" {
                            "tests::"
                        } else {
                            ""
                        };
                        proofs.insert(format!("{room}::{inner}{name}"));
                    }
                    is_test = false;
                }
            }
        }
    }
    proofs
}

fn check(table: &str, prefix: &str, sections: &Sections, proofs: &HashSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known = sections.iter().flat_map(|(section, first, last)| {
        (*first..=*last).map(move |n| format!("{prefix}-{section}-{n}"))
    });
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[clause, whom, what, proof, ..] = &columns[..] else {
            panic!("four columns: {line}")
        };
        assert_eq!(known.next().as_deref(), Some(clause), "the next clause");
        assert!(
            ["server", "client", "both"].contains(&whom) && !what.is_empty(),
            "{line}"
        );
        match (proof, columns.get(4)) {
            ("-", Some(why)) if why.len() > 10 => {}
            ("-", _) => wrong.push(format!("{clause}: why is there no test?")),
            (proof, None) => {
                let missing = proof.split("; ").filter(|proof| !proofs.contains(*proof));
                wrong.extend(missing.map(|proof| format!("{clause}: there is no {proof}")));
            }
            (_, Some(_)) => wrong.push(format!("{clause}: a test and an excuse")),
        }
    }
    assert_eq!(known.next(), None, "at the end of the table");
    wrong
}

#[test]
fn every_clause_has_its_test() {
    let proofs = proofs();
    let mqtt5 = include_str!("../conformance/mqtt5.tsv");
    let mqtt311 = include_str!("../conformance/mqtt311.tsv");
    let mut wrong = check(mqtt5, "MQTT5", MQTT5, &proofs);
    wrong.extend(check(mqtt311, "MQTT", MQTT311, &proofs));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
