//! Who may do what, as a table, and what is revoked and announced.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::access::{Authority, Revoked};
use crate::caller::Question;
use crate::groups::{Details, Direction, PolicyFilter};
use crate::identity::{KeyHasher, Secret, UserId};
use crate::listing::Visibility;
use crate::memory::{self, Events, Groups};
use crate::policies::Actions as Allowed;
use crate::vault::Vault;

/// Users among whom [`SHARER`] may be shared by [`OWNER`].
struct Users;

#[async_trait]
impl Identities for Users {
    async fn caller(&self, _: &Secret) -> Result<Caller, Refusal> {
        Err(Refusal::Unauthenticated)
    }

    async fn authorize(&self, question: Question<'_>) -> Result<(), Refusal> {
        assert_eq!(
            (question.action, question.entity_type),
            ("c_share", "client")
        );
        let is_owners = question.subject.matches(&OWNER.user.to_string());
        match is_owners && question.object == SHARER.user.to_string() {
            true => Ok(()),
            false => Err(Refusal::Denied),
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Revoked>>);

impl Revocations for Heard {
    fn revoked(&self, what: &[Revoked]) {
        self.0.lock().expect("lock").extend_from_slice(what);
    }

    fn doubted(&self, what: &[Revoked]) {
        panic!("nothing is in doubt here: {what:?}");
    }
}

const fn caller(number: u8, admin: bool) -> Caller {
    Caller {
        user: UserId::from_bytes([number; 16]),
        admin,
    }
}

const OWNER: Caller = caller(1, false);
const SHARER: Caller = caller(2, false);
const STRANGER: Caller = caller(3, false);
const ADMIN: Caller = caller(4, true);

struct House {
    things: Things,
    events: Events,
    heard: Arc<Heard>,
    thing: ThingId,
    key: Secret,
    channel: ChannelId,
}

/// A thing and a channel of [`OWNER`], connected; [`SHARER`] may do `shared` on the channel.
async fn house(shared: &str) -> House {
    let events = Events::default();
    let channels = Arc::new(Groups::new(events.clone()));
    let stores = Stores {
        things: Arc::new(memory::Things::new(Arc::clone(&channels), events.clone())),
        channels: channels.clone(),
        policies: channels,
    };
    let heard = Arc::new(Heard::default());
    let keys = KeyKeeper::new(KeyHasher::new(&[7; 32]), Vault::new(&[[8; 32]]));
    let revocations = Arc::clone(&heard) as Arc<dyn Revocations>;
    let things = Things::new(stores, Arc::new(Users), revocations, keys);
    let created = things.create(&OWNER, vec![NewThing::default()]).await;
    let created = created.expect("made").remove(0);
    let new = NewChannel {
        name: "hall".into(),
        ..NewChannel::default()
    };
    let channel = things.create_channels(&OWNER, vec![new]).await;
    let house = House {
        things,
        events,
        heard,
        thing: created.thing.id,
        key: created.key,
        channel: channel.expect("made").remove(0).id,
    };
    let thing = Subject::Thing(house.thing);
    house
        .connect(&OWNER, thing, "m_read,m_write")
        .await
        .expect("connected");
    if !shared.is_empty() {
        let sharer = Subject::User(SHARER.user);
        house.connect(&OWNER, sharer, shared).await.expect("shared");
    }
    house
}

#[tokio::test]
async fn a_key_is_lent_by_its_owner_to_one_for_as_long_as_it_is_his() {
    let House {
        things, thing, key, ..
    } = house("c_list,c_update").await;
    let reads = async |loan: &Secret| match things.lent_key(thing, loan).await {
        Ok(key) => Some(key),
        Err(Refusal::NotFound(_)) => None,
        Err(other) => panic!("{other}"),
    };
    assert!(reads(&Secret::new("")).await.is_none());
    let lent = things.lend_key(&SHARER, thing).await;
    assert!(matches!(lent, Err(Refusal::Denied)));
    let lent = things.lend_key(&STRANGER, thing).await;
    assert!(matches!(lent, Err(Refusal::NotFound(_))));
    let ended = things.end_loan(&SHARER, thing).await;
    assert!(matches!(ended, Err(Refusal::Denied)));

    let first = things.lend_key(&OWNER, thing).await.expect("lent");
    assert!(reads(&first).await.expect("lent").matches(key.expose()));
    let other = things.create(&OWNER, vec![NewThing::default()]).await;
    let other = other.expect("made").remove(0).thing.id;
    assert!(things.lent_key(other, &first).await.is_err());
    // It is of no use where a key is asked for.
    assert!(things.identify(&first).await.is_err());
    let changed = things.update_key(&OWNER, thing, None).await.expect("new");
    let read = reads(&first).await.expect("lent");
    assert!(read.matches(changed.key.expose()));

    let second = things.lend_key(&OWNER, thing).await.expect("lent");
    assert!(reads(&first).await.is_none() && reads(&second).await.is_some());
    let status = |status| things.set_status(&OWNER, thing, status);
    status(Status::Disabled).await.expect("disabled");
    assert!(reads(&second).await.is_none());
    status(Status::Enabled).await.expect("enabled");
    assert!(reads(&second).await.is_some());
    things.end_loan(&OWNER, thing).await.expect("ended");
    things.end_loan(&OWNER, thing).await.expect("no harm");
    assert!(reads(&second).await.is_none());

    let third = things.lend_key(&ADMIN, thing).await.expect("lent");
    assert!(reads(&third).await.is_some());
    let given = things.update_owner(&OWNER, thing, SHARER.user).await;
    given.expect("given");
    assert!(reads(&third).await.is_none());
    assert!(things.lend_key(&SHARER, thing).await.is_ok());
}

fn allowed(names: &str) -> Allowed {
    let actions = names.split(',').map(|it| it.parse::<Action>());
    actions.collect::<Result<_, _>>().expect("actions")
}

impl House {
    async fn connect(
        &self,
        caller: &Caller,
        subject: Subject,
        actions: &str,
    ) -> Result<Vec<Policy>, Refusal> {
        let (subjects, channels) = ([subject], [self.channel]);
        let things = &self.things;
        things
            .connect(caller, &subjects, &channels, allowed(actions))
            .await
    }

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

#[tokio::test]
async fn what_is_taken_away_is_revoked_exactly() {
    let house = house("").await;
    let (thing, channel) = (house.thing, house.channel);
    let (things, subject) = (&house.things, Subject::Thing(thing));
    let grant = |read, write| Revoked::Grant {
        thing,
        channel,
        left: Actions { read, write },
    };
    let heard = || std::mem::take(&mut *house.heard.0.lock().expect("lock"));
    house
        .connect(&OWNER, subject, "m_read,m_write,c_list")
        .await
        .expect("more");
    assert_eq!(heard(), []);
    house
        .connect(&OWNER, subject, "c_list,m_write")
        .await
        .expect("less");
    assert_eq!(heard(), [grant(false, true)]);
    let changed = things.change_policy(&OWNER, subject, channel, allowed("c_list"));
    changed.await.expect("nothing of messages");
    assert_eq!(heard(), [grant(false, false)]);
    things
        .disconnect(&OWNER, &[subject], &[channel])
        .await
        .expect("gone");
    assert_eq!(heard(), [grant(false, false)]);
    things
        .update_key(&OWNER, thing, None)
        .await
        .expect("another");
    assert_eq!(heard(), [Revoked::Key(thing)]);
    things
        .update_owner(&OWNER, thing, STRANGER.user)
        .await
        .expect("given");
    assert_eq!(heard(), []);
    let status = Status::Disabled;
    things
        .set_status(&STRANGER, thing, status)
        .await
        .expect("out");
    assert_eq!(heard(), [Revoked::Thing(thing)]);
    let again = things.set_status(&STRANGER, thing, status).await;
    assert!(matches!(again, Err(Refusal::Already(_))));
    things
        .set_channel_status(&OWNER, channel, status)
        .await
        .expect("closed");
    assert_eq!(heard(), [Revoked::Channel(channel)]);
}

#[tokio::test]
async fn what_fronts_ask_is_announced_if_it_is_granted() {
    let house = house("").await;
    let before = house.events.all().len();
    let things = &house.things;
    let found = things.identify(&house.key).await.expect("known");
    assert_eq!(found, house.thing);
    let (key, channel, read) = (&house.key, house.channel, crate::access::Action::Read);
    things.authorize(key, channel, read).await.expect("may");
    let group = EntityType::Group;
    things
        .authorize_as(key, channel, read, group)
        .await
        .expect("may");
    let wrong = Secret::new("a key of nobody");
    assert!(things.identify(&wrong).await.is_err());
    assert!(things.authorize(&wrong, channel, read).await.is_err());
    let elsewhere = ChannelId::generate();
    assert!(things.authorize(key, elsewhere, read).await.is_err());
    let told: Vec<String> = house.events.all()[before..]
        .iter()
        .map(|event| {
            let words = event
                .fields
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("operation=thing.identify thing_id={}", house.thing),
            format!(
                "operation=policies.authorize entity_type=thing object={channel} actions=m_read"
            ),
            format!(
                "operation=policies.authorize entity_type=group object={channel} actions=m_read"
            ),
        ]
    );
}

#[tokio::test]
async fn what_is_made_has_bounds_and_an_owner() {
    let house = house("").await;
    let things = &house.things;
    let of_another = NewThing {
        owner: Some(OWNER.user),
        ..NewThing::default()
    };
    let denied = things.create(&STRANGER, vec![of_another.clone()]).await;
    assert!(matches!(denied, Err(Refusal::Denied)));
    let made = things.create(&ADMIN, vec![of_another]).await.expect("may");
    assert_eq!(made[0].thing.owner, OWNER.user);
    let given = NewThing {
        id: Some(house.thing),
        ..NewThing::default()
    };
    let taken = things.create(&STRANGER, vec![given]).await;
    assert!(matches!(taken, Err(Refusal::Taken("id"))));
    let none = things.create(&OWNER, vec![]).await;
    let many = things
        .create(&OWNER, vec![NewThing::default(); MAX_BATCH + 1])
        .await;
    for refused in [none, many] {
        assert!(matches!(
            refused,
            Err(Refusal::Invalid {
                field: "things",
                ..
            })
        ));
    }
    let below = |parent| NewChannel {
        name: format!("{parent:?}"),
        parent: Some(parent),
        ..NewChannel::default()
    };
    let hidden = things
        .create_channels(&STRANGER, vec![below(house.channel)])
        .await;
    assert!(matches!(hidden, Err(Refusal::NotFound("channel"))));
    let made = things
        .create_channels(&OWNER, vec![below(house.channel)])
        .await;
    assert_eq!(made.expect("made")[0].parent(), Some(house.channel));
    let subjects = vec![Subject::Thing(house.thing); 101];
    let channels = vec![house.channel; 100];
    let many = things
        .connect(&OWNER, &subjects, &channels, allowed("m_read"))
        .await;
    assert!(matches!(
        many,
        Err(Refusal::Invalid {
            field: "objects",
            ..
        })
    ));
    let page = Page {
        offset: 0,
        limit: 1_001,
    };
    let filter = ThingFilter::default();
    let large = things.list(&OWNER, &filter, Visibility::All, page).await;
    assert!(matches!(
        large,
        Err(Refusal::Invalid { field: "limit", .. })
    ));
}
