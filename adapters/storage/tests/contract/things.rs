//! What stores of things promise.

use std::sync::Arc;

use rollcall_domain::entity::{Metadata, Status, Update};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{Group, GroupStore, Policy, PolicyStore, Subject};
use rollcall_domain::identity::{ChannelId, KeyHash, ThingId, Timestamp, UserId};
use rollcall_domain::listing::{Listing, Page, StatusFilter, Visibility};
use rollcall_domain::memory::{Events, Groups, Things};
use rollcall_domain::policies::Action;
use rollcall_domain::ports::StoreError;
use rollcall_domain::things::{Actions, Scope, Thing, ThingChange, ThingFilter, ThingStore};
use rollcall_domain::vault::{KeptKey, SealedKey};
use rollcall_storage::database::Database;

/// Things, and the channels they are connected to.
pub(crate) trait Store: Sync {
    fn things(&self) -> &dyn ThingStore;
    fn channels(&self) -> &dyn GroupStore<ChannelId>;
    fn policies(&self) -> &dyn PolicyStore<ChannelId>;
}

impl Store for Database {
    fn things(&self) -> &dyn ThingStore {
        self
    }

    fn channels(&self) -> &dyn GroupStore<ChannelId> {
        self
    }

    fn policies(&self) -> &dyn PolicyStore<ChannelId> {
        self
    }
}

pub(crate) struct Memory {
    things: Things,
    channels: Arc<Groups<ChannelId>>,
}

pub(crate) fn memory() -> Memory {
    let channels = Arc::new(Groups::new(Events::default()));
    Memory {
        things: Things::new(Arc::clone(&channels), Events::default()),
        channels,
    }
}

impl Store for Memory {
    fn things(&self) -> &dyn ThingStore {
        &self.things
    }

    fn channels(&self) -> &dyn GroupStore<ChannelId> {
        &*self.channels
    }

    fn policies(&self) -> &dyn PolicyStore<ChannelId> {
        &*self.channels
    }
}

pub(crate) const ALL: Page = Page {
    offset: 0,
    limit: 1_000,
};

pub(crate) fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(crate) fn key(number: u8) -> KeptKey {
    KeptKey {
        hash: KeyHash::from_bytes([number; 32]),
        sealed: Some(SealedKey::from_bytes(vec![number])),
    }
}

pub(crate) fn metadata(text: &str) -> Metadata {
    serde_json::from_str(text).expect("an object")
}

/// Made at `at`. Ids run against the order of making.
pub(crate) fn thing(owner: u8, at: u8) -> Thing {
    Thing {
        id: ThingId::from_bytes([255 - at; 16]),
        owner: user(owner),
        name: String::new(),
        tags: Vec::new(),
        identity: String::new(),
        metadata: Metadata::new(),
        status: Status::Enabled,
        created_at: Timestamp(u64::from(at)),
        update: None,
    }
}

pub(crate) fn by(number: u8) -> Update {
    Update {
        at: Timestamp(1_000 + u64::from(number)),
        by: user(number),
    }
}

pub(crate) fn told(_: &Thing) -> Event {
    Event::operation(Stream::Things, "thing.update", [])
}

pub(crate) fn policy_told(_: &Policy<ChannelId>) -> Event {
    Event::operation(Stream::Things, "policies.add", [])
}

pub(crate) async fn keep(store: &dyn Store, things: &[Thing]) {
    let rows: Vec<(Thing, KeptKey)> = things
        .iter()
        .map(|thing| (thing.clone(), key(thing.id.as_bytes()[0])))
        .collect();
    store
        .things()
        .add_things(&rows, vec![])
        .await
        .expect("kept");
}

async fn channel(store: &dyn Store, number: u8, status: Status) -> ChannelId {
    let channel = Group {
        id: ChannelId::from_bytes([number; 16]),
        owner: user(100),
        ancestors: Vec::new(),
        name: format!("channel {number}"),
        description: String::new(),
        metadata: Metadata::new(),
        status,
        created_at: Timestamp(u64::from(number)),
        update: None,
    };
    let id = channel.id;
    let kept = store.channels().add_groups(&[channel], vec![]).await;
    kept.expect("kept");
    id
}

async fn allow(store: &dyn Store, subject: Subject, object: ChannelId, actions: &[Action]) {
    let policy = Policy {
        subject,
        object,
        actions: actions.iter().copied().collect(),
        owner: user(100),
        vouched: true,
        created_at: Timestamp(1),
        update: None,
    };
    let put = store.policies().put_policies(&[policy], &policy_told).await;
    put.expect("kept");
}

pub(crate) fn ids(listing: &Listing<Thing>) -> Vec<u64> {
    let at = |thing: &Thing| thing.created_at.0;
    listing.items.iter().map(at).collect()
}

pub(crate) async fn a_thing_comes_back_as_it_was_kept(store: &dyn Store) {
    let thing = Thing {
        name: "lamp".into(),
        tags: vec!["b".into(), "a".into(), "b".into()],
        identity: "lamp@hall".into(),
        metadata: metadata(r#"{"a":{"b":[1]}}"#),
        status: Status::Disabled,
        ..thing(1, 7)
    };
    keep(store, std::slice::from_ref(&thing)).await;
    let things = store.things();
    assert_eq!(
        things.thing(thing.id).await.expect("read"),
        Some(thing.clone())
    );
    assert_eq!(things.thing(ThingId::generate()).await.expect("read"), None);
    let sealed = things.sealed_key(thing.id).await.expect("read");
    assert_eq!(sealed.expect("kept").as_bytes(), [248]);
    let sealed = things.sealed_key(ThingId::generate()).await.expect("read");
    assert!(sealed.is_none());
}

pub(crate) async fn a_key_is_lent_until_its_thing_is_anothers(store: &dyn Store) {
    let (enabled, disabled) = (
        thing(1, 7),
        Thing {
            status: Status::Disabled,
            ..thing(1, 8)
        },
    );
    keep(store, &[enabled.clone(), disabled.clone()]).await;
    let (things, loan) = (store.things(), KeyHash::from_bytes([9; 32]));
    let lent = async |id| {
        things
            .lent_key(id)
            .await
            .expect("read")
            .map(|(loan, _)| loan)
    };
    assert!(lent(enabled.id).await.is_none());
    for (id, owner, there) in [
        (enabled.id, user(1), true),
        (disabled.id, user(1), true),
        (enabled.id, user(2), false),
        (ThingId::generate(), user(1), false),
    ] {
        let lent = things.lend_key(id, owner, Some(loan)).await;
        assert_eq!(lent.expect("asked"), there);
    }
    assert!(lent(enabled.id).await == Some(loan));
    assert!(lent(disabled.id).await.is_none());
    let (_, sealed) = things
        .lent_key(enabled.id)
        .await
        .expect("read")
        .expect("lent");
    assert_eq!(sealed.expect("kept").as_bytes(), [248]);

    let changes = [ThingChange::Tags(vec![]), ThingChange::Owner(user(2))];
    for (change, left) in changes.into_iter().zip([Some(loan), None]) {
        let update = Update {
            at: Timestamp(20),
            by: user(1),
        };
        let changed = things.change_thing(enabled.id, &change, update, &told);
        changed.await.expect("changed");
        assert!(lent(enabled.id).await == left);
    }
    for loan in [Some(loan), None] {
        let lent_again = things.lend_key(enabled.id, user(2), loan).await;
        assert!(lent_again.expect("asked"));
        assert!(lent(enabled.id).await == loan);
    }
}

pub(crate) async fn ids_and_keys_are_one_things(store: &dyn Store) {
    keep(store, &[thing(1, 1)]).await;
    let things = store.things();
    for (thing, key, what) in [(thing(1, 1), key(1), "id"), (thing(1, 2), key(254), "key")] {
        let rows = [(self::thing(1, 9), self::key(9)), (thing, key)];
        let kept = things.add_things(&rows, vec![]).await;
        assert!(matches!(kept, Err(StoreError::Taken(it)) if it == what));
    }
    let twice = [(thing(1, 3), key(3)), (thing(1, 3), key(4))];
    let kept = things.add_things(&twice, vec![]).await;
    assert!(matches!(kept, Err(StoreError::Taken("id"))));
    // All or none.
    let all = things
        .things(&ThingFilter::default(), Scope::Everybodys, ALL)
        .await;
    let all = all.expect("listed");
    assert_eq!((ids(&all), all.total), (vec![1], 1));
    keep(store, &[thing(1, 2)]).await;
    let id = thing(1, 2).id;
    let taken = ThingChange::Key(key(254));
    let changed = things.change_thing(id, &taken, by(1), &told).await;
    assert!(matches!(changed, Err(StoreError::Taken("key"))));
    let own = ThingChange::Key(key(253));
    let changed = things.change_thing(id, &own, by(1), &told).await;
    assert!(changed.expect("its own").is_some());
}

type Expect = fn(&mut Thing);

pub(crate) async fn a_change_is_of_what_it_names(store: &dyn Store) {
    let mut expected = Thing {
        tags: vec!["old".into()],
        metadata: metadata(r#"{"a":1}"#),
        ..thing(1, 1)
    };
    keep(store, &[expected.clone(), thing(1, 2)]).await;
    let (id, things) = (expected.id, store.things());
    let changes: [(ThingChange, Expect); 6] = [
        (
            ThingChange::About {
                name: Some("lamp".into()),
                metadata: None,
            },
            |it| it.name = "lamp".into(),
        ),
        (
            ThingChange::About {
                name: None,
                metadata: Some(metadata(r#"{"b":2}"#)),
            },
            |it| it.metadata = metadata(r#"{"b":2}"#),
        ),
        (ThingChange::Tags(vec!["new".into()]), |it| {
            it.tags = vec!["new".into()];
        }),
        (ThingChange::Owner(user(2)), |it| it.owner = user(2)),
        (ThingChange::Status(Status::Disabled), |it| {
            it.status = Status::Disabled;
        }),
        (ThingChange::Key(key(77)), |_| {}),
    ];
    for (change, expect) in changes {
        expect(&mut expected);
        expected.update = Some(by(3));
        let changed = things.change_thing(id, &change, by(3), &told).await;
        assert_eq!(changed.expect("changed"), Some(expected.clone()));
        assert_eq!(
            things.thing(id).await.expect("read"),
            Some(expected.clone())
        );
    }
    let again = ThingChange::Status(Status::Disabled);
    let changed = things.change_thing(id, &again, by(4), &told).await;
    assert_eq!(changed.expect("asked"), None);
    let nobody = ThingId::generate();
    let changed = things.change_thing(nobody, &again, by(4), &told).await;
    assert_eq!(changed.expect("asked"), None);
    assert_eq!(things.thing(id).await.expect("read"), Some(expected));
    // Lists have heard of all of it.
    let count = async |filter: ThingFilter, scope| {
        let listing = things.things(&filter, scope, ALL).await.expect("listed");
        assert_eq!(listing.items.len() as u64, listing.total);
        listing.total
    };
    let all = || ThingFilter {
        status: StatusFilter::All,
        ..ThingFilter::default()
    };
    let tagged = |tag: &str| ThingFilter {
        tag: Some(tag.into()),
        ..all()
    };
    let with = |text| ThingFilter {
        metadata: metadata(text),
        ..all()
    };
    let everybodys = Scope::Everybodys;
    assert_eq!(count(tagged("old"), everybodys).await, 0);
    assert_eq!(count(tagged("new"), everybodys).await, 1);
    assert_eq!(count(with(r#"{"a":1}"#), everybodys).await, 0);
    assert_eq!(count(with(r#"{"b":2}"#), everybodys).await, 1);
    assert_eq!(count(all(), Scope::Of(user(1), Visibility::Mine)).await, 1);
    assert_eq!(count(all(), Scope::Of(user(2), Visibility::Mine)).await, 1);
    let mine = Scope::Of(user(2), Visibility::Mine);
    assert_eq!(count(ThingFilter::default(), mine).await, 0);
}

pub(crate) async fn a_list_has_what_its_filter_says(store: &dyn Store) {
    let named = |name: &str, thing: Thing| Thing {
        name: name.into(),
        ..thing
    };
    let kept = [
        named("lamp", thing(1, 1)),
        Thing {
            tags: vec!["red".into(), "big".into()],
            metadata: metadata(r#"{"place":{"floor":2},"tags":["x"]}"#),
            ..named("lamp", thing(2, 2))
        },
        Thing {
            status: Status::Disabled,
            tags: vec!["red".into()],
            ..thing(1, 3)
        },
        Thing {
            tags: vec!["red".into()],
            metadata: metadata(r#"{"place":{"floor":2}}"#),
            ..thing(1, 4)
        },
    ];
    keep(store, &kept).await;
    let list = async |filter: &ThingFilter| {
        let listing = store.things().things(filter, Scope::Everybodys, ALL).await;
        let listing = listing.expect("listed");
        assert_eq!(listing.items.len() as u64, listing.total);
        ids(&listing)
    };
    let any = ThingFilter {
        status: StatusFilter::All,
        ..ThingFilter::default()
    };
    let name = Some("lamp".to_owned());
    let tag = Some("red".to_owned());
    let floor = metadata(r#"{"place":{"floor":2}}"#);
    for (filter, expected) in [
        (ThingFilter::default(), &[1, 2, 4][..]),
        (any.clone(), &[1, 2, 3, 4]),
        (
            ThingFilter {
                status: StatusFilter::Disabled,
                ..any.clone()
            },
            &[3],
        ),
        (
            ThingFilter {
                name: name.clone(),
                ..any.clone()
            },
            &[1, 2],
        ),
        (
            ThingFilter {
                owner: Some(user(1)),
                ..any.clone()
            },
            &[1, 3, 4],
        ),
        (
            ThingFilter {
                name: name.clone(),
                owner: Some(user(1)),
                ..any.clone()
            },
            &[1],
        ),
        (
            ThingFilter {
                tag: tag.clone(),
                ..any.clone()
            },
            &[2, 3, 4],
        ),
        (
            ThingFilter {
                tag: Some("re".into()),
                ..any.clone()
            },
            &[],
        ),
        (
            ThingFilter {
                metadata: floor.clone(),
                ..any.clone()
            },
            &[2, 4],
        ),
        (
            ThingFilter {
                metadata: floor,
                tag,
                owner: Some(user(2)),
                name,
                status: StatusFilter::Enabled,
            },
            &[2],
        ),
    ] {
        assert_eq!(list(&filter).await, expected, "{filter:?}");
    }
}

pub(crate) async fn a_page_tells_of_the_whole_list(store: &dyn Store) {
    let kept: Vec<Thing> = (1..=20).map(|at| thing(at % 2, at)).collect();
    keep(store, &kept).await;
    let page = async |filter: &ThingFilter, offset, limit| {
        let page = Page { offset, limit };
        let listing = store.things().things(filter, Scope::Everybodys, page).await;
        let listing = listing.expect("listed");
        (ids(&listing), listing.total)
    };
    let all = ThingFilter::default();
    assert_eq!(page(&all, 0, 3).await, (vec![1, 2, 3], 20));
    assert_eq!(page(&all, 18, 3).await, (vec![19, 20], 20));
    assert_eq!(page(&all, 30, 3).await, (vec![], 20));
    let odd = ThingFilter {
        owner: Some(user(1)),
        status: StatusFilter::All,
        ..ThingFilter::default()
    };
    assert_eq!(page(&odd, 1, 2).await, (vec![3, 5], 10));
}

pub(crate) async fn a_list_is_of_what_one_may_see(store: &dyn Store) {
    let kept = [
        thing(1, 1),
        thing(2, 2),
        thing(2, 3),
        thing(1, 4),
        thing(2, 5),
    ];
    keep(store, &kept).await;
    let open = channel(store, 1, Status::Enabled).await;
    let closed = channel(store, 2, Status::Disabled).await;
    let (reader, list) = (Subject::User(user(1)), [Action::ClientList]);
    allow(store, reader, open, &list).await;
    allow(store, reader, closed, &list).await;
    for (thing, on) in [(&kept[0], open), (&kept[1], open), (&kept[2], closed)] {
        allow(store, Subject::Thing(thing.id), on, &[Action::MessageRead]).await;
    }
    // With the id of a thing, a user is still no thing.
    let namesake = UserId::from_bytes(*kept[4].id.as_bytes());
    allow(store, Subject::User(namesake), open, &list).await;
    let see = async |number, visibility, filter: &ThingFilter| {
        let scope = Scope::Of(user(number), visibility);
        let listing = store.things().things(filter, scope, ALL).await;
        let listing = listing.expect("listed");
        assert_eq!(listing.items.len() as u64, listing.total);
        ids(&listing)
    };
    let any = ThingFilter::default();
    assert_eq!(see(1, Visibility::Mine, &any).await, [1, 4]);
    assert_eq!(see(1, Visibility::Shared, &any).await, [2]);
    assert_eq!(see(1, Visibility::All, &any).await, [1, 2, 4]);
    assert_eq!(see(2, Visibility::Shared, &any).await, [0; 0]);
    assert_eq!(see(3, Visibility::All, &any).await, [0; 0]);
    let of_others = ThingFilter {
        owner: Some(user(2)),
        ..ThingFilter::default()
    };
    assert_eq!(see(1, Visibility::All, &of_others).await, [2]);
    assert_eq!(see(1, Visibility::Mine, &of_others).await, [0; 0]);
    // Who may only read messages sees nothing.
    allow(store, reader, open, &[Action::MessageRead]).await;
    assert_eq!(see(1, Visibility::Shared, &any).await, [0; 0]);
    let members = store.things().things_of_channel(open, &any, ALL).await;
    let members = members.expect("listed");
    assert_eq!((ids(&members), members.total), (vec![1, 2], 2));
}

pub(crate) async fn a_key_opens_what_its_thing_may(store: &dyn Store) {
    keep(store, &[thing(1, 1)]).await;
    let open = channel(store, 1, Status::Enabled).await;
    let closed = channel(store, 2, Status::Disabled).await;
    let (id, hash) = (thing(1, 1).id, key(254).hash);
    let things = store.things();
    for channel in [open, closed] {
        let actions = [Action::MessageRead, Action::GroupList];
        allow(store, Subject::Thing(id), channel, &actions).await;
    }
    // What a user of the same id may is not what the thing may.
    let namesake = Subject::User(UserId::from_bytes(*id.as_bytes()));
    let elsewhere = channel(store, 3, Status::Enabled).await;
    allow(store, namesake, elsewhere, &[Action::MessageWrite]).await;
    let read = Actions {
        read: true,
        write: false,
    };
    let other = key(1).hash;
    assert_eq!(things.identify(&hash).await.expect("asked"), Some(id));
    assert_eq!(things.identify(&other).await.expect("asked"), None);
    assert!(things.is_enabled(id).await.expect("asked"));
    for (channel, left) in [(open, Some(read)), (closed, None), (elsewhere, None)] {
        let by_key = things.authorize(&hash, channel).await.expect("asked");
        assert_eq!(by_key, left.map(|left| (id, left)));
        assert_eq!(things.allowed(id, channel).await.expect("asked"), left);
        assert_eq!(
            things.authorize(&other, channel).await.expect("asked"),
            None
        );
    }
    let disable = ThingChange::Status(Status::Disabled);
    let changed = things.change_thing(id, &disable, by(1), &told).await;
    assert!(changed.expect("changed").is_some());
    assert_eq!(things.identify(&hash).await.expect("asked"), None);
    assert!(!things.is_enabled(id).await.expect("asked"));
    assert_eq!(things.authorize(&hash, open).await.expect("asked"), None);
    assert_eq!(things.allowed(id, open).await.expect("asked"), None);
}

pub(crate) async fn a_thing_is_of_the_channels_where_it_may_talk(store: &dyn Store) {
    keep(store, &[thing(1, 1), thing(1, 2), thing(1, 3)]).await;
    let [one, two, three] = [1, 2, 3].map(|at| thing(1, at).id);
    let open = channel(store, 1, Status::Enabled).await;
    let other = channel(store, 2, Status::Enabled).await;
    let closed = channel(store, 3, Status::Disabled).await;
    let allow = async |thing, channel, action| {
        allow(store, Subject::Thing(thing), channel, &[action]).await;
    };
    allow(one, open, Action::MessageRead).await;
    allow(one, other, Action::MessageWrite).await;
    allow(one, closed, Action::MessageWrite).await;
    allow(two, open, Action::MessageWrite).await;
    allow(two, other, Action::GroupList).await;
    allow(three, open, Action::MessageRead).await;
    let memberships = async |things: &[ThingId]| {
        let mut found = store.things().memberships(things).await.expect("asked");
        found.sort_unstable();
        found
    };
    let mut expected = [(one, open), (one, other), (two, open)];
    expected.sort_unstable();
    assert_eq!(memberships(&[one, two]).await, expected);
    assert_eq!(memberships(&[three]).await, [(three, open)]);
    assert_eq!(memberships(&[]).await, []);
}
