//! What is revoked in one process counts in another: through the things stream of a Redis.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::{Client, Hello};
use crate::redis_server::RedisServer;
use crate::world::{Thing, World, wait_for};

/// A things service, and a front elsewhere that asks it and follows its stream.
struct Two {
    home: World,
    front: World,
    redis: RedisServer,
}

impl Two {
    fn start(more: &[(&str, &str)]) -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        let home = World::with(&[("ROLLCALL_REDIS__URL", &url)]);
        let authority = format!("http://{}", home.grpc());
        let mut environment = vec![
            ("ROLLCALL_REDIS__URL", &*url),
            ("ROLLCALL_THINGS__AUTHORITY", &*authority),
            ("ROLLCALL_INSTANCE", "front-2"),
        ];
        environment.extend(more);
        let front = World::with(&environment);
        wait_for("the front to follow", || {
            (front.counter("rollcall_follow_up", "") == 1.0).then_some(())
        });
        Self { home, front, redis }
    }

    fn heard(&self) -> f64 {
        self.front
            .counter("rollcall_follow_events_total", "revocation")
    }

    /// Writes into the things stream by hand, as others do.
    fn write(&self, at: SystemTime, fields: &str) {
        let at = at.duration_since(UNIX_EPOCH).expect("after").as_nanos();
        let at = at.to_string();
        let mut words = vec!["XADD", "mainflux.things", "*", "occurred_at", &at];
        words.extend(fields.split(['=', ' ']));
        self.redis.command::<String>(&words);
    }
}

fn topic(channel: &str) -> String {
    format!("channels/{channel}/messages")
}

/// How long it took clients to lose what was taken from them.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    /// Does something, and waits for the client to be sent away.
    fn end(&mut self, client: &mut Client, what: impl FnOnce()) {
        what();
        let begin = Instant::now();
        client.expect_disconnect(0x87);
        self.0.push(begin.elapsed());
    }

    /// Most of them took less than a second: the machine may have been busy once.
    fn check(mut self) {
        self.0.sort_unstable();
        let median = self.0[self.0.len() / 2];
        assert!(median < Duration::from_secs(1), "{:?}", self.0);
    }
}

#[test]
fn every_revocation_counts_in_another_process() {
    let two = Two::start(&[]);
    let mut times = Times::default();
    let (home, front) = (&two.home, &two.front);
    let (mut thing, channel) = home.member();
    let kept = home.channel();
    home.grant(&thing, &kept, "m_read,m_write");
    let (bystander, _) = home.member();
    let mut by = front.client(Hello::of(&bystander, "b").five());
    let join = |thing: &Thing| {
        let mut client = front.client(Hello::of(thing, "c").five());
        assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);
        client
    };

    let mut client = join(&thing);
    times.end(&mut client, || {
        home.tell(&["disconnect", &thing.id, &channel]);
    });
    // What was remembered is forgotten as well.
    let mut client = front.client(Hello::of(&thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [0x87]);
    assert_eq!(client.publish(&topic(&channel), b"x", 1), 0x87);
    drop(client);

    // Less than before: the other half stays.
    home.grant(&thing, &channel, "m_read,m_write");
    let mut client = join(&thing);
    home.grant(&thing, &channel, "m_write");
    wait_for("the subscription to go", || {
        (front.counter("rollcall_mqtt_subscriptions_revoked_total", "") >= 2.0).then_some(())
    });
    assert_eq!(client.publish(&topic(&channel), b"x", 1), 0);
    client.expect_silence();

    home.grant(&thing, &channel, "m_read,m_write");
    let mut client = join(&thing);
    assert_eq!(client.subscribe(&[(&topic(&kept), 1)]), [1]);
    home.tell(&["channels", "disable", &channel]);
    wait_for("the subscription to go", || {
        (front.counter("rollcall_mqtt_subscriptions_revoked_total", "") >= 3.0).then_some(())
    });
    assert_eq!(client.publish(&topic(&channel), b"x", 1), 0x87);
    client.publish(&topic(&kept), b"kept", 0);
    assert_eq!(client.take().payload, b"kept");
    home.tell(&["channels", "enable", &channel]);

    let rotated = std::cell::OnceCell::new();
    times.end(&mut client, || {
        let told = home.json(&["things", "rotate-key", &thing.id]);
        rotated.get_or_init(|| told["key"].as_str().expect("a key").to_owned());
    });
    let old = Hello::of(&thing, "c").five();
    assert_eq!(Client::connect(front.mqtt(), old).1.code, 0x86);
    rotated.get().expect("rotated").clone_into(&mut thing.key);
    let mut client = join(&thing);
    times.end(&mut client, || {
        home.tell(&["things", "disable", &thing.id]);
    });
    let hello = Hello::of(&thing, "c").five();
    assert_eq!(Client::connect(front.mqtt(), hello).1.code, 0x86);
    by.expect_silence();
    times.check();
    assert!(
        front
            .http("/metrics")
            .1
            .contains("rollcall_follow_lag_seconds")
    );
}

#[test]
fn other_services_and_nonsense_in_the_stream_are_coped_with() {
    let two = Two::start(&[]);
    let mut times = Times::default();
    let (thing, channel) = two.home.member();
    let now = SystemTime::now;
    for fields in [
        "operation=policies.remove subject=THING object=CHANNEL",
        "operation=policies.delete subject=THING object=CHANNEL actions=[m_write,m_read]",
        "operation=policy.remove subject=THING object=CHANNEL",
        "operation=policies.update subject=THING object=CHANNEL actions=[g_list]",
        "operation=channel.remove id=CHANNEL status=disabled",
        "operation=thing.remove id=THING status=disabled updated_by=someone",
        "operation=thing.update_secret id=THING status=enabled",
    ] {
        let mut client = two.front.client(Hello::of(&thing, "c").five());
        assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);
        let nonsense = [
            "operation=policies.remove subject=THING",
            "operation=thing.remove id=nobody status=disabled",
            "weather=rain",
        ];
        for fields in nonsense {
            two.write(now(), fields);
        }
        let bytes = redis::cmd("XADD")
            .arg(&["mainflux.things", "*", "operation"])
            .arg(&[0xffu8, 0xfe][..])
            .to_owned();
        two.redis.run_command(&bytes);
        times.end(&mut client, || {
            let fields = fields
                .replace("THING", &thing.id)
                .replace("CHANNEL", &channel);
            two.write(now(), &fields);
        });
    }
    times.check();
    // What is old may be outdated: the things service knows that the grant holds.
    let mut client = two.front.client(Hello::of(&thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);
    let before = two.heard();
    let old = now() - Duration::from_secs(60);
    for fields in [
        format!(
            "operation=policies.delete subject={} object={channel}",
            thing.id
        ),
        format!("operation=thing.update_secret id={}", thing.id),
        format!("operation=channel.remove id={channel} status=disabled"),
    ] {
        two.write(old, &fields);
    }
    wait_for("the old news", || {
        (two.heard() == before + 3.0).then_some(())
    });
    client.publish(&topic(&channel), b"still", 0);
    assert_eq!(client.take().payload, b"still");
}

#[test]
fn what_happened_while_redis_was_away_is_heard_later() {
    let mut two = Two::start(&[]);
    let (thing, channel) = two.home.member();
    let (other, _) = two.home.member();
    two.home.grant(&other, &channel, "m_read,m_write");
    let mut client = two.front.client(Hello::of(&thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);
    let mut outlived = two.front.client(Hello::of(&other, "o").five());
    assert_eq!(outlived.subscribe(&[(&topic(&channel), 1)]), [1]);

    two.redis.kill();
    wait_for("the front to notice", || {
        (two.front.counter("rollcall_follow_up", "") == 0.0).then_some(())
    });
    two.home.tell(&["disconnect", &thing.id, &channel]);
    client.expect_silence();
    two.redis.run();
    client.expect_disconnect(0x87);
    outlived.expect_silence();
}

#[test]
fn what_happened_while_the_front_was_away_is_heard_when_it_is_back() {
    let mut two = Two::start(&[]);
    let home = &two.home;
    let (thing, channel) = home.member();
    let kept = home.channel();
    home.grant(&thing, &kept, "m_read,m_write");
    let other = home.thing("other");
    home.grant(&other, &channel, "m_read,m_write");
    home.grant(&other, &kept, "m_write");
    let hello = || Hello::of(&thing, "c").five().lasting();
    let mut client = two.front.client(hello());
    let (one, two_) = (topic(&channel), topic(&kept));
    assert_eq!(client.subscribe(&[(&one, 1), (&two_, 1)]), [1, 1]);
    let mut from = two.front.client(Hello::of(&other, "from").five());
    client.reset();
    wait_for("one to be gone", || {
        (two.front.json(&["presence"])["total"] == 1).then_some(())
    });
    assert_eq!(from.publish(&one, b"not any more", 1), 0);
    assert_eq!(from.publish(&two_, b"still", 1), 0);
    // Somebody else's will waits for its delay, which ends soon after the front is back.
    let mut mortal = Hello::of(&other, "mortal").five().lasting();
    mortal = mortal.will(&one, b"will", 1, false);
    let properties = &mut mortal.will.as_mut().expect("a will").properties;
    properties.extend([0x18, 0, 0, 0, 3]);
    two.front.client(mortal).reset();
    wait_for("another to be gone", || {
        (two.front.json(&["presence"])["total"] == 1).then_some(())
    });
    drop(from);

    two.front.end("TERM");
    two.home.tell(&["disconnect", &thing.id, &channel]);
    // Old news: nobody can be asked about somebody who is away.
    let old = SystemTime::now() - Duration::from_secs(60);
    let fields = format!(
        "operation=policies.delete subject={} object={channel}",
        other.id
    );
    two.write(old, &fields);
    two.front.run();
    let denied = || two.front.counter("rollcall_mqtt_wills_denied_total", "");
    wait_for("the will to be denied", || (denied() == 1.0).then_some(()));
    let (mut client, connack) = Client::connect(two.front.mqtt(), hello());
    assert!(connack.present);
    assert_eq!(client.take().payload, b"still");
    client.expect_silence();
    assert_eq!(client.subscribe(&[(&one, 1)]), [0x87]);
}

#[test]
fn who_cannot_be_sure_takes_away_in_the_end() {
    let two = Two::start(&[("ROLLCALL_ACCESS__RECHECK_TIMEOUT", "1s")]);
    let (thing, channel) = two.home.member();
    let mut client = two.front.client(Hello::of(&thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);
    let Two { home, front, redis } = two;
    drop(home);
    let two = Two {
        home: World::prepared(&[]),
        front,
        redis,
    };
    let old = SystemTime::now() - Duration::from_secs(60);
    let fields = format!(
        "operation=policies.delete subject={} object={channel}",
        thing.id
    );
    two.write(old, &fields);
    client.expect_disconnect(0x87);
    assert!(two.front.counter("rollcall_mqtt_doubts_expired_total", "") >= 1.0);
}

#[test]
fn an_answer_from_before_a_revocation_is_asked_for_again() {
    let two = Two::start(&[("ROLLCALL_THINGS__TIMEOUT", "30s")]);
    let (home, front) = (&two.home, &two.front);
    let (thing, channel) = home.member();
    let mut client = front.client(Hello::of(&thing, "c").five());
    let asked = || front.counter("rollcall_mqtt_questions_total", "");
    let before = asked();
    let topic = topic(&channel);
    home.signal("STOP");
    client.send(&crate::client::subscribe(true, 7, &[(&topic, 1)]));
    wait_for("the question", || (asked() == before + 1.0).then_some(()));
    let heard = two.heard();
    let fields = format!(
        "operation=policies.delete subject={} object={channel}",
        thing.id
    );
    two.write(SystemTime::now(), &fields);
    wait_for("the news", || (two.heard() == heard + 1.0).then_some(()));
    home.signal("CONT");
    let suback = client.receive();
    assert_eq!((suback.first, suback.body.last()), (0x90, Some(&1)));
    assert_eq!(asked(), before + 2.0);
}

#[test]
fn without_a_redis_it_counts_when_answers_are_old() {
    let home = World::start();
    let (thing, channel) = home.member();
    let kept = home.channel();
    home.grant(&thing, &kept, "m_read,m_write");
    let authority = format!("http://{}", home.grpc());
    let front = World::with(&[
        ("ROLLCALL_THINGS__AUTHORITY", &authority),
        ("ROLLCALL_ACCESS__TTL", "1s"),
        ("ROLLCALL_ACCESS__RECHECK_TIMEOUT", "1s"),
    ]);
    let mut client = front.client(Hello::of(&thing, "c").five());
    let (one, two) = (topic(&channel), topic(&kept));
    assert_eq!(client.subscribe(&[(&one, 1), (&two, 1)]), [1, 1]);
    home.tell(&["disconnect", &thing.id, &channel]);
    wait_for("the subscription to go", || {
        (front.counter("rollcall_mqtt_subscriptions_revoked_total", "") == 1.0).then_some(())
    });
    client.publish(&two, b"kept", 0);
    assert_eq!(client.take().payload, b"kept");

    // That nobody answers is no reason to take anything away.
    let asked = || front.counter("rollcall_mqtt_questions_total", "");
    home.signal("STOP");
    let before = asked();
    wait_for("more questions", || (asked() >= before + 6.0).then_some(()));
    home.signal("CONT");
    client.expect_silence();
    assert_eq!(front.counter("rollcall_mqtt_doubts_expired_total", ""), 0.0);
    home.tell(&["things", "disable", &thing.id]);
    client.expect_disconnect(0x87);
}

#[test]
fn a_front_follows_only_if_it_is_to() {
    let redis = RedisServer::start();
    let url = redis.url();
    let world = World::with(&[
        ("ROLLCALL_REDIS__URL", &url),
        ("ROLLCALL_ACCESS__FOLLOW", "false"),
    ]);
    assert!(!world.http("/metrics").1.contains("rollcall_follow_up"));
    // One that is its own authority hears itself, which changes nothing.
    let world = World::with(&[
        ("ROLLCALL_REDIS__URL", &url),
        ("ROLLCALL_INSTANCE", "front-2"),
    ]);
    let (thing, channel) = world.member();
    world.tell(&["disconnect", &thing.id, &channel]);
    world.grant(&thing, &channel, "m_read,m_write");
    let mut client = world.client(Hello::of(&thing, "c").five());
    assert_eq!(client.subscribe(&[(&topic(&channel), 1)]), [1]);
    wait_for("its own events", || {
        (world.counter("rollcall_follow_events_total", "revocation") >= 1.0).then_some(())
    });
    client.publish(&topic(&channel), b"still", 0);
    assert_eq!(client.take().payload, b"still");
}
