use std::time::Instant;

use proptest::prelude::*;
use rollcall_domain::presence::Protocol;

use super::*;

fn message(topic: u8) -> Arc<Message> {
    let frame = [0x30, 3, 0, 1, topic];
    let (protocol, qos) = (Protocol::Mqtt311, QoS::AtLeastOnce);
    Arc::new(Message::keep(&frame, protocol, qos, false, Instant::now()))
}

fn flight_of(topic: u8, qos: QoS) -> Flight {
    Flight {
        qos,
        retain: false,
        released: false,
        sent: true,
        message: Some(message(topic)),
        number: None,
        via: None,
    }
}

fn flight(qos: QoS) -> Flight {
    flight_of(b'a', qos)
}

#[test]
fn what_is_forgotten_is_not_sent_again_and_keeps_its_place_until_then() {
    let mut window = Window::new();
    window.resume(3, usize::MAX);
    let is_secret = |message: &Message| message.publish().topic == "s";
    let ids = [b's', b'a', b's'].map(|it| window.send(flight_of(it, QoS::ExactlyOnce)).0);
    for topic in *b"sasb" {
        window.enqueue(Queued {
            message: message(topic),
            qos: QoS::AtLeastOnce,
            retain: false,
            via: None,
        });
    }
    // One is past being sent: only its release is.
    window.acknowledge(AckKind::PubRec, ids[2], false);
    assert_eq!(window.forget(is_secret), 3);
    assert_eq!(
        (window.queued(), window.queued_bytes()),
        (2, 2 * message(b'a').len())
    );
    // The client may still acknowledge what it has got, and has no room before.
    assert!(window.dequeue().is_none());
    window.resume(3, usize::MAX);
    let mut again = Vec::new();
    while let Some((id, flight)) = window.resend() {
        again.push((id, flight.released));
    }
    assert_eq!(again, [(ids[1], false), (ids[2], true)]);
    // Not sent again yet on this connection: it is gone at once.
    window.resume(0, usize::MAX);
    assert_eq!(window.forget(|message| message.publish().topic == "a"), 2);
    window.resume(3, usize::MAX);
    assert_eq!(window.resend().map(|(id, _)| id), Some(ids[2]));
    assert!(window.resend().is_none());
}

#[test]
fn what_is_not_acknowledged_takes_no_more_than_so_many_bytes() {
    let mut window = Window::new();
    let of_one = message(b'a').len();
    window.resume(10, 2 * of_one);
    let ids = [1, 2].map(|_| {
        assert!(window.is_open());
        window.send(flight(QoS::ExactlyOnce)).0
    });
    assert!(!window.is_open());
    window.enqueue(Queued {
        message: message(b'b'),
        qos: QoS::AtLeastOnce,
        retain: false,
        via: None,
    });
    assert!(window.dequeue().is_none());
    assert_eq!(window.bytes(), 3 * of_one);
    // The client has it: its content is no longer needed.
    window.acknowledge(AckKind::PubRec, ids[0], false);
    assert!(window.dequeue().is_some());
    assert_eq!(window.bytes(), of_one);
    // A new connection that takes less gets again what was under way, whatever it weighs.
    window.resume(10, 1);
    assert!(window.resend().is_some() && window.resend().is_some());
    window.acknowledge(AckKind::PubComp, ids[0], false);
    window.acknowledge(AckKind::PubRec, ids[1], true);
    assert_eq!(window.bytes(), 0);
    assert!(window.is_open());
}

#[test]
fn exactly_once_takes_two_steps() {
    let mut window = Window::new();
    window.resume(10, usize::MAX);
    let (id, _) = window.send(flight(QoS::ExactlyOnce));
    assert_eq!(
        window.acknowledge(AckKind::PubComp, id, false),
        Acked::Wrong
    );
    assert_eq!(window.acknowledge(AckKind::PubAck, id, false), Acked::Wrong);
    assert_eq!(
        window.acknowledge(AckKind::PubRec, id, false),
        Acked::Release(None)
    );
    assert_eq!(
        window.acknowledge(AckKind::PubRec, id, false),
        Acked::Release(None)
    );
    assert_eq!(window.acknowledge(AckKind::PubComp, id, false), Acked::Done);
    assert_eq!(
        window.acknowledge(AckKind::PubComp, id, false),
        Acked::Unknown
    );
}

#[test]
fn what_an_earlier_run_left_keeps_its_identifiers_and_its_order() {
    // Beyond the last identifier the first one follows.
    let places = [65_534, 65_536, 65_539, 65_540];
    let sent = places.map(|place| {
        let mut flight = flight(QoS::ExactlyOnce);
        flight.sent = false;
        flight.released = place == 65_536 || place == 65_540;
        (place, flight)
    });
    let released = [65_540, 65_536].into_iter();
    let waits = Queued {
        message: message(b'q'),
        qos: QoS::AtLeastOnce,
        retain: false,
        via: None,
    };
    let mut window = Window::restore(sent.to_vec(), released, vec![waits]);
    window.resume(9, usize::MAX);
    let mut again = Vec::new();
    while let Some((id, flight)) = window.resend() {
        again.push((id, flight.released));
    }
    assert_eq!(again, [(65_534, false), (5, true), (4, false), (1, true)]);
    for (id, released) in again {
        if !released {
            window.acknowledge(AckKind::PubRec, id, false);
        }
        let acked = window.acknowledge(AckKind::PubComp, id, false);
        assert_eq!(acked, Acked::Done);
    }
    assert!(window.dequeue().is_some());
    assert_eq!(window.send(flight(QoS::AtLeastOnce)).0, 6);
}

#[test]
fn releases_take_the_turns_of_each_other() {
    let mut window = Window::new();
    window.resume(9, usize::MAX);
    let ids = [1, 2, 3, 4].map(|_| window.send(flight(QoS::ExactlyOnce)).0);
    for n in [3, 0, 2] {
        let acked = window.acknowledge(AckKind::PubRec, ids[n], false);
        assert_eq!(acked, Acked::Release(None));
    }
    window.resume(1, usize::MAX);
    let mut again = Vec::new();
    while let Some((id, flight)) = window.resend() {
        let kind = match flight.released {
            true => AckKind::PubComp,
            false => AckKind::PubAck,
        };
        again.push(id);
        assert!(window.is_behind() == (again.len() < 4));
        if kind == AckKind::PubComp {
            assert_eq!(window.acknowledge(kind, id, false), Acked::Done);
        } else {
            window.abandon(id);
        }
    }
    assert_eq!(again, [ids[3], ids[1], ids[0], ids[2]]);
    assert!(window.is_open());
}

proptest! {
    #[test]
    fn identifiers_in_flight_are_unique_and_never_zero(
        picks in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..2_000),
        first in 1u64..200_000,
    ) {
        let mut window = Window::new();
        window.resume(40, usize::MAX);
        window.first = first;
        let mut open: Vec<u16> = Vec::new();
        for (send, pick) in picks {
            if send && window.is_open() {
                let (id, _) = window.send(flight(QoS::AtLeastOnce));
                prop_assert!(id != 0 && !open.contains(&id));
                open.push(id);
            } else if !open.is_empty() {
                let id = open.remove(pick.index(open.len()));
                prop_assert_eq!(window.acknowledge(AckKind::PubAck, id, false), Acked::Done);
            }
            prop_assert!(window.is_open() == (open.len() < 40));
        }
        // A new connection with less room gets the same ones again, in order, as room comes.
        window.resume(7, usize::MAX);
        let mut again = Vec::new();
        while !open.is_empty() {
            while let Some((id, _)) = window.resend() {
                again.push(id);
            }
            prop_assert!(again.len() <= 7);
            let id = again.remove(0);
            prop_assert_eq!(id, open.remove(0));
            prop_assert_eq!(window.acknowledge(AckKind::PubAck, id, false), Acked::Done);
        }
    }
}
