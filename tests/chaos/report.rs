//! What came of a game, in figures; and what is kept to find out why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::end::Rested;
use crate::game::{Game, Vanished};
use crate::judge::{Evidence, FAILED, Verdict};
use crate::plan::{Kind, Part};
use crate::scribe::Event;
use crate::slot::Tenant;

/// Milliseconds after which an event counts as late.
const LATE: u64 = 1_000;

/// How the sessions of an instance were closed that is gone for good.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) instance: String,
    /// How long after the end of the lease the last one was closed, by the clock of Redis.
    pub(crate) after: u64,
    pub(crate) sessions: u64,
    /// Nothing else was done to the others, or to Redis.
    pub(crate) is_undisturbed: bool,
}

impl Closing {
    /// Nothing if there was nothing to close.
    pub(crate) fn of(gone: &Vanished, evidence: &Evidence<'_>) -> Option<Self> {
        // It was felt a while longer.
        let during = evidence
            .deeds
            .iter()
            .filter(|it| it.to + 3_000 >= gone.from && it.from <= gone.to);
        let disturbs = |part: Part| match part {
            Part::Redis => true,
            Part::Process(slot) | Part::Line(slot) => !evidence.slots[slot].contains(&gone.name),
            Part::Door(_) | Part::Postgres | Part::Things => false,
        };
        let is_disturbed = during.flat_map(|it| it.fault.parts()).any(disturbs);
        let until = gone.at + (gone.to - gone.from);
        let closed = evidence.copy.iter().filter(|event| {
            *event.instance == *gone.name
                && &*event.reason == FAILED
                && (gone.at..=until).contains(&event.taken())
        });
        let last = closed.map(Event::taken).max()?;
        (gone.sessions > 0).then(|| Self {
            instance: gone.name.clone(),
            after: last.saturating_sub(gone.lease_ends),
            sessions: gone.sessions,
            is_undisturbed: !is_disturbed,
        })
    }
}

pub(crate) fn print(
    game: &Game,
    evidence: &Evidence<'_>,
    verdict: &Verdict,
    rested: &Rested,
    closings: &[Closing],
    void: usize,
) {
    let (seconds, seed) = (game.now() / 1_000, game.settings.seed);
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    for deed in evidence.deeds {
        *kinds.entry(deed.fault.kind).or_default() += 1;
    }
    println!(
        "--- {} faults in {seconds} s, CHAOS_SEED={seed}",
        evidence.deeds.len()
    );
    for (kind, count) in kinds {
        println!("{count:8}  {kind:?}");
    }
    let attempts = evidence.attempts;
    let admitted = attempts.iter().filter(|it| it.admitted.is_some()).count();
    let sessions = evidence.copy.iter().filter(|it| it.connect).count();
    println!(
        "--- {} attempts, {admitted} let in, {sessions} sessions, {} events",
        attempts.len(),
        evidence.copy.len()
    );
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for event in evidence.copy.iter().filter(|it| !it.connect) {
        *reasons.entry(&event.reason).or_default() += 1;
    }
    for (reason, count) in reasons {
        println!("{count:8}  {reason}");
    }
    println!("---");
    println!(
        "{:8}  connects whose CONNACK was lost on the way",
        verdict.unanswered
    );
    println!(
        "{:8}  live sessions announced again after others had closed them",
        verdict.reannounced
    );
    println!(
        "{:8}  sessions known only to a folder that was taken away",
        verdict.buried
    );
    println!("{void:8}  events that a master took and lost, and got again");
    let posts = game.crowd.posts();
    let letters: usize = posts.iter().map(|it| it.acknowledged.len()).sum();
    let forgotten: usize = posts.iter().map(|it| it.forgotten.len()).sum();
    println!(
        "{letters:8}  messages at QoS 1 acknowledged, by {} sessions of which {forgotten} went with a folder",
        posts.len() + forgotten
    );
    let (late, catch_ups, latest) = lateness(evidence.copy);
    println!(
        "{late:8}  events later than {LATE} ms, in {catch_ups} catch-ups; the latest after {latest} ms"
    );
    let most = |undisturbed: bool| {
        let counted = closings
            .iter()
            .filter(|it| it.is_undisturbed || !undisturbed);
        let (count, most) = counted.fold((0, 0), |(n, most), it| (n + 1, it.after.max(most)));
        format!(
            "{count:8}  instances vanished with sessions, closed within {most} ms of the end of the lease"
        )
    };
    for Closing {
        instance,
        after,
        sessions,
        is_undisturbed,
    } in closings
    {
        let quiet = if *is_undisturbed {
            ""
        } else {
            ", with something else the matter"
        };
        println!("          {instance} with {sessions} sessions: {after} ms{quiet}");
    }
    println!("{}", most(false));
    println!("{}; of these with nothing else the matter", most(true));
    println!(
        "{:8}  online at rest, {:?} after all was healed",
        rested.online, rested.after
    );
    let apart = game.slots.iter().filter(|it| it.network.is_some()).count();
    println!("{apart:8}  instances in a network namespace of their own");
    for lack in &game.lacks.0 {
        println!("          this machine lacks {lack}");
    }
    println!("{:8}  findings", game.findings().len());
}

/// How many events were late, how often an instance fell behind, and the longest delay.
fn lateness(copy: &[Event]) -> (usize, usize, u64) {
    let mut behind: BTreeSet<&str> = BTreeSet::new();
    let (mut late, mut catch_ups, mut latest) = (0, 0, 0);
    for event in copy {
        let lag = event.taken().saturating_sub(event.at / 1_000_000);
        latest = lag.max(latest);
        if lag <= LATE {
            behind.remove(&*event.instance);
            continue;
        }
        late += 1;
        catch_ups += usize::from(behind.insert(&event.instance));
    }
    (late, catch_ups, latest)
}

/// Keeps logs, and everything that was noted.
pub(crate) fn keep(game: &Game, evidence: &Evidence<'_>) {
    let folder = format!("chaos-{}", game.settings.seed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let lines = |name: &str, lines: Vec<String>| {
        fs::write(folder.join(name), lines.join("\n")).expect("written");
    };
    lines("findings", game.findings());
    lines(
        "stream",
        evidence.copy.iter().map(|it| format!("{it:?}")).collect(),
    );
    lines(
        "deeds",
        evidence.deeds.iter().map(|it| format!("{it:?}")).collect(),
    );
    let attempts = evidence.attempts.iter().enumerate();
    lines(
        "attempts",
        attempts
            .map(|(number, it)| format!("{number} {it:?}"))
            .collect(),
    );
    for (number, journal) in evidence.journals.iter().enumerate() {
        let mut text = format!("lost: {}, relayed: {}\n", journal.is_lost, journal.relayed);
        for event in &journal.events {
            let _ = writeln!(text, "{event:?}");
        }
        fs::write(
            folder.join(format!("journal-{number}-{}", journal.instance)),
            text,
        )
        .expect("written");
    }
    let logs = |number: usize, tenant: &Tenant| {
        for entry in fs::read_dir(tenant.world.folder())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("log.") {
                let to = folder.join(format!("{}-{number}-{name}", tenant.name));
                let _ = fs::copy(entry.path(), to);
            }
        }
    };
    let graves = game.graves.lock().expect("lock");
    for (number, tenant) in graves.iter().enumerate() {
        logs(number, tenant);
    }
    for slot in &game.slots {
        logs(graves.len() + slot.number, &slot.tenant());
    }
    println!("what was noted is in {}", folder.display());
}
