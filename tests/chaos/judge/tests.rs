//! A judge who finds nothing wrong with anything is no good.

use std::time::Duration;

use super::*;
use crate::crowd::End;
use crate::plan::Kind;

/// Two instances, two clients, and all that was said about them.
struct Case {
    attempts: Vec<Attempt>,
    clients: Vec<Name>,
    copy: Vec<Event>,
    journals: Vec<Journal>,
    deeds: Vec<Deed>,
}

fn attempt(client: usize, slot: usize, began: u64, end: End) -> Attempt {
    Attempt {
        client,
        slot,
        guest: Guest::Honest,
        began,
        asked: true,
        admitted: Some(began + 1),
        waited: 1,
        silent: None,
        ended: Some((began + 9, end)),
    }
}

fn event(n: u64, attempt: u64, client: usize, slot: usize, reason: Option<&str>) -> Event {
    Event {
        id: format!("{n}-0"),
        thing: format!("thing-{client}"),
        instance: format!("front-{slot}").into(),
        connect: reason.is_none(),
        at: n,
        session: format!("session-{attempt}"),
        client_id: format!("client-{client}"),
        sequence: if reason.is_none() { "1" } else { "2" }.to_owned(),
        reason: reason.unwrap_or_default().into(),
        attempt: Some(attempt),
    }
}

/// Client 0 comes and goes twice on instance 0; client 1 is lost on instance 1, and its sessions are closed by others.
fn sound() -> Case {
    let copy = vec![
        event(1, 0, 0, 0, None),
        event(2, 1, 1, 1, None),
        event(3, 0, 0, 0, Some("disconnected")),
        event(4, 2, 0, 0, None),
        event(5, 2, 0, 0, Some("connection_lost")),
        event(6, 1, 1, 1, Some("instance_failed")),
    ];
    let journal = |slot: usize, places: &[usize]| Journal {
        instance: format!("front-{slot}"),
        is_lost: slot == 1,
        relayed: places.len() as u64,
        events: places
            .iter()
            .zip(1..)
            .map(|(place, n)| (n, copy[*place].clone()))
            .collect(),
    };
    Case {
        attempts: vec![
            attempt(0, 0, 10, End::Goodbye),
            attempt(1, 1, 15, End::Broken),
            attempt(0, 0, 30, End::Reset),
        ],
        clients: (0..2)
            .map(|n| Name {
                thing: format!("thing-{n}"),
                client_id: format!("client-{n}"),
            })
            .collect(),
        journals: vec![journal(0, &[0, 2, 3, 4]), journal(1, &[1])],
        copy,
        deeds: Vec::new(),
    }
}

fn judged(case: &Case) -> Verdict {
    judge(&Evidence {
        attempts: &case.attempts,
        clients: &case.clients,
        slots: &[vec!["front-0".to_owned()], vec!["front-1".to_owned()]],
        copy: &case.copy,
        journals: &case.journals,
        deeds: &case.deeds,
    })
}

fn expect(name: &str, change: impl FnOnce(&mut Case)) {
    let mut case = sound();
    change(&mut case);
    assert!(judged(&case).count > 0, "{name} is not found");
}

#[test]
fn what_is_as_it_should_be_is_acquitted() {
    let verdict = judged(&sound());
    assert_eq!(verdict.findings, [""; 0]);
    assert_eq!(verdict.count, 0);
}

#[test]
fn every_event_that_is_left_out_doubled_or_told_too_early_is_found() {
    for place in 0..sound().copy.len() {
        expect(&format!("that {place} is left out"), |case| {
            case.copy.remove(place);
        });
        expect(&format!("that {place} is doubled"), |case| {
            case.copy.insert(place, case.copy[place].clone());
        });
        expect(&format!("that {place} comes again at the end"), |case| {
            case.copy.push(case.copy[place].clone());
        });
    }
    // Of different instances, nobody knows who was first.
    for (one, other) in [(0, 2), (2, 3), (3, 4), (1, 5)] {
        expect(&format!("that {one} and {other} are swapped"), |case| {
            case.copy.swap(one, other)
        });
    }
}

#[test]
fn a_whole_session_that_is_left_out_is_found_by_client_and_by_journal() {
    let without =
        |case: &mut Case, attempt: u64| case.copy.retain(|it| it.attempt != Some(attempt));
    let mut case = sound();
    without(&mut case, 0);
    let found = judged(&case).findings.concat();
    assert!(
        found.contains("lost:") && found.contains("front-0:"),
        "{found}"
    );
    // If only the journal knows of it, since its CONNACK was lost.
    case.attempts[0].admitted = None;
    let found = judged(&case).findings.concat();
    assert!(
        !found.contains("lost:") && found.contains("front-0:"),
        "{found}"
    );
    // Whose folder is gone, loses what was not relayed, and no more.
    let mut case = sound();
    without(&mut case, 1);
    assert_eq!(judged(&case).count, 2);
    case.journals[1].relayed = 0;
    let verdict = judged(&case);
    assert_eq!((verdict.count, verdict.buried), (0, 1));
    case.journals[1].is_lost = false;
    assert_eq!(judged(&case).count, 1);
}

#[test]
fn what_is_invented_is_found() {
    let invent = |case: &mut Case, attempt: u64| {
        case.copy.push(event(7, attempt, 0, 0, None));
        case.copy
            .push(event(8, attempt, 0, 0, Some("connection_lost")));
    };
    expect("an event of nobody", |case| invent(case, 9));
    for (name, change) in [
        (
            "of who was refused",
            (|it| (it.admitted, it.ended) = (None, Some((50, End::Refused(5)))))
                as fn(&mut Attempt),
        ),
        ("of who asked for nothing", |it| {
            (it.admitted, it.asked) = (None, false)
        }),
        ("of an impostor", |it| {
            (it.admitted, it.guest) = (None, Guest::Impostor)
        }),
    ] {
        expect(name, |case| {
            let mut guest = attempt(0, 0, 45, End::Closed);
            change(&mut guest);
            case.attempts.push(guest);
            invent(case, 3);
        });
    }
    expect("another thing", |case| {
        case.copy[0].thing = "thing-1".to_owned()
    });
    expect("another client", |case| {
        case.copy[0].client_id = "client-1".to_owned()
    });
    expect("another instance", |case| {
        case.copy[0].instance = "front-1".into()
    });
}

#[test]
fn a_live_session_is_announced_again_only_when_others_have_closed_it() {
    let again = |reason: &'static str| {
        let mut case = sound();
        case.copy.truncate(5);
        case.journals.truncate(1);
        let second = |mut event: Event| {
            event.session = "another".to_owned();
            event
        };
        case.copy.push(event(6, 1, 1, 1, Some(reason)));
        case.copy.push(second(event(7, 1, 1, 1, None)));
        case.copy
            .push(second(event(8, 1, 1, 1, Some("connection_lost"))));
        judged(&case)
    };
    let verdict = again("instance_failed");
    assert_eq!(
        (verdict.count, verdict.reannounced),
        (0, 1),
        "{:?}",
        verdict.findings
    );
    assert!(again("connection_lost").count > 0);
}

#[test]
fn a_reason_needs_a_cause() {
    let give = |case: &mut Case, reason: &str| {
        case.copy[4].reason = reason.into();
        case.journals[0].events[3].1.reason = reason.into();
    };
    for reason in [
        "disconnected",
        "keep_alive_timeout",
        "kicked",
        "revoked",
        "server_shutdown",
        "protocol_error",
        "too_slow",
        "",
    ] {
        expect(reason, |case| give(case, reason));
    }
    let mut case = sound();
    give(&mut case, "kicked");
    let fault = Fault {
        kind: Kind::Kick,
        slot: 0,
        pause: Duration::ZERO,
        length: Duration::ZERO,
        way: 0,
    };
    let thing = Some("thing-0".to_owned());
    case.deeds.push(Deed {
        fault,
        from: 35,
        to: 36,
        thing,
    });
    assert_eq!(judged(&case).count, 0);
    expect("a loss that is none", |case| {
        case.attempts[2].ended = Some((39, End::Ended(None)));
    });
}
