//! How each fault is done, and undone.

use std::thread;
use std::time::{Duration, Instant};

use crate::game::{Game, Vanished};
use crate::plan::{Fault, Kind, LEASE};
use crate::proxy::{Cut, Weather};
use crate::scribe::STREAM;
use crate::slot::{Slot, Tenant};
use crate::world::try_for;

/// Does it, waits as long as it lasts, and undoes it. Returns the thing it was about, if it was about one.
pub(crate) fn play(game: &Game, fault: &Fault) -> Option<String> {
    let slot = &game.slots[fault.slot];
    let wait = || thread::sleep(fault.length);
    match fault.kind {
        Kind::Kill => {
            let mut tenant = slot.tenant();
            slot.shut();
            tenant.world.end("KILL");
            wait();
            start(game, slot, &mut tenant);
        }
        Kind::Lose => lose(game, slot, fault),
        Kind::Freeze => {
            let tenant = slot.tenant();
            tenant.world.signal("STOP");
            wait();
            tenant.world.signal("CONT");
        }
        Kind::Drain => {
            let mut tenant = slot.tenant();
            let status = tenant.world.end("TERM");
            slot.shut();
            if !status.success() {
                game.find(format!(
                    "{} ended with {status} when it was told to stop",
                    tenant.name
                ));
            }
            wait();
            start(game, slot, &mut tenant);
        }
        Kind::FillDisk => {
            let tenant = slot.tenant();
            if let Some(disk) = &tenant.disk {
                disk.fill();
                wait();
                disk.clear();
            }
        }
        Kind::CutClients => {
            slot.door.set(Weather::Closed);
            slot.door.cut(Cut::Both);
            wait();
            slot.door.set(Weather::Clear);
        }
        Kind::StallClients => {
            slot.door.set(stalled(fault.way));
            wait();
            slot.door.set(Weather::Clear);
        }
        Kind::ForgetClients => {
            slot.door.cut(if fault.way.is_multiple_of(2) {
                Cut::Near
            } else {
                Cut::Far
            });
            wait();
        }
        Kind::SlowClients => {
            slot.door.set(Weather::Slow(1 + (fault.way % 8) as usize));
            wait();
            slot.door.set(Weather::Clear);
        }
        Kind::CutRedis => {
            slot.line.set(Weather::Closed);
            slot.line.cut(Cut::Both);
            wait();
            slot.line.set(Weather::Clear);
        }
        Kind::StallRedis => {
            slot.line.set(stalled(fault.way));
            wait();
            if fault.way & 4 == 0 {
                // What was held up never comes.
                slot.line.cut(Cut::Both);
            }
            slot.line.set(Weather::Clear);
        }
        Kind::SlowRedis => {
            slot.line
                .set(Weather::Slow(64 + (fault.way % 512) as usize));
            wait();
            slot.line.set(Weather::Clear);
        }
        Kind::Partition => match &slot.network {
            Some(network) => {
                network.pull_the_plug();
                wait();
                network.plug_in();
            }
            None => {
                let all = Weather::Stalled {
                    up: true,
                    down: true,
                };
                slot.door.set(all);
                slot.line.set(all);
                wait();
                slot.door.set(Weather::Clear);
                slot.line.set(Weather::Clear);
            }
        },
        Kind::StopPostgres => {
            let _nobody_starts = game.starting.write();
            game.postgres.stop();
            wait();
            game.postgres.run();
        }
        Kind::Kick => {
            let thing = game.things[fault.way as usize % game.things.len()]
                .id
                .clone();
            // It may be that nobody can be asked now.
            let _ = slot.tenant().world.cli(&["kick", &thing]);
            return Some(thing);
        }
        Kind::Revoke => {
            let thing = game.things[fault.way as usize % game.things.len()]
                .id
                .clone();
            let set = |what| {
                let done = try_for(|| {
                    let output = slot.tenant().world.cli(&["things", what, &thing]);
                    output.status.success().then_some(())
                });
                if done.is_none() {
                    game.find(format!("things {what} {thing} is never done"));
                }
            };
            set("disable");
            wait();
            set("enable");
            return Some(thing);
        }
        _ => redis(game, fault),
    }
    None
}

fn stalled(way: u64) -> Weather {
    let (up, down) = [(true, true), (true, false), (false, true)][way as usize % 3];
    Weather::Stalled { up, down }
}

/// What is done to Redis.
fn redis(game: &Game, fault: &Fault) {
    let wait = || thread::sleep(fault.length);
    let mut store = game.store();
    let text = |store: &crate::store::Store, words: &[&str]| {
        store.redis().command::<redis::Value>(words);
    };
    match fault.kind {
        Kind::KillRedis => {
            store.redis_mut().kill();
            wait();
            store.redis_mut().run();
            store.wait_for_replica();
        }
        Kind::FreezeRedis => {
            store.redis().signal("STOP");
            wait();
            store.redis().signal("CONT");
        }
        Kind::PauseRedis => {
            let time = fault.length.as_millis().to_string();
            let what = if fault.way.is_multiple_of(2) {
                "ALL"
            } else {
                "WRITE"
            };
            text(&store, &["CLIENT", "PAUSE", &time, what]);
            wait();
        }
        Kind::FillRedis => {
            text(&store, &["CONFIG", "SET", "maxmemory", "1"]);
            wait();
            text(&store, &["CONFIG", "SET", "maxmemory", "0"]);
        }
        Kind::FlushScripts => text(&store, &["SCRIPT", "FLUSH"]),
        Kind::ResetRedis => text(
            &store,
            &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        ),
        Kind::Trim | Kind::Delete => {
            let command = match fault.kind {
                Kind::Trim => &["XTRIM", STREAM, "MAXLEN", "100"][..],
                _ => &["DEL", STREAM],
            };
            // Redis may have to be asked again.
            let done = try_for(|| game.scribe.read_and(command).ok());
            done.expect("redis");
            // A failover must not bring back what the copy has as deleted.
            store.wait_for_replica();
        }
        Kind::FailOver => {
            if fault.way.is_multiple_of(2) {
                store.fall_behind();
                wait();
            }
            {
                let mut copy = game.scribe.copy();
                store.fail_over();
                copy.move_to(store.redis().url());
            }
            for slot in &game.slots {
                slot.line
                    .lead_to(Some(([127, 0, 0, 1], store.port()).into()));
                slot.line.cut(Cut::Both);
            }
            store.complete();
        }
        other => unreachable!("{other:?} is not about Redis"),
    }
}

pub(crate) fn start(game: &Game, slot: &Slot, tenant: &mut Tenant) {
    // Nobody starts without its database.
    let _database = game.starting.read();
    tenant.world.run();
    slot.open(tenant);
}

/// Kills an instance and takes its folder away; another one comes, by its name or by one of its own.
fn lose(game: &Game, slot: &Slot, fault: &Fault) {
    let began = Instant::now();
    let mut tenant = slot.tenant();
    slot.shut();
    tenant.world.end("KILL");
    let vanished = Vanished::look(game, &tenant.name);
    let name = match fault.way % 2 {
        0 => tenant.name.clone(),
        _ => format!("front-{}.{}", slot.number, slot.names().len()),
    };
    let successor = slot.successor(name.clone(), &tenant);
    game.bury(std::mem::replace(&mut *tenant, successor));
    slot.names().push(name);
    let least = LEASE + Duration::from_millis(2_100);
    thread::sleep(fault.length.max(least).saturating_sub(began.elapsed()));
    if let Some(vanished) = vanished {
        game.vanished(vanished);
    }
    start(game, slot, &mut tenant);
}
