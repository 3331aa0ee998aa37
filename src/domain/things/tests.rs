//! What is lent, revoked and announced; and a house, in which `rights` asks who may do what.

mod rights;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::access::{Authority, Revoked};
use crate::caller::Question;
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
