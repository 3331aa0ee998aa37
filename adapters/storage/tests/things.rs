//! The rules of things, kept in a real database.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rollcall_domain::access::{Action, Authority, AuthorityError, Revocations, Revoked};
use rollcall_domain::caller::{Caller, Identities, Question};
use rollcall_domain::entity::Metadata;
use rollcall_domain::event::Stream;
use rollcall_domain::groups::Subject;
use rollcall_domain::identity::{ChannelId, KeyHasher, Secret, ThingId, Timestamp, UserId};
use rollcall_domain::listing::Visibility;
use rollcall_domain::policies;
use rollcall_domain::refusal::Refusal;
use rollcall_domain::things::{
    Actions, Created, DEFAULT_ACTIONS, NewChannel, NewThing, Page, Status, Stores, ThingFilter,
    Things,
};
use rollcall_domain::users::{User, UserStore};
use rollcall_domain::vault::{KeyKeeper, Vault};
use rollcall_storage::database::Database;
use tempfile::TempDir;

/// Remembers what was revoked.
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

struct House {
    _folder: TempDir,
    database: Database,
    things: Things,
    heard: Arc<Heard>,
    owner: Caller,
}

const WRITE: policies::Action = policies::Action::MessageWrite;

fn both() -> policies::Actions {
    DEFAULT_ACTIONS.into_iter().collect()
}

/// Users who know of nobody else.
struct Strangers;

#[async_trait]
impl Identities for Strangers {
    async fn caller(&self, _: &Secret) -> Result<Caller, Refusal> {
        Err(Refusal::Unauthenticated)
    }

    async fn authorize(&self, _: Question<'_>) -> Result<(), Refusal> {
        Err(Refusal::Denied)
    }
}

fn stranger() -> Caller {
    Caller {
        user: UserId::generate(),
        admin: false,
    }
}

const ALL: Page = Page {
    offset: 0,
    limit: 100,
};

async fn house() -> House {
    let folder = tempfile::tempdir().expect("a folder");
    let database = Database::open(&folder.path().join("rollcall.db"))
        .await
        .expect("opens");
    let owner = UserId::generate();
    let user = User {
        id: owner,
        name: "admin".into(),
        tags: Vec::new(),
        owner: None,
        identity: "admin@example.com".into(),
        metadata: Metadata::new(),
        status: Status::Enabled,
        admin: true,
        created_at: Timestamp::now(),
        update: None,
    };
    database.add_user(&user, "", vec![]).await.expect("made");
    let heard = Arc::new(Heard::default());
    let stores = Stores::of(Arc::new(database.clone()));
    let revocations = Arc::clone(&heard) as Arc<dyn Revocations>;
    let keys = KeyKeeper::new(KeyHasher::new(&[7; 32]), Vault::new(&[[8; 32]]));
    let things = Things::new(stores, Arc::new(Strangers), revocations, keys);
    House {
        _folder: folder,
        database,
        things,
        heard,
        owner: Caller {
            user: owner,
            admin: false,
        },
    }
}

impl House {
    async fn thing(&self, name: &str) -> Created {
        let new = NewThing {
            name: name.into(),
            ..NewThing::default()
        };
        self.things
            .create(&self.owner, vec![new])
            .await
            .expect("made")
            .remove(0)
    }

    async fn channel(&self) -> ChannelId {
        let new = vec![NewChannel {
            name: ChannelId::generate().to_string(),
            ..NewChannel::default()
        }];
        self.things
            .create_channels(&self.owner, new)
            .await
            .expect("made")[0]
            .id
    }

    async fn may(&self, key: &Secret, channel: ChannelId, action: Action) -> bool {
        match self.things.authorize(key, channel, action).await {
            Ok(_) => true,
            Err(AuthorityError::Denied) => false,
            Err(error) => panic!("{error}"),
        }
    }

    async fn operations(&self) -> Vec<String> {
        let log = self.database.log(Stream::Things).expect("a log");
        let entries = log.read(0, 1_000).await.expect("read");
        let value = |entry: &rollcall_domain::event::Entry| {
            let field = entry.fields.iter().find(|(name, _)| name == "operation");
            field.expect("an operation").1.clone().into_owned()
        };
        entries.iter().map(value).collect()
    }
}

#[tokio::test]
async fn a_key_opens_what_was_granted_to_its_thing_and_nothing_else() {
    let house = house().await;
    let (lamp, other) = (house.thing("lamp").await, house.thing("other").await);
    let (channel, elsewhere) = (house.channel().await, house.channel().await);
    assert_eq!(
        house.things.identify(&lamp.key).await.expect("known"),
        lamp.thing.id
    );
    let unknown = house.things.identify(&Secret::new("unknown key")).await;
    assert!(matches!(unknown, Err(AuthorityError::Denied)));
    assert!(!house.may(&lamp.key, channel, Action::Read).await);

    let things = [Subject::Thing(lamp.thing.id)];
    house
        .things
        .connect(&house.owner, &things, &[channel], both())
        .await
        .expect("connected");
    assert!(house.may(&lamp.key, channel, Action::Read).await);
    assert!(!house.may(&lamp.key, elsewhere, Action::Read).await);
    assert!(!house.may(&other.key, channel, Action::Read).await);

    let write = policies::Actions::default().with(WRITE);
    house
        .things
        .connect(&house.owner, &things, &[channel], write)
        .await
        .expect("connected");
    assert!(!house.may(&lamp.key, channel, Action::Read).await);
    assert!(house.may(&lamp.key, channel, Action::Write).await);
    // To be given more takes nothing away.
    house
        .things
        .connect(&house.owner, &things, &[channel], both())
        .await
        .expect("connected");
    house
        .things
        .disconnect(&house.owner, &things, &[channel])
        .await
        .expect("disconnected");
    assert!(!house.may(&lamp.key, channel, Action::Write).await);
    let grant = |left| Revoked::Grant {
        thing: lamp.thing.id,
        channel,
        left,
    };
    let write = Actions {
        read: false,
        write: true,
    };
    assert_eq!(
        *house.heard.0.lock().expect("lock"),
        [grant(write), grant(Actions::NONE)]
    );
    assert_eq!(
        house.operations().await[4..],
        [
            "thing.identify",
            "policies.add",
            "policies.authorize",
            "policies.add",
            "policies.authorize",
            "policies.add",
            "policies.delete"
        ]
    );
}

#[tokio::test]
async fn a_new_key_and_a_disabled_thing_shut_the_old_one_out() {
    let house = house().await;
    let lamp = house.thing("lamp").await;
    let id = lamp.thing.id;
    let rotated = house
        .things
        .update_key(&house.owner, id, None)
        .await
        .expect("rotated");
    assert!(house.things.identify(&lamp.key).await.is_err());
    assert_eq!(
        house.things.identify(&rotated.key).await.expect("known"),
        id
    );
    let disabled = house
        .things
        .set_status(&house.owner, id, Status::Disabled)
        .await;
    assert_eq!(disabled.expect("disabled").status, Status::Disabled);
    assert!(house.things.identify(&rotated.key).await.is_err());
    let again = house
        .things
        .set_status(&house.owner, id, Status::Disabled)
        .await;
    assert!(matches!(again, Err(Refusal::Already(_))));
    house
        .things
        .set_status(&house.owner, id, Status::Enabled)
        .await
        .expect("enabled");
    assert_eq!(
        house.things.identify(&rotated.key).await.expect("known"),
        id
    );
    assert_eq!(
        *house.heard.0.lock().expect("lock"),
        [Revoked::Key(id), Revoked::Thing(id)]
    );
}

#[tokio::test]
async fn an_owner_is_shown_the_key_that_counts_and_nobody_else_is() {
    let house = house().await;
    let lamp = house.thing("lamp").await;
    let id = lamp.thing.id;
    let shown = house.things.view(&house.owner, id).await.expect("shown");
    assert!(shown.key.expect("kept").matches(lamp.key.expose()));
    assert_eq!(shown.thing, lamp.thing);
    let rotated = house.things.update_key(&house.owner, id, None).await;
    let rotated = rotated.expect("rotated");
    let shown = house.things.view(&house.owner, id).await.expect("shown");
    assert!(shown.key.expect("kept").matches(rotated.key.expose()));
    let stranger = house.things.view(&stranger(), id).await;
    assert!(matches!(stranger, Err(Refusal::NotFound(_))));
    assert_eq!(
        house.operations().await[1..],
        ["thing.view", "thing.update_secret", "thing.view"]
    );
}

#[tokio::test]
async fn what_cannot_be_done_changes_nothing() {
    let house = house().await;
    let lamp = house.thing("lamp").await;
    let channel = house.channel().await;
    let before = house.operations().await;
    let key = |text: &str| NewThing {
        key: Some(Secret::new(text)),
        ..NewThing::default()
    };
    let taken = vec![key("a key of its own"), key(lamp.key.expose())];
    let failed = house.things.create(&house.owner, taken).await;
    assert!(matches!(failed, Err(Refusal::Taken(_))), "all or none");
    for new in [
        key("short"),
        key("with\nbreak"),
        NewThing {
            name: "x".repeat(2_000),
            ..key("12345678")
        },
    ] {
        let failed = house.things.create(&house.owner, vec![new]).await;
        assert!(matches!(failed, Err(Refusal::Invalid { .. })));
    }
    assert!(matches!(
        house.things.create(&house.owner, Vec::new()).await,
        Err(Refusal::Invalid { .. })
    ));
    let stranger = stranger();
    let (id, things) = (lamp.thing.id, &house.things);
    assert!(matches!(
        things.update_key(&stranger, id, None).await,
        Err(Refusal::NotFound("thing"))
    ));
    let list = async |caller: &Caller, page| {
        let (filter, visibility) = (ThingFilter::default(), Visibility::All);
        things.list(caller, &filter, visibility, page).await
    };
    let missing = [id, ThingId::generate()].map(Subject::Thing);
    let failed = things
        .connect(&house.owner, &missing, &[channel], both())
        .await;
    assert!(matches!(failed, Err(Refusal::NotFound("thing"))));
    let failed = things
        .connect(
            &house.owner,
            &[Subject::Thing(id)],
            &[ChannelId::generate()],
            both(),
        )
        .await;
    assert!(matches!(failed, Err(Refusal::NotFound("channel"))));
    let nothing = policies::Actions::default();
    assert!(
        things
            .connect(&house.owner, &[Subject::Thing(id)], &[channel], nothing)
            .await
            .is_err()
    );
    assert!(
        things
            .disconnect(&house.owner, &[Subject::Thing(id)], &[channel])
            .await
            .is_err()
    );
    for limit in [0, 1_001] {
        assert!(list(&house.owner, Page { offset: 0, limit }).await.is_err());
    }
    assert_eq!(house.operations().await, before);
    assert_eq!(list(&house.owner, ALL).await.expect("a list").total, 1);
    assert_eq!(list(&stranger, ALL).await.expect("a list").total, 0);
}

#[tokio::test]
async fn events_of_a_service_are_numbered_in_time_and_survive_a_restart() {
    let house = house().await;
    for n in 0..20 {
        house.thing(&format!("thing {n}")).await;
    }
    let log = house.database.log(Stream::Things).expect("a log");
    let (producer, last) = (log.producer(), log.last());
    assert_eq!(last, 20);
    log.wait(19).await;
    log.set_relayed(12).await.expect("marked");
    let path = house._folder.path().join("rollcall.db");
    let House {
        database,
        _folder,
        things,
        ..
    } = house;
    drop((log, things));
    database.close().await;
    drop(database);
    let database = Database::open(&path).await.expect("opens again");
    let log = database.log(Stream::Things).expect("a log");
    assert_eq!(
        (log.producer(), log.last(), log.relayed()),
        (producer, 20, 12)
    );
    let entries = log.read(12, 5).await.expect("read");
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.position)
            .collect::<Vec<_>>(),
        [13, 14, 15, 16, 17]
    );
    let at = |n: usize| {
        let field = entries[n]
            .fields
            .iter()
            .find(|(name, _)| name == "occurred_at");
        field
            .expect("a time")
            .1
            .parse::<u64>()
            .expect("nanoseconds")
    };
    assert!(at(0) < at(1) && at(3) < at(4));
    assert!(database.log(Stream::Mqtt).is_none());
}
