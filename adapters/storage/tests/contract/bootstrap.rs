//! What stores of configurations promise.

use async_trait::async_trait;
use rollcall_domain::bootstrap::{
    Change, ChannelCopy, ConfigStore, KeptCertificates, KeptConfig, KeptFilter, State,
};
use rollcall_domain::entity::Metadata;
use rollcall_domain::event::{Event, Fields, Stream};
use rollcall_domain::identity::{ChannelId, KeyHash, ThingId, Timestamp, UserId};
use rollcall_domain::listing::Page;
use rollcall_domain::memory::{Configs, Events};
use rollcall_domain::ports::StoreError;
use rollcall_domain::vault::{KeptKey, SealedKey};
use rollcall_storage::database::Database;

use crate::log::log;

pub(crate) fn memory() -> Configs {
    Configs::new(Events::default())
}

/// A store, and what it has announced.
#[async_trait]
pub(crate) trait Announced: ConfigStore {
    async fn announced(&self) -> Vec<Fields>;
}

#[async_trait]
impl Announced for Configs {
    async fn announced(&self) -> Vec<Fields> {
        let events = self.announced().into_iter();
        events.map(|event| event.fields).collect()
    }
}

#[async_trait]
impl Announced for Database {
    async fn announced(&self) -> Vec<Fields> {
        let entries = log(self, Stream::Bootstrap).read(0, 1_000).await;
        let entries = entries.expect("read").into_iter();
        entries.map(|entry| entry.fields).collect()
    }
}

/// Each event in a line: what was done, and the values of the other fields, but for the moment.
pub(crate) async fn lines(store: &impl Announced) -> Vec<String> {
    let line = |fields: Fields| {
        let fields = fields
            .into_iter()
            .filter(|(name, _)| name != "occurred_at")
            .map(|(name, value)| match &*name {
                "operation" => value.into_owned(),
                name => format!("{name}={value}"),
            });
        fields.collect::<Vec<_>>().join(" ")
    };
    store.announced().await.into_iter().map(line).collect()
}

pub(crate) fn thing(number: u8) -> ThingId {
    ThingId::from_bytes([number; 16])
}

pub(crate) fn channel(number: u8) -> ChannelId {
    ChannelId::from_bytes([number; 16])
}

fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(crate) fn copy(number: u8, name: &str, as_of: u64) -> ChannelCopy {
    ChannelCopy {
        id: channel(number),
        name: name.into(),
        metadata: serde_json::from_str::<Metadata>("{\"a\":{\"b\":[1]}}").expect("an object"),
        as_of: Timestamp(as_of),
    }
}

fn key(number: u8) -> KeptKey {
    KeptKey {
        hash: KeyHash::from_bytes([number; 32]),
        sealed: Some(SealedKey::from_bytes(vec![number, 0, 255])),
    }
}

/// Made at `number`.
pub(crate) fn config(number: u8, channels: &[ChannelCopy]) -> KeptConfig {
    KeptConfig {
        thing: thing(number),
        owner: user(1),
        thing_key: Some(key(number)),
        external_id: format!("ff-{number}"),
        external_key: key(100 + number),
        name: format!("Lämp {number}"),
        content: SealedKey::from_bytes(vec![1]),
        certificates: KeptCertificates {
            client_cert: "cert".into(),
            client_key: SealedKey::from_bytes(vec![2]),
            ca_cert: "ca".into(),
        },
        state: State::Inactive,
        created_at: Timestamp(number.into()),
        revision: 1,
        loan: Some(SealedKey::from_bytes(vec![3])),
        channels: channels.to_vec(),
    }
}

pub(crate) async fn add(store: &dyn ConfigStore, config: &KeptConfig) {
    store.add_config(config, Vec::new()).await.expect("added");
}

pub(crate) async fn read(store: &dyn ConfigStore, number: u8) -> KeptConfig {
    let found = store.config(thing(number)).await.expect("read");
    found.expect("there")
}

pub(crate) async fn change(
    store: &dyn ConfigStore,
    number: u8,
    revision: u64,
    change: Change,
) -> bool {
    let changed = store.change_config(thing(number), revision, change, Vec::new());
    changed.await.expect("asked")
}

pub(crate) async fn a_configuration_comes_back_as_it_was_kept(store: &dyn ConfigStore) {
    let kept = config(1, &[copy(1, "one", 5), copy(2, "", 6)]);
    add(store, &kept).await;
    let by_device = store.config_of_device("ff-1").await.expect("read");
    for found in [read(store, 1).await, by_device.expect("there")] {
        assert_eq!(found.thing, kept.thing);
        assert_eq!(found.owner, kept.owner);
        let sealed = |key: &KeptKey| key.sealed.as_ref().map(|it| it.as_bytes().to_vec());
        let (found_key, kept_key) = (found.thing_key.expect("kept"), key(1));
        assert!(found_key.hash == kept_key.hash);
        assert_eq!(sealed(&found_key), sealed(&kept_key));
        assert!(found.external_key.hash == key(101).hash);
        assert_eq!(sealed(&found.external_key), sealed(&key(101)));
        assert_eq!(found.name, kept.name);
        assert_eq!(found.content.as_bytes(), [1]);
        assert_eq!(found.certificates.client_cert, "cert");
        assert_eq!(found.certificates.client_key.as_bytes(), [2]);
        assert_eq!(found.certificates.ca_cert, "ca");
        assert_eq!(found.state, State::Inactive);
        assert_eq!(found.created_at, kept.created_at);
        assert_eq!(found.revision, 1);
        assert_eq!(found.loan.expect("kept").as_bytes(), [3]);
        assert_eq!(found.channels, kept.channels);
    }
    assert!(store.config(thing(2)).await.expect("read").is_none());
    assert!(
        store
            .config_of_device("FF-1")
            .await
            .expect("read")
            .is_none()
    );
}

pub(crate) async fn a_thing_and_an_external_id_are_taken_once(store: &dyn ConfigStore) {
    add(store, &config(1, &[])).await;
    let same_thing = KeptConfig {
        external_id: "other".into(),
        ..config(1, &[])
    };
    let same_device = KeptConfig {
        external_id: "ff-1".into(),
        ..config(2, &[])
    };
    for (twice, taken) in [(same_thing, "thing"), (same_device, "external id")] {
        let added = store.add_config(&twice, Vec::new()).await;
        assert!(matches!(added, Err(StoreError::Taken(what)) if what == taken));
    }
}

pub(crate) async fn a_change_is_of_what_it_names_and_of_one_revision(store: &dyn ConfigStore) {
    add(store, &config(1, &[copy(1, "one", 5)])).await;
    let content = Change::Content {
        name: "Other".into(),
        content: SealedKey::from_bytes(vec![9]),
    };
    assert!(change(store, 1, 1, content.clone()).await);
    assert!(!change(store, 1, 1, content).await);
    let found = read(store, 1).await;
    assert_eq!(
        (&*found.name, found.content.as_bytes()),
        ("Other", &[9][..])
    );
    assert_eq!(found.certificates.ca_cert, "ca");
    let certificates = KeptCertificates {
        client_cert: "c2".into(),
        client_key: SealedKey::from_bytes(vec![8]),
        ca_cert: String::new(),
    };
    assert!(change(store, 1, 2, Change::Certificates(certificates)).await);
    let active = Change::State {
        state: State::Active,
        since: Timestamp(50),
    };
    assert!(change(store, 1, 3, active).await);
    assert!(change(store, 1, 4, Change::ThingKey(None)).await);
    assert!(change(store, 1, 5, Change::Owner(user(2))).await);
    let found = read(store, 1).await;
    assert_eq!(found.certificates.client_cert, "c2");
    assert_eq!(found.certificates.client_key.as_bytes(), [8]);
    assert_eq!(found.name, "Other");
    assert_eq!(found.state, State::Active);
    assert!(found.thing_key.is_none());
    assert_eq!(found.owner, user(2));
    assert_eq!(found.revision, 6);
    assert!(change(store, 1, 6, Change::ThingKey(Some(key(7)))).await);
    assert!(read(store, 1).await.thing_key.is_some());
    assert!(change(store, 1, 7, Change::Remove).await);
    assert!(!change(store, 1, 8, Change::Remove).await);
    assert!(store.config(thing(1)).await.expect("read").is_none());
}

pub(crate) async fn channels_are_shared_and_forgotten_when_nobody_has_them(
    store: &dyn ConfigStore,
) {
    let (one, two) = (copy(1, "one", 5), copy(2, "two", 5));
    add(store, &config(1, &[one.clone(), two.clone()])).await;
    // An older copy does not replace a newer one, a newer one does.
    add(store, &config(2, &[copy(1, "old", 4), copy(2, "new", 6)])).await;
    let names = async |number| {
        let found = read(store, number).await.channels;
        found.into_iter().map(|it| it.name).collect::<Vec<_>>()
    };
    assert_eq!(names(1).await, ["one", "new"]);
    let channels = Change::Channels {
        channels: vec![copy(3, "three", 5), one],
        since: Timestamp(9),
    };
    assert!(change(store, 1, 1, channels).await);
    assert_eq!(names(1).await, ["one", "three"]);
    assert!(change(store, 2, 1, Change::Remove).await);
    // The newer copy was forgotten with it, so this one counts.
    let channels = Change::Channels {
        channels: vec![two],
        since: Timestamp(9),
    };
    assert!(change(store, 1, 2, channels).await);
    assert_eq!(names(1).await, ["two"]);
    let none = Change::Channels {
        channels: Vec::new(),
        since: Timestamp(9),
    };
    assert!(change(store, 1, 3, none).await);
    assert!(names(1).await.is_empty());
}

pub(crate) async fn a_list_has_what_its_filter_says(store: &dyn ConfigStore) {
    for number in 1..=4 {
        let state = match number {
            4 => State::Active,
            _ => State::Inactive,
        };
        let owner = user(number % 2);
        let kept = KeptConfig {
            state,
            owner,
            ..config(number, &[copy(1, "one", 5)])
        };
        add(store, &kept).await;
    }
    let list = async |filter: KeptFilter, offset, limit| {
        let listed = store.configs(&filter, Page { offset, limit }).await;
        let listed = listed.expect("listed");
        assert!(listed.items.iter().all(|it| it.channels.is_empty()));
        let ids = listed.items.iter().map(|it| it.thing.as_bytes()[0]);
        (ids.collect::<Vec<_>>(), listed.total)
    };
    let any = KeptFilter::default;
    assert_eq!(list(any(), 0, 10).await, (vec![1, 2, 3, 4], 4));
    assert_eq!(list(any(), 1, 2).await, (vec![2, 3], 4));
    assert_eq!(list(any(), 0, 0).await, (vec![], 4));
    assert_eq!(list(any(), 9, 10).await, (vec![], 4));
    let owner = Some(user(1));
    assert_eq!(list(KeptFilter { owner, ..any() }, 0, 10).await.0, [1, 3]);
    let state = Some(State::Active);
    assert_eq!(list(KeptFilter { state, ..any() }, 0, 10).await.0, [4]);
    let external_id = Some("ff-2".into());
    let filter = KeptFilter {
        external_id,
        ..any()
    };
    assert_eq!(list(filter, 0, 10).await.0, [2]);
    let filter = KeptFilter {
        thing: Some(thing(3)),
        thing_key: Some(key(3).hash),
        ..any()
    };
    assert_eq!(list(filter, 0, 10).await.0, [3]);
    for (name, found) in [
        ("lämp", vec![1, 2, 3, 4]),
        ("p 3", vec![3]),
        ("l%", vec![]),
        ("_", vec![]),
    ] {
        let name = Some(name.into());
        assert_eq!(list(KeptFilter { name, ..any() }, 0, 10).await.0, found);
    }
}

/// Short for the id of thing or channel `number`.
pub(crate) fn hex(number: u8) -> String {
    channel(number).to_string()
}

pub(crate) async fn newer_copies_of_channels_are_announced_before_what_brings_them(
    store: &impl Announced,
) {
    let made = |number| Event::operation(Stream::Bootstrap, "config.create", [("n", number)]);
    let add = async |kept: KeptConfig, number: &str| {
        let added = store.add_config(&kept, vec![made(number.to_owned())]);
        added.await.expect("added");
    };
    add(config(1, &[copy(1, "one", 5)]), "1").await;
    add(config(2, &[copy(1, "newer", 6), copy(2, "two", 6)]), "2").await;
    add(config(3, &[copy(1, "older", 4)]), "3").await;
    let change = Change::Channels {
        channels: vec![copy(2, "two, newer", 7)],
        since: Timestamp(9),
    };
    let events = vec![made("4".to_owned())];
    let changed = store.change_config(thing(1), 1, change.clone(), events);
    assert!(changed.await.expect("asked"));
    // Of another revision: nothing is kept, and nothing said.
    let events = vec![made("5".to_owned())];
    let changed = store.change_config(thing(1), 1, change, events);
    assert!(!changed.await.expect("asked"));
    let updated = |number, name| {
        format!(
            "channel.update_handler channel_id={} name={name} metadata={{\"a\":{{\"b\":[1]}}}}",
            hex(number)
        )
    };
    let due = [
        "config.create n=1".to_owned(),
        updated(1, "newer"),
        "config.create n=2".to_owned(),
        "config.create n=3".to_owned(),
        updated(2, "two, newer"),
        "config.create n=4".to_owned(),
    ];
    assert_eq!(lines(store).await, due);
}
