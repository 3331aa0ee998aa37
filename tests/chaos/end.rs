//! The end of a game: all comes to rest and must agree, then all leave, and everybody is asked what they have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rollcall_domain::ports::EventLog;
use rollcall_storage::journal;

use crate::game::{Game, REST, attempt_on_roll};
use crate::judge::{Evidence, Journal, judge};
use crate::plan::Kind;
use crate::report::{self, Closing};
use crate::scribe::{Event, STREAM};
use crate::slot::Tenant;

/// After its lease has ended, the sessions of an instance are closed within so many milliseconds.
const BOUND: u64 = 2_000;

/// How it was at rest.
pub(crate) struct Rested {
    pub(crate) online: usize,
    /// How long it took.
    pub(crate) after: Duration,
}

fn until(what: &str, game: &Game, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + REST;
    while !is_so() {
        if Instant::now() > end {
            game.find(format!("waited too long for {what}"));
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

/// Waits until roll, stream, instances and sockets agree, and checks what holds at rest.
pub(crate) fn rest(game: &Game) -> Rested {
    let began = Instant::now();
    let crowd = &game.crowd;
    until("the clients to be at rest", game, || crowd.is_at_rest());
    // Who says nothing any more ends meanwhile, so all are looked at again until they agree.
    let mut last = Vec::new();
    let agree = until("sockets, roll, stream and instances to agree", game, || {
        last = differences(game);
        last.is_empty()
    });
    if !agree {
        last.into_iter().for_each(|it| game.find(it));
    }
    let after = began.elapsed();
    letters(game);
    for slot in &game.slots {
        accounts(game, &slot.tenant());
    }
    check(game);
    Rested {
        online: crowd.live().len(),
        after,
    }
}

/// What was acknowledged has arrived, and sessions are forgotten by nobody who has his folder.
fn letters(game: &Game) {
    until("letters to arrive", game, || {
        game.crowd
            .posts()
            .iter()
            .all(|post| post.missing().is_empty())
    });
    let deeds = game.deeds.lock().expect("lock");
    for (slot, post) in game.crowd.posts().into_iter().enumerate() {
        let missing = post.missing();
        if !missing.is_empty() {
            game.find(format!(
                "{slot} has acknowledged and lost letters {missing:?}"
            ));
        }
        let losses = deeds
            .iter()
            .filter(|it| it.fault.kind == Kind::Lose && it.fault.slot == slot);
        if post.forgotten.len() > losses.count() {
            game.find(format!(
                "{slot} has forgotten sessions {:?}",
                post.forgotten
            ));
        }
    }
}

/// Who is online: what sockets, roll, stream and instances do not agree about.
fn differences(game: &Game) -> Vec<String> {
    let mut found = Vec::new();
    let roll = game.roll();
    let live = game.crowd.live();
    let rows = roll.values().flat_map(BTreeMap::values);
    let listed: Vec<u64> = rows.map(attempt_on_roll).collect();
    let known: BTreeSet<u64> = listed.iter().copied().collect();
    if known.len() < listed.len() {
        found.push("somebody is on the roll twice".to_owned());
    }
    for number in known.difference(&live) {
        let attempt = game.crowd.attempts().get(*number as usize).cloned();
        found.push(format!("on the roll, but gone: {attempt:?} ({number})"));
    }
    for number in live.difference(&known) {
        let attempt = game.crowd.attempts()[*number as usize].clone();
        found.push(format!(
            "there, but not on the roll: {attempt:?} ({number})"
        ));
    }
    let mut online: BTreeSet<String> = BTreeSet::new();
    for event in &game.scribe.copy().events {
        match event.connect {
            true => online.insert(event.session.clone()),
            false => online.remove(&event.session),
        };
    }
    let on_roll: BTreeSet<String> = roll.values().flat_map(BTreeMap::keys).cloned().collect();
    if online != on_roll {
        let (online, listed) = (online.len(), on_roll.len());
        found.push(format!(
            "by the stream {online} are online, {listed} are on the roll"
        ));
    }
    if !found.is_empty() {
        return found;
    }
    for slot in &game.slots {
        let tenant = slot.tenant();
        let shown = tenant.world.json(&["presence", "--limit", "10000"]);
        let shown = shown["sessions"].as_array().cloned().unwrap_or_default();
        let shown: BTreeSet<&str> = shown
            .iter()
            .filter_map(|it| it["session_id"].as_str())
            .collect();
        let part = roll.get(&tenant.name).into_iter().flat_map(BTreeMap::keys);
        if !shown.iter().copied().eq(part.map(String::as_str)) {
            found.push(format!(
                "{} shows other sessions than are on the roll",
                tenant.name
            ));
        }
    }
    found
}

/// `rollcall check-presence` says the same of what is left of the stream.
fn check(game: &Game) {
    let url = game.store().redis().url();
    let deeds = game.deeds.lock().expect("lock");
    let has_lost = deeds
        .iter()
        .any(|it| matches!(it.fault.kind, Kind::Trim | Kind::Delete));
    let mut arguments = vec!["check-presence", "--redis", &url];
    if has_lost {
        arguments.push("--partial");
    }
    let output = game.slots[0].tenant().world.cli(&arguments);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        game.find(format!("check-presence: {said}"));
    }
}

/// What an instance has counted adds up.
fn accounts(game: &Game, tenant: &Tenant) {
    let value = |name: &str, label: &str| tenant.world.counter(name, label);
    let mqtt = "stream=\"mqtt\"";
    let sums = || {
        let journal = value("rollcall_journal_events_offered_total", "")
            - value("rollcall_journal_events_total", "")
            - value("rollcall_journal_events_refused_total", "")
            - value("rollcall_journal_events_failed_total", "")
            - value("rollcall_journal_events_moot_total", "")
            - value("rollcall_journal_events_waiting", "");
        let relay = value("rollcall_relay_events_accepted{", mqtt)
            + value("rollcall_relay_events_again_total", mqtt)
            - value("rollcall_relay_events_before", mqtt)
            - value("rollcall_relay_events_total{", mqtt)
            - value("rollcall_relay_events_found_total", mqtt)
            - value("rollcall_relay_events_skipped_total", mqtt)
            - value("rollcall_relay_events_missing_total", mqtt)
            - value("rollcall_relay_lag_events", mqtt);
        (journal, relay)
    };
    // Each is asked for by itself: nothing may go on meanwhile.
    let right = until("the accounts to add up", game, || sums() == (0.0, 0.0));
    if !right {
        game.find(format!(
            "{}: the accounts are off by {:?}",
            tenant.name,
            sums()
        ));
    }
    let missing = value("rollcall_relay_events_missing_total", mqtt);
    if missing > 0.0 {
        game.find(format!("{} has dropped {missing} events", tenant.name));
    }
}

/// All leave and all stop. Judges, and prints the report.
pub(crate) fn close(game: &Game, rested: Rested) -> Vec<String> {
    until("all to leave", game, || {
        game.roll().values().all(BTreeMap::is_empty)
    });
    for slot in &game.slots {
        slot.shut();
        let mut tenant = slot.tenant();
        let status = tenant.world.end("TERM");
        if !status.success() {
            game.find(format!("{} ended with {status}", tenant.name));
        }
    }
    until("the copy to have the last entry", game, || {
        let store = game.store();
        let last: Vec<(String, redis::Value)> =
            store
                .redis()
                .command(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]);
        last.first()
            .is_none_or(|(id, _)| game.scribe.copy().last() == id)
    });
    let journals = journals(game);
    let copy = game.scribe.copy();
    for odd in &copy.odd {
        game.find(format!("no event of presence: {odd}"));
    }
    let attempts = game.crowd.attempts();
    let deeds = game.deeds.lock().expect("lock");
    let slots: Vec<Vec<String>> = game.slots.iter().map(|slot| slot.names().clone()).collect();
    let evidence = Evidence {
        attempts: &attempts,
        clients: &game.crowd.names,
        slots: &slots,
        copy: &copy.events,
        journals: &journals,
        deeds: &deeds,
    };
    let verdict = judge(&evidence);
    for finding in &verdict.findings {
        game.find(finding.clone());
    }
    if verdict.count > verdict.findings.len() {
        game.find(format!(
            "and {} more",
            verdict.count - verdict.findings.len()
        ));
    }
    let gone = game.vanished.lock().expect("lock");
    let closings: Vec<Closing> = gone
        .iter()
        .filter_map(|it| Closing::of(it, &evidence))
        .collect();
    for closing in closings
        .iter()
        .filter(|it| it.is_undisturbed && it.after > BOUND)
    {
        game.find(format!("too late: {closing:?}"));
    }
    report::print(game, &evidence, &verdict, &rested, &closings, copy.void);
    let findings = game.findings();
    if !findings.is_empty() {
        report::keep(game, &evidence);
    }
    findings
}

/// The journals of all instances that ever were.
fn journals(game: &Game) -> Vec<Journal> {
    let mut journals = Vec::new();
    let graves = game.graves.lock().expect("lock");
    for tenant in graves.iter() {
        journals.push(read_journal(game, tenant, true));
    }
    for slot in &game.slots {
        journals.push(read_journal(game, &slot.tenant(), false));
    }
    journals
}

fn read_journal(game: &Game, tenant: &Tenant, is_lost: bool) -> Journal {
    let path = tenant.world.folder().join("data/presence.db");
    let (producer, events) = game.block_on(read(&path, &tenant.name)).expect("a journal");
    let producers = format!("{{{STREAM}}}.producers");
    let relayed: Option<u64> = game
        .store()
        .redis()
        .command(&["HGET", &producers, &producer]);
    let relayed = relayed.unwrap_or(0);
    let last = events.last().map_or(0, |(position, _)| *position);
    if !is_lost && relayed != last {
        game.find(format!(
            "{} has {last} events, {relayed} are relayed",
            tenant.name
        ));
    }
    Journal {
        instance: tenant.name.clone(),
        is_lost,
        relayed,
        events,
    }
}

type Events = Vec<(u64, Event)>;

async fn read(path: &Path, name: &str) -> Result<(String, Events), Box<dyn std::error::Error>> {
    let config = journal::Config {
        max_bytes: bytesize::ByteSize::gib(16),
        durability: journal::Durability::Process,
        commit_interval: Duration::ZERO,
        when_full: journal::WhenFull::Refuse,
    };
    let journal = journal::Journal::open(path, &config, name, true).await?;
    let mut events = Vec::new();
    let mut position = 0;
    loop {
        let entries = journal.read(position, 10_000).await?;
        for entry in &entries {
            position = entry.position;
            let text =
                |(name, value): &(_, _)| (ToString::to_string(name), ToString::to_string(value));
            let fields: Vec<(String, String)> = entry.fields.iter().map(text).collect();
            events.push((position, Event::parse("", &fields)?));
        }
        if entries.is_empty() {
            break;
        }
    }
    let producer = journal.producer().to_string();
    journal.close().await;
    Ok((producer, events))
}
