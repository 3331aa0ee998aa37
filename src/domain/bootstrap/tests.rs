//! The service on stores in memory and things of straw.

mod aside;
mod heard;
mod loans;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::caller::Caller;
use crate::entity::Metadata;
use crate::event::Field;
use crate::identity::UserId;
use crate::memory::{Configs, Events};

#[derive(Default)]
struct Straw(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Key, and whether it is enabled.
    things: BTreeMap<ThingId, (Secret, bool)>,
    channels: BTreeMap<ChannelId, ChannelCopy>,
    connected: BTreeSet<(ThingId, ChannelId)>,
    loans: BTreeMap<ThingId, Secret>,
    /// Of all things.
    owner: Option<UserId>,
    is_away: bool,
}

impl Known {
    fn owner(&self) -> UserId {
        self.owner.unwrap_or(UserId::from_bytes([1; 16]))
    }
}

impl Straw {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().expect("no panic")
    }

    fn here(&self) -> Result<std::sync::MutexGuard<'_, Known>, Refusal> {
        let known = self.known();
        match known.is_away {
            true => Err(Refusal::Unavailable {
                what: "the things service",
                source: "away".into(),
            }),
            false => Ok(known),
        }
    }

    fn channel(&self, name: &str) -> ChannelId {
        let id = ChannelId::generate();
        let copy = ChannelCopy {
            id,
            name: name.into(),
            metadata: Metadata::new(),
            as_of: Timestamp(1_000),
        };
        self.known().channels.insert(id, copy);
        id
    }
}

#[async_trait]
impl Inventory for Straw {
    async fn thing(&self, _: &Asker, id: ThingId) -> Result<KeyedThing, Refusal> {
        let known = self.here()?;
        let (key, _) = known.things.get(&id).ok_or(Refusal::NotFound("thing"))?;
        let (owner, key) = (known.owner(), Some(key.clone()));
        Ok(KeyedThing { id, owner, key })
    }

    async fn make_thing(&self, _: &Asker, _: &str) -> Result<KeyedThing, Refusal> {
        let (id, key) = (ThingId::generate(), Secret::generate());
        let mut known = self.here()?;
        known.things.insert(id, (key.clone(), true));
        let (owner, key) = (known.owner(), Some(key));
        Ok(KeyedThing { id, owner, key })
    }

    async fn discard_thing(&self, _: &Asker, id: ThingId) -> Result<(), Refusal> {
        self.here()?.things.remove(&id);
        Ok(())
    }

    async fn channel(&self, _: &Asker, id: ChannelId) -> Result<ChannelCopy, Refusal> {
        let known = self.here()?;
        let found = known.channels.get(&id).cloned();
        found.ok_or(Refusal::NotFound("channel"))
    }

    async fn connect(
        &self,
        _: &Asker,
        id: ThingId,
        to: &[ChannelId],
    ) -> Result<Vec<ChannelId>, Refusal> {
        let mut known = self.here()?;
        let new = to.iter().copied();
        Ok(new
            .filter(|channel| known.connected.insert((id, *channel)))
            .collect())
    }

    async fn disconnect(&self, _: &Asker, id: ThingId, from: &[ChannelId]) -> Result<(), Refusal> {
        let mut known = self.here()?;
        known
            .connected
            .retain(|(thing, channel)| *thing != id || !from.contains(channel));
        Ok(())
    }

    async fn is_key_of(&self, thing: ThingId, key: &Secret) -> Result<bool, Refusal> {
        let known = self.here()?;
        let found = known.things.get(&thing);
        Ok(found.is_some_and(|(known, enabled)| *enabled && known.matches(key.expose())))
    }

    async fn lend_key(&self, _: &Asker, thing: ThingId) -> Result<Option<Secret>, Refusal> {
        let loan = Secret::generate();
        self.here()?.loans.insert(thing, loan.clone());
        Ok(Some(loan))
    }

    async fn end_loan(&self, _: &Asker, thing: ThingId) -> Result<(), Refusal> {
        self.here()?.loans.remove(&thing);
        Ok(())
    }

    async fn key_of(
        &self,
        thing: ThingId,
        loan: Option<&Secret>,
    ) -> Result<Option<Secret>, Refusal> {
        let known = self.here()?;
        let lent = known.loans.get(&thing).zip(loan);
        if !lent.is_some_and(|(lent, shown)| lent.matches(shown.expose())) {
            return Ok(None);
        }
        let enabled = known.things.get(&thing).filter(|(_, enabled)| *enabled);
        Ok(enabled.map(|(key, _)| key.clone()))
    }
}

struct Scene {
    bootstrap: Bootstrap,
    things: Arc<Straw>,
    store: Arc<Configs>,
    events: Events,
    asker: Asker,
}

fn scene() -> Scene {
    let events = Events::default();
    let (things, store) = (
        Arc::new(Straw::default()),
        Arc::new(Configs::new(events.clone())),
    );
    let bootstrap = Bootstrap::new(
        Arc::clone(&store) as Arc<dyn ConfigStore>,
        Arc::clone(&things) as Arc<dyn Inventory>,
        KeyHasher::new(&[1; 32]),
        Vault::new(&[[2; 32]]).expect("a key"),
        DeviceCipher::new(&[3; 32]).expect("a key"),
        Guesses::new(3, Duration::from_secs(60)),
        PrivateKeys::Fingerprint,
    );
    Scene {
        bootstrap,
        things,
        store,
        events,
        asker: asker(false),
    }
}

fn asker(admin: bool) -> Asker {
    Asker {
        caller: Caller {
            user: UserId::generate(),
            admin,
        },
        token: Secret::new("a token"),
    }
}

fn new(external_id: &str, channels: &[ChannelId]) -> NewConfig {
    NewConfig {
        thing: None,
        external_id: external_id.into(),
        external_key: Secret::new("external key"),
        name: "Lamp in the hall".into(),
        content: "content".into(),
        certificates: Certificates {
            client_cert: "a certificate".into(),
            client_key: Secret::new("a private key"),
            ca_cert: "another".into(),
        },
        channels: channels.to_vec(),
    }
}

impl Scene {
    async fn add(&self, external_id: &str, channels: &[ChannelId]) -> ThingId {
        let added = self.bootstrap.add(&self.asker, new(external_id, channels));
        added.await.expect("added")
    }

    fn operations(&self) -> Vec<String> {
        let events = self.events.all();
        events.iter().map(|it| it.fields[0].1.to_string()).collect()
    }

    /// The value of a field of the latest event.
    fn last(&self, name: &str) -> Option<String> {
        let events = self.events.all();
        let fields = &events.last().expect("an event").fields;
        let field = fields.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.to_string())
    }

    async fn view(&self, id: ThingId) -> Config {
        self.bootstrap.view(&self.asker, id).await.expect("there")
    }

    async fn fetch(&self, external_id: &str, key: &str) -> Result<Provision, Refusal> {
        let key = Secret::new(key);
        self.bootstrap.fetch("10.0.0.1", external_id, &key).await
    }

    /// The next entry of the things stream, of something that happened at `at`.
    async fn hear(&self, text: &str, at: Timestamp) -> Told {
        let mut fields: Vec<Field> = text
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned().into(), value.to_owned().into()))
            .collect();
        fields.push(("occurred_at".into(), at.to_string().into()));
        let after = self.bootstrap.heard_last("s").await.expect("read");
        let next: u64 = after.as_deref().map_or(0, |it| it.parse().expect("one")) + 1;
        let next = next.to_string();
        let heard = self.bootstrap.hear("s", after.as_deref(), &next, &fields);
        heard.await.expect("heard")
    }

    fn is_connected(&self, thing: ThingId, channel: ChannelId) -> bool {
        self.things.known().connected.contains(&(thing, channel))
    }
}

#[tokio::test]
async fn a_configuration_is_made_shown_changed_and_removed() {
    let scene = scene();
    let kitchen = scene.things.channel("kitchen");
    let id = scene.add("ff-01", &[kitchen, kitchen]).await;
    assert_eq!(scene.last("operation").as_deref(), Some("config.create"));
    let shown = scene.last("client_key").expect("a key");
    assert!(shown.starts_with("sha256:") && shown.len() == 71, "{shown}");
    assert_eq!(scene.last("channels"), Some(format!("[{kitchen}]")));
    let config = scene.view(id).await;
    assert_eq!(config.state, State::Inactive);
    assert_eq!(config.content, "content");
    assert!(config.external_key.matches("external key"));
    assert!(config.certificates.client_key.matches("a private key"));
    assert!(config.thing_key.is_some());
    assert_eq!(config.channels[0].name, "kitchen");
    let bootstrap = &scene.bootstrap;
    bootstrap
        .update(&scene.asker, id, "other".into(), String::new())
        .await
        .expect("updated");
    assert_eq!(scene.last("state").as_deref(), Some("0"));
    let config = scene.view(id).await;
    assert_eq!((&*config.name, &*config.content), ("other", ""));
    bootstrap
        .update_certificates(&scene.asker, id, Certificates::default())
        .await
        .expect("updated");
    assert_eq!(scene.last("thing_key"), Some(id.to_string()));
    assert_eq!(scene.view(id).await.certificates.client_cert, "");
    bootstrap.remove(&scene.asker, id).await.expect("removed");
    let told = scene.events.all().len();
    bootstrap.remove(&scene.asker, id).await.expect("no harm");
    assert_eq!(scene.events.all().len(), told);
    let gone = bootstrap.view(&scene.asker, id).await;
    assert!(matches!(gone, Err(Refusal::NotFound(_))));
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    let (bootstrap, asker) = (&scene.bootstrap, &scene.asker);
    let before = scene.things.known().things.len();
    let twice = bootstrap.add(asker, new("ff-01", &[])).await;
    assert!(matches!(twice, Err(Refusal::Taken("external id"))));
    let again = NewConfig {
        thing: Some(id),
        ..new("ff-02", &[])
    };
    let again = bootstrap.add(asker, again).await;
    assert!(matches!(again, Err(Refusal::Taken("thing"))));
    let unknown = bootstrap
        .add(asker, new("ff-03", &[ChannelId::generate()]))
        .await;
    assert!(matches!(
        unknown,
        Err(Refusal::Invalid {
            field: "channels",
            ..
        })
    ));
    let nobodys = NewConfig {
        thing: Some(ThingId::generate()),
        ..new("ff-04", &[])
    };
    let nobodys = bootstrap.add(asker, nobodys).await;
    assert!(matches!(nobodys, Err(Refusal::NotFound("thing"))));
    for (field, wrong) in [
        ("external_id", new("", &[])),
        ("external_id", new("a\nb", &[])),
        ("external_id", new(&"x".repeat(MAX_EXTERNAL + 1), &[])),
        (
            "external_key",
            NewConfig {
                external_key: Secret::new(""),
                ..new("x", &[])
            },
        ),
        (
            "content",
            NewConfig {
                content: "x".repeat(MAX_CONTENT + 1),
                ..new("x", &[])
            },
        ),
        (
            "ca_cert",
            NewConfig {
                certificates: Certificates {
                    ca_cert: "x".repeat(MAX_CERTIFICATE + 1),
                    ..Certificates::default()
                },
                ..new("x", &[])
            },
        ),
        (
            "client_cert",
            NewConfig {
                certificates: Certificates {
                    client_cert: "a\0b".into(),
                    ..Certificates::default()
                },
                ..new("x", &[])
            },
        ),
        (
            "channels",
            new("x", &vec![ChannelId::generate(); MAX_CHANNELS + 1]),
        ),
    ] {
        match bootstrap.add(asker, wrong).await {
            Err(Refusal::Invalid { field: told, .. }) => assert_eq!(told, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(scene.things.known().things.len(), before);
}

#[tokio::test]
async fn a_configuration_is_its_owners_and_an_administrators() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    let bootstrap = &scene.bootstrap;
    let stranger = asker(false);
    assert!(bootstrap.view(&stranger, id).await.is_err());
    let changed = bootstrap.change_state(&stranger, id, State::Active).await;
    assert!(matches!(changed, Err(Refusal::NotFound(_))));
    bootstrap.remove(&stranger, id).await.expect("as if none");
    bootstrap.view(&asker(true), id).await.expect("sees all");
    let page = Page::default();
    for (who, total) in [(stranger, 0), (asker(true), 1), (scene.asker.clone(), 1)] {
        let listed = bootstrap.list(&who, Filter::default(), page).await;
        assert_eq!(listed.expect("listed").total, total);
    }
}

#[tokio::test]
async fn a_list_has_what_its_filter_says() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    scene.add("ff-02", &[]).await;
    let key = scene.view(id).await.thing_key.expect("a key");
    let total = async |filter: Filter| {
        let page = Page {
            offset: 0,
            limit: 0,
        };
        let listed = scene.bootstrap.list(&scene.asker, filter, page).await;
        let listed = listed.expect("listed");
        assert!(listed.items.is_empty());
        listed.total
    };
    let any = Filter::default;
    let thing_key = Some(key);
    assert_eq!(total(Filter { thing_key, ..any() }).await, 1);
    assert!(
        scene
            .last("full_match")
            .is_some_and(|it| it.contains("***"))
    );
    let thing = Some(id);
    assert_eq!(total(Filter { thing, ..any() }).await, 1);
    let external_id = Some("ff-02".into());
    assert_eq!(
        total(Filter {
            external_id,
            ..any()
        })
        .await,
        1
    );
    let name = Some("HALL".into());
    assert_eq!(total(Filter { name, ..any() }).await, 2);
    let name = Some("%".into());
    assert_eq!(total(Filter { name, ..any() }).await, 0);
    let state = Some(State::Active);
    assert_eq!(total(Filter { state, ..any() }).await, 0);
}

#[tokio::test]
async fn a_device_gets_everything_for_its_key_and_nothing_for_another() {
    let scene = scene();
    let kitchen = scene.things.channel("kitchen");
    let id = scene.add("ff-01", &[kitchen]).await;
    let provision = scene.fetch("ff-01", "external key").await.expect("fetched");
    assert_eq!(scene.last("success").as_deref(), Some("1"));
    let json = provision.json();
    assert_eq!(json["thing_id"], id.to_string());
    assert_eq!(json["channels"][0]["name"], "kitchen");
    assert_eq!(json["client_key"], "a private key");
    assert_eq!(json["content"], "content");
    let wrong = scene.fetch("ff-01", "external kez").await;
    assert!(matches!(wrong, Err(Refusal::Denied)));
    assert_eq!(scene.last("success").as_deref(), Some("0"));
    let unknown = scene.fetch("ff-02", "external key").await;
    assert!(matches!(unknown, Err(Refusal::NotFound(_))));

    let cipher = DeviceCipher::new(&[3; 32]).expect("a key");
    let shown = Secret::new(cipher.seal_key(&Secret::new("external key")));
    let sealed = scene.bootstrap.fetch_secure("", "ff-01", &shown).await;
    let opened = cipher.open(&sealed.expect("fetched")).expect("an answer");
    assert_eq!(opened, json.to_string().into_bytes());
    let shown = Secret::new("no digits");
    let wrong = scene.bootstrap.fetch_secure("", "ff-01", &shown).await;
    assert!(matches!(wrong, Err(Refusal::Denied)));
}

#[tokio::test]
async fn who_guesses_keys_is_not_heard_for_a_while() {
    let scene = scene();
    scene.add("ff-01", &[]).await;
    for _ in 0..3 {
        let wrong = scene.fetch("ff-01", "guess").await;
        assert!(matches!(wrong, Err(Refusal::Denied)));
    }
    let told = scene.events.all().len();
    let right = scene.fetch("ff-01", "external key").await;
    assert!(matches!(right, Err(Refusal::Busy)));
    assert_eq!(scene.events.all().len(), told);
    let key = Secret::new("external key");
    let elsewhere = scene.bootstrap.fetch("10.0.0.2", "ff-01", &key).await;
    elsewhere.expect("from elsewhere");
}

#[tokio::test]
async fn a_device_never_gets_a_key_that_does_not_hold() {
    let scene = scene();
    let id = scene.add("ff-01", &[]).await;
    let rotated = Secret::new("the next key");
    let set = |enabled| {
        let entry = (rotated.clone(), enabled);
        scene.things.known().things.insert(id, entry);
    };
    set(true);
    let provision = scene.fetch("ff-01", "external key").await.expect("fetched");
    assert!(provision.thing_key.matches("the next key"));
    let kept = scene.view(id).await.thing_key.expect("kept");
    assert!(kept.matches("the next key"));
    set(false);
    let refused = scene.fetch("ff-01", "external key").await;
    assert!(matches!(refused, Err(Refusal::NotFound(_))));
    scene.things.known().is_away = true;
    let refused = scene.fetch("ff-01", "external key").await;
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })));
}

#[tokio::test]
async fn that_a_channel_is_found_changed_is_told_once() {
    let scene = scene();
    let channel = scene.things.channel("before");
    scene.add("ff-01", &[channel]).await;
    let mut now = scene.things.known().channels[&channel].clone();
    "after".clone_into(&mut now.name);
    now.as_of = Timestamp(2_000);
    scene.things.known().channels.insert(channel, now);
    let operations = || {
        let events = scene.events.all().into_iter();
        let fields = events.map(|event| event.fields.into_iter());
        let of = |(name, value): (_, _)| (name == "operation").then_some(value);
        let all: Vec<_> = fields.flatten().filter_map(of).collect();
        all.join(" ")
    };
    let id = scene.add("ff-02", &[channel]).await;
    let told = operations();
    let changed = "config.create channel.update_handler config.create";
    assert!(told.ends_with(changed), "{told}");
    scene
        .bootstrap
        .update_connections(&scene.asker, id, &[channel])
        .await
        .expect("connected");
    assert_eq!(operations(), format!("{told} thing.update_connections"));
}
