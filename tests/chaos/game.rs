//! A game: instances, clients and stores are set up, faults are played, all is healed, and then it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::crowd::{Crowd, Phase, attempt_of};
use crate::end;
use crate::faults;
use crate::judge::Deed;
use crate::network;
use crate::plan::{self, Fault, LEASE, Part};
use crate::postgres_server::PostgresServer;
use crate::scribe::{STREAM, Scribe};
use crate::slot::{Lacks, Slot, Tenant};
use crate::store::Store;
use crate::world::{Thing, wait_for};

/// Faults at one time.
const AT_ONE_TIME: usize = 4;
const SLOTS: usize = 3;
const THINGS: usize = 40;

/// What is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) faults: usize,
    pub(crate) clients: usize,
}

pub(crate) struct Game {
    pub(crate) settings: Settings,
    began: Instant,
    // In the order in which they end: clients, then instances, then what these need.
    runtime: Runtime,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) scribe: Scribe,
    pub(crate) slots: Vec<Slot>,
    /// Instances without their folders, which are kept for the judge alone.
    pub(crate) graves: Mutex<Vec<Tenant>>,
    pub(crate) things: Vec<Thing>,
    store: Mutex<Store>,
    pub(crate) postgres: PostgresServer,
    /// Held by those who start; PostgreSQL is not stopped meanwhile.
    pub(crate) starting: RwLock<()>,
    pub(crate) lacks: Lacks,
    pub(crate) deeds: Mutex<Vec<Deed>>,
    pub(crate) vanished: Mutex<Vec<Vanished>>,
    findings: Mutex<Vec<String>>,
}

/// An instance that is gone for good.
#[derive(Clone, Debug)]
pub(crate) struct Vanished {
    pub(crate) name: String,
    /// When it was killed, by the clock of Redis, and when its lease ends: milliseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) lease_ends: u64,
    /// Of the game.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// How many it had on the roll.
    pub(crate) sessions: u64,
}

impl Vanished {
    /// Looks in the moment after; nothing if Redis cannot be asked.
    pub(crate) fn look(game: &Game, name: &str) -> Option<Self> {
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("TIME");
        pipeline
            .cmd("PTTL")
            .arg(format!("{{{STREAM}}}.lease:{name}"));
        pipeline
            .cmd("HLEN")
            .arg(format!("{{{STREAM}}}.roll:{name}"));
        let mut connection = game.scribe.copy().connection().ok()?;
        let asked: redis::RedisResult<((u64, u64), i64, u64)> = pipeline.query(&mut connection);
        let ((seconds, micros), left, sessions) = asked.ok()?;
        let at = 1_000 * seconds + micros / 1_000;
        Some(Self {
            name: name.to_owned(),
            at,
            lease_ends: at + left.max(0) as u64,
            from: game.now(),
            to: 0,
            sessions,
        })
    }
}

impl Game {
    fn set_up(settings: Settings) -> Self {
        network::sweep();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let postgres = PostgresServer::start();
        let database = postgres.url(&postgres.database());
        let store = Store::start(runtime.handle());
        let mut lacks = Lacks::default();
        let slots: Vec<Slot> = (0..SLOTS)
            .map(|number| Slot::make(runtime.handle(), number, database.clone(), &mut lacks))
            .collect();
        for slot in &slots {
            slot.line
                .lead_to(Some(([127, 0, 0, 1], store.port()).into()));
        }
        let mut first = slots[0].tenant();
        first.world.run();
        let (mut things, channel) = first.world.members(THINGS + 2 * SLOTS);
        slots[0].open(&first);
        thread::scope(|scope| {
            for slot in &slots[1..] {
                let first = &first.world;
                scope.spawn(move || {
                    let mut tenant = slot.tenant();
                    Slot::share(first, &tenant.world);
                    tenant.world.run();
                    slot.open(&tenant);
                });
            }
        });
        drop(first);
        let began = Instant::now();
        let doors: Vec<_> = slots.iter().map(|slot| slot.door.address()).collect();
        let crowd = Crowd::gather(began, doors, things.clone(), channel, settings.clients);
        // Those of letters keep what they may.
        things.truncate(THINGS);
        Self {
            settings,
            began,
            crowd,
            scribe: Scribe::begin(store.redis().url()),
            runtime,
            slots,
            graves: Mutex::default(),
            things,
            store: Mutex::new(store),
            postgres,
            starting: RwLock::default(),
            lacks,
            deeds: Mutex::default(),
            vanished: Mutex::default(),
            findings: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(|it| it.into_inner())
    }

    /// Something is not as it should be.
    pub(crate) fn find(&self, what: String) {
        println!("FOUND {what}");
        self.findings.lock().expect("lock").push(what);
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().expect("lock").clone()
    }

    pub(crate) fn bury(&self, tenant: Tenant) {
        self.graves.lock().expect("lock").push(tenant);
    }

    pub(crate) fn vanished(&self, mut vanished: Vanished) {
        vanished.to = self.now();
        self.vanished.lock().expect("lock").push(vanished);
    }

    /// Plays all faults, some at a time, each when what it needs is free.
    fn play(&self) {
        let plan = plan::draw(self.settings.seed, self.settings.faults, self.slots.len());
        let busy: Mutex<BTreeSet<Part>> = Mutex::default();
        let under_way = Mutex::new(0);
        let ended = Condvar::new();
        thread::scope(|scope| {
            for (number, fault) in plan.iter().enumerate() {
                thread::sleep(fault.pause);
                let parts = fault.parts();
                let mut count = under_way.lock().expect("lock");
                loop {
                    let mut busy = busy.lock().expect("lock");
                    if *count < AT_ONE_TIME && busy.is_disjoint(&parts) {
                        busy.extend(&parts);
                        break;
                    }
                    drop(busy);
                    count = ended.wait(count).expect("lock");
                }
                *count += 1;
                drop(count);
                self.say(number + 1, fault);
                let (busy, under_way, ended) = (&busy, &under_way, &ended);
                scope.spawn(move || {
                    let from = self.now();
                    let thing = faults::play(self, fault);
                    self.deeds.lock().expect("lock").push(Deed {
                        fault: fault.clone(),
                        from,
                        to: self.now(),
                        thing,
                    });
                    let mut count = under_way.lock().expect("lock");
                    *count -= 1;
                    busy.lock()
                        .expect("lock")
                        .retain(|part| !fault.parts().contains(part));
                    drop(count);
                    ended.notify_all();
                });
            }
        });
    }

    pub(crate) fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    fn say(&self, number: usize, fault: &Fault) {
        let events = self.scribe.copy().events.len();
        let (seconds, all) = (self.now() / 1_000, self.settings.faults);
        let live = self.crowd.live().len();
        let attempts = self.crowd.attempts().len();
        println!(
            "{seconds:5} s  {number:4} of {all}  {fault}  ({live} online, {attempts} attempts, {events} events)"
        );
    }

    /// Who is on the roll, by instance: session and attempt.
    pub(crate) fn roll(&self) -> BTreeMap<String, BTreeMap<String, serde_json::Value>> {
        let store = self.store();
        let redis = store.redis();
        let names: Vec<String> = redis.command(&["HKEYS", &format!("{{{STREAM}}}.roll")]);
        let part = |name: String| {
            let rows: BTreeMap<String, String> =
                redis.command(&["HGETALL", &format!("{{{STREAM}}}.roll:{name}")]);
            let row = |(id, row): (String, String)| (id, serde_json::from_str(&row).expect("JSON"));
            (name, rows.into_iter().map(row).collect())
        };
        names.into_iter().map(part).collect()
    }
}

/// Whose session a row of the roll is about.
pub(crate) fn attempt_on_roll(row: &serde_json::Value) -> u64 {
    row["peer"]
        .as_str()
        .and_then(attempt_of)
        .unwrap_or(u64::MAX)
}

/// Plays a game to its end, and prints what came of it. Returns what is not as it should be.
pub(crate) fn play(settings: Settings) -> Vec<String> {
    let Settings {
        seed,
        faults,
        clients,
    } = settings;
    println!("CHAOS_SEED={seed} ({faults} faults, {clients} clients, lease {LEASE:?})");
    let game = Game::set_up(settings);
    for lack in &game.lacks.0 {
        println!("this machine lacks {lack}");
    }
    game.crowd.begin(game.runtime.handle(), seed);
    wait_for("a third to be online", || {
        (3 * game.crowd.live().len() >= clients).then_some(())
    });
    game.play();
    println!("{:5} s  all is healed", game.now() / 1_000);
    game.crowd.set(Phase::Rest);
    let rested = end::rest(&game);
    game.crowd.set(Phase::Over);
    end::close(&game, rested)
}

/// Longer than anything takes to come to rest.
pub(crate) const REST: Duration = Duration::from_secs(90);
