//! Who may do what, as a table.

use super::*;
use crate::groups::{Details, Direction, PolicyFilter};

impl House {
    async fn attempt(&self, caller: &Caller, operation: &str) -> &'static str {
        let Self {
            things,
            thing,
            channel,
            ..
        } = self;
        let (thing, channel) = (*thing, *channel);
        let (filter, query, page) = (
            ThingFilter::default(),
            ChannelQuery::default(),
            Page::default(),
        );
        let subject = [Subject::Thing(thing)];
        let result = match operation {
            "view" => things.view(caller, thing).await.map(|_| ()),
            "update" => {
                let name = Some("lamp".to_owned());
                things.update(caller, thing, name, None).await.map(|_| ())
            }
            "tags" => things.update_tags(caller, thing, vec![]).await.map(|_| ()),
            "key" => things.update_key(caller, thing, None).await.map(|_| ()),
            "owner" => {
                let to = caller.user;
                things.update_owner(caller, thing, to).await.map(|_| ())
            }
            "disable" => {
                let status = Status::Disabled;
                things.set_status(caller, thing, status).await.map(|_| ())
            }
            "channels" => {
                let listed = things.list_channels_by_thing(caller, thing, &query, page);
                listed.await.map(|_| ())
            }
            "channel view" => things.view_channel(caller, channel).await.map(|_| ()),
            "channel update" => {
                let details = Details::default();
                let updated = things.update_channel(caller, channel, &details);
                updated.await.map(|_| ())
            }
            "channel disable" => {
                let disabled = things.set_channel_status(caller, channel, Status::Disabled);
                disabled.await.map(|_| ())
            }
            "channel things" => {
                let listed = things.list_by_channel(caller, channel, &filter, page);
                listed.await.map(|_| ())
            }
            "channel children" => {
                let down = Direction::Children;
                let listed =
                    things.list_related_channels(caller, channel, down, None, &query, page);
                listed.await.map(|_| ())
            }
            "connect" => self.connect(caller, subject[0], "m_read").await.map(|_| ()),
            "change" => {
                let less = allowed("m_read");
                let changed = things.change_policy(caller, subject[0], channel, less);
                changed.await.map(|_| ())
            }
            "disconnect" => things.disconnect(caller, &subject, &[channel]).await,
            other => panic!("no operation {other}"),
        };
        match result {
            Ok(()) => "yes",
            Err(Refusal::NotFound(_)) => "unknown",
            Err(Refusal::Denied) => "denied",
            Err(refusal) => panic!("{operation}: {refusal}"),
        }
    }
}

const OPERATIONS: [&str; 15] = [
    "view",
    "update",
    "tags",
    "key",
    "owner",
    "disable",
    "channels",
    "channel view",
    "channel update",
    "channel disable",
    "channel things",
    "channel children",
    "connect",
    "change",
    "disconnect",
];

#[tokio::test]
async fn owners_and_administrators_may_do_everything_strangers_nothing() {
    for operation in OPERATIONS {
        for (caller, expected) in [(OWNER, "yes"), (ADMIN, "yes"), (STRANGER, "unknown")] {
            let house = house("").await;
            let before = house.events.all().len();
            let answer = house.attempt(&caller, operation).await;
            assert_eq!(answer, expected, "{operation} by {caller:?}");
            // One event for what is done, none for what is refused.
            let told = house.events.all().len() - before;
            assert_eq!(told, usize::from(expected == "yes"), "{operation}");
            let heard = house.heard.0.lock().expect("lock").len();
            assert!(expected == "yes" || heard == 0, "{operation}");
        }
    }
}

#[tokio::test]
async fn others_may_do_what_is_shared_with_them() {
    for (shared, may) in [
        ("m_read,m_write", &[][..]),
        (
            "g_list",
            &["channel view", "channel things", "channel children"],
        ),
        (
            "g_update",
            &[
                "channel view",
                "channel things",
                "channel children",
                "channel update",
            ],
        ),
        (
            "g_delete",
            &[
                "channel view",
                "channel things",
                "channel children",
                "channel disable",
            ],
        ),
        (
            "g_add",
            &["channel view", "channel things", "channel children"],
        ),
        (
            "c_list",
            &[
                "view",
                "channels",
                "channel view",
                "channel things",
                "channel children",
            ],
        ),
        (
            "c_update",
            &[
                "view",
                "channels",
                "channel view",
                "channel things",
                "channel children",
                "update",
                "tags",
                "key",
                "owner",
            ],
        ),
        (
            "c_delete",
            &[
                "view",
                "channels",
                "channel view",
                "channel things",
                "channel children",
                "disable",
            ],
        ),
        (
            "c_share,g_add,m_read",
            &[
                "view",
                "channels",
                "channel view",
                "channel things",
                "channel children",
                "connect",
            ],
        ),
        (
            // Not what one may not do oneself.
            "c_share,g_add,m_write",
            &[
                "view",
                "channels",
                "channel view",
                "channel things",
                "channel children",
            ],
        ),
    ] {
        for operation in OPERATIONS {
            let house = house(shared).await;
            let answer = house.attempt(&SHARER, operation).await;
            assert_eq!(
                answer == "yes",
                may.contains(&operation),
                "{operation} with {shared}: {answer}"
            );
            // What is seen may be refused; what is not, is not there.
            if answer == "denied" {
                assert!(may.contains(&"view") || may.contains(&"channel view"));
            }
        }
    }
}

#[tokio::test]
async fn only_the_owner_sees_the_key() {
    let house = house("c_list,c_update").await;
    for (caller, sees) in [(OWNER, true), (ADMIN, true), (SHARER, false)] {
        let shown = house.things.view(&caller, house.thing).await.expect("seen");
        assert_eq!(shown.key.is_some(), sees);
        if let Some(key) = shown.key {
            assert!(key.matches(house.key.expose()));
        }
    }
}

#[tokio::test]
async fn users_are_shared_with_by_who_may_share_them() {
    let house = house("").await;
    let (sharer, stranger) = (Subject::User(SHARER.user), Subject::User(STRANGER.user));
    house.connect(&OWNER, sharer, "c_list").await.expect("may");
    let denied = house.connect(&OWNER, stranger, "c_list").await;
    assert!(matches!(denied, Err(Refusal::Denied)));
    house
        .connect(&ADMIN, stranger, "c_list")
        .await
        .expect("may");
    // Nothing of a thing was taken away.
    assert!(house.heard.0.lock().expect("lock").is_empty());
    let list = async |caller: &Caller, owner| {
        let filter = PolicyFilter {
            owner,
            ..PolicyFilter::default()
        };
        let listed = house.things.list_policies(caller, filter, Page::default());
        listed.await.map(|listing| listing.total)
    };
    assert_eq!(list(&OWNER, None).await.expect("own"), 2);
    assert_eq!(list(&ADMIN, None).await.expect("all"), 3);
    assert_eq!(list(&ADMIN, Some(ADMIN.user)).await.expect("one"), 1);
    assert_eq!(list(&STRANGER, None).await.expect("none"), 0);
    let others = list(&STRANGER, Some(OWNER.user)).await;
    assert!(matches!(others, Err(Refusal::Denied)));
    // Whom a policy names by an id alone.
    let id = |user: UserId| ThingId::from_bytes(*user.as_bytes());
    let subject = house
        .things
        .subject_on(house.channel, id(SHARER.user))
        .await;
    assert_eq!(subject.expect("found"), sharer);
    let subject = house.things.subject_on(house.channel, house.thing).await;
    assert_eq!(subject.expect("found"), Subject::Thing(house.thing));
}
