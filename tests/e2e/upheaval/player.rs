//! Somebody who changes everything there is to be changed, and knows what must have come of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::Game;
use crate::contract::grpc::Caller;
use crate::crashes::Dice;
use crate::rest::try_send;
use crate::world::World;

/// How long somebody waits before trying a server again that is gone.
const PAUSE: Duration = Duration::from_millis(5);

/// What came of a request.
enum Outcome {
    Done(Value),
    /// Understood and refused: that it is so already, that there is none.
    Refused(String),
    /// The server is gone: it may or may not have happened.
    Unknown,
}

impl Outcome {
    /// Of what is never refused: it has happened, or nobody knows.
    fn is_done(&self, what: &str) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Unknown => false,
            Self::Refused(why) => panic!("{what}: {why}"),
        }
    }
}

/// What may be the value of a column at the end. None for a row that is not there.
pub(super) type Possible = Vec<Option<String>>;

/// A column of a row: its kind as `rollcall replay` names it, its id, its name.
pub(super) type Fact = (&'static str, String, &'static str);

/// What was to be announced: stream, operation, field, value; and whether it is certain that it was.
pub(super) type Announced = ((&'static str, &'static str, &'static str, String), bool);

/// Somebody with an account and what belongs to it.
pub(super) struct Player<'a> {
    game: &'a Game,
    dice: Dice,
    number: u64,
    token: String,
    user: String,
    count: u64,
    things: Vec<String>,
    channels: Vec<String>,
    groups: Vec<String>,
    configs: Vec<String>,
    /// A user of its own, to be put into groups.
    member: String,
    pub(super) facts: BTreeMap<Fact, Possible>,
    pub(super) announced: Vec<Announced>,
    /// Where gRPC was served last, and who asks there.
    caller: RefCell<Option<(String, Caller)>>,
}

impl<'a> Player<'a> {
    pub(super) fn join(world: &World, game: &'a Game, number: u64, seed: u64) -> Self {
        let mut player = Self {
            game,
            dice: Dice(seed.wrapping_add(number)),
            number,
            token: String::new(),
            user: String::new(),
            count: 0,
            things: Vec::new(),
            channels: Vec::new(),
            groups: Vec::new(),
            configs: Vec::new(),
            member: String::new(),
            caller: RefCell::new(None),
            facts: BTreeMap::new(),
            announced: Vec::new(),
        };
        let identity = format!("player-{number}@example.com");
        let secret = format!("the secret of {number}");
        world.secrets.add(&*secret);
        let credentials = json!({ "identity": identity, "secret": secret });
        let name = player.name();
        let user = json!({ "name": name, "credentials": credentials });
        let user = player.must("users", "POST /users", &user);
        user["id"]
            .as_str()
            .expect("an id")
            .clone_into(&mut player.user);
        let user = player.user.clone();
        player.note(("users", user.clone(), "name"), Some(name), true);
        player.note(("users", user, "tags"), Some(String::new()), true);
        let tokens = player.must("users", "POST /users/tokens/issue", &credentials);
        let token = tokens["access_token"].as_str().expect("a token");
        world.secrets.add(token);
        token.clone_into(&mut player.token);
        let identity = format!("member-of-{number}@example.com");
        let credentials = json!({ "identity": identity, "secret": secret });
        let member = player.must(
            "users",
            "POST /users",
            &json!({ "credentials": credentials }),
        );
        member["id"]
            .as_str()
            .expect("an id")
            .clone_into(&mut player.member);
        player
    }

    /// A name that nobody has had.
    fn name(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.number, self.count)
    }

    /// Where a service is now. Waits a little if it is gone.
    fn place(&self, service: &str) -> Option<String> {
        let places = self.game.places.lock().expect("lock").clone();
        if places.is_none() {
            thread::sleep(PAUSE);
        }
        places.map(|places| places[service].clone())
    }

    fn ask(&self, service: &str, what: &str, body: &Value) -> Outcome {
        let Some(address) = self.place(service) else {
            return Outcome::Unknown;
        };
        let bearer = format!("Authorization: Bearer {}", self.token);
        let mut headers = vec!["Content-Type: application/json"];
        if !self.token.is_empty() {
            headers.push(&bearer);
        }
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let Ok(answer) = try_send(&address, what, &headers, body.as_bytes()) else {
            thread::sleep(PAUSE);
            return Outcome::Unknown;
        };
        match answer.status {
            200..300 => {
                self.game.done.fetch_add(1, Ordering::Relaxed);
                Outcome::Done(serde_json::from_str(&answer.body).unwrap_or_default())
            }
            // It is on its way out.
            503 => Outcome::Unknown,
            400 | 404 | 409 => Outcome::Refused(format!("{answer:?}")),
            _ => panic!("{what} {body}: {answer:?}"),
        }
    }

    fn must(&self, service: &str, what: &str, body: &Value) -> Value {
        match self.ask(service, what, body) {
            Outcome::Done(value) => value,
            Outcome::Refused(why) => panic!("{what}: {why}"),
            Outcome::Unknown => panic!("{what}: nobody answers"),
        }
    }

    /// Asks over gRPC.
    fn call(&self, method: &str, body: &Value) -> Outcome {
        let Some(address) = self.place("grpc") else {
            return Outcome::Unknown;
        };
        let mut caller = self.caller.borrow_mut();
        let known = caller.take().filter(|(known, _)| *known == address);
        let (_, caller) = caller.insert(known.unwrap_or_else(|| {
            let caller = Caller::new(&address);
            (address, caller)
        }));
        let answer = caller.call(method, &body.to_string(), Some(&self.token));
        match answer {
            Ok(value) => {
                self.game.done.fetch_add(1, Ordering::Relaxed);
                Outcome::Done(value)
            }
            // The server has not said so, or is on its way out.
            Err(status) if status.source().is_some() || status.code() == Code::Unavailable => {
                thread::sleep(PAUSE);
                Outcome::Unknown
            }
            Err(status) => match status.code() {
                Code::InvalidArgument | Code::NotFound | Code::AlreadyExists => {
                    Outcome::Refused(format!("{status:?}"))
                }
                _ => panic!("{method} {body}: {status:?}"),
            },
        }
    }

    /// Asks over REST or gRPC, as the dice say.
    fn either(&mut self, rest: (&str, &str, &Value), grpc: (&str, &Value)) -> Outcome {
        if self.dice.throw(2) == 0 {
            return self.ask(rest.0, rest.1, rest.2);
        }
        self.call(&format!("rollcall.{}", grpc.0), grpc.1)
    }

    /// Notes what is known of a column after a request.
    fn note(&mut self, fact: Fact, value: Option<String>, is_certain: bool) {
        let possible = self.facts.entry(fact).or_insert_with(|| vec![None]);
        if is_certain {
            possible.clear();
        }
        possible.push(value);
    }

    fn announce(
        &mut self,
        stream: &'static str,
        operation: &'static str,
        field: &'static str,
        value: &str,
        is_certain: bool,
    ) {
        let what = (stream, operation, field, value.to_owned());
        self.announced.push((what, is_certain));
    }

    fn id(&mut self) -> String {
        let mut part = |below| self.dice.throw(below);
        let (a, b, c) = (part(1 << 30), part(1 << 16), part(1 << 12));
        let (d, e, f) = (part(1 << 12), part(1 << 24), part(1 << 24));
        format!("{a:08x}-{b:04x}-4{c:03x}-8{d:03x}-{e:06x}{f:06x}")
    }

    /// One of them, if there are any.
    fn one(&mut self, of: fn(&Self) -> &Vec<String>) -> Option<String> {
        let count = of(self).len() as u64;
        match count {
            0 => None,
            count => {
                let n = self.dice.throw(count);
                usize::try_from(n).ok().map(|n| of(self)[n].clone())
            }
        }
    }

    pub(super) fn play(&mut self) {
        while !self.game.over.load(Ordering::Relaxed) {
            self.act();
        }
    }

    fn act(&mut self) {
        let thing = self.one(|it| &it.things);
        let channel = self.one(|it| &it.channels);
        let group = self.one(|it| &it.groups);
        let config = self.one(|it| &it.configs);
        match (self.dice.throw(25), thing, channel, group, config) {
            (0..2, ..) => self.make_thing(),
            (2, ..) => self.make_channel(),
            (3, ..) => self.make_group(),
            (4, _, Some(channel), ..) => self.make_config(&channel),
            (5..7, Some(id), ..) => {
                self.rename("things", "things", "thing.update", "PATCH", &id);
            }
            (7, _, Some(id), ..) => {
                self.rename("things", "channels", "channel.update", "PUT", &id);
            }
            (8, _, _, Some(id), _) => self.rename("users", "groups", "group.update", "PUT", &id),
            (9, ..) => {
                let user = self.user.clone();
                self.rename("users", "users", "user.update", "PATCH", &user);
            }
            (10, Some(id), ..) => {
                let rpc = "things.v1.Things/UpdateThingTags";
                self.tag("things", "thing.update_tags", rpc, &id);
            }
            (21, ..) => {
                let (user, rpc) = (self.user.clone(), "users.v1.Users/UpdateUserTags");
                self.tag("users", "user.update_tags", rpc, &user);
            }
            (11, Some(id), ..) => self.toggle("things", "things", &id),
            (12, _, _, Some(id), _) => self.toggle("users", "groups", &id),
            (13..15, Some(thing), Some(channel), ..) => self.connect(&thing, &channel),
            (15, Some(thing), Some(channel), ..) => self.disconnect(&thing, &channel),
            (16, .., Some(config)) => self.set_content(&config),
            (17, .., Some(config)) => self.set_state(&config),
            (18..20, _, _, Some(group), _) => self.allow(&group),
            (20, _, _, Some(group), _) => self.forbid(&group),
            _ => self.look(),
        }
    }

    fn look(&mut self) {
        let (service, what, method) = match self.dice.throw(4) {
            0 => ("users", "GET /groups?limit=5", "users.v1.Groups/ListGroups"),
            1 => (
                "things",
                "GET /things?limit=5",
                "things.v1.Things/ListThings",
            ),
            2 => (
                "things",
                "GET /channels?limit=5",
                "things.v1.Channels/ListChannels",
            ),
            _ => (
                "bootstrap",
                "GET /things/configs?limit=5",
                "bootstrap.v1.Bootstrap/ListConfigs",
            ),
        };
        let page = match service {
            "bootstrap" => json!({ "limit": 5 }),
            _ => json!({ "page": { "limit": 5 } }),
        };
        self.either((service, what, &Value::Null), (method, &page))
            .is_done(what);
    }

    /// Things and channels are given their ids, so that they are known whether there was an answer or not.
    fn make(&mut self, path: &'static str, operation: &'static str) -> Option<String> {
        let (id, name) = (self.id(), self.name());
        let body = json!({ "id": id, "name": name });
        let outcome = self.ask("things", &format!("POST /{path}"), &body);
        let is_certain = outcome.is_done(&body.to_string());
        self.note((path, id.clone(), "name"), Some(name), is_certain);
        self.announce("things", operation, "id", &id, is_certain);
        is_certain.then_some(id)
    }

    fn make_thing(&mut self) {
        let made = self.make("things", "thing.create");
        let Some(id) = made else { return };
        self.note(("things", id.clone(), "tags"), Some(String::new()), true);
        self.things.push(id);
    }

    fn make_channel(&mut self) {
        let made = self.make("channels", "channel.create");
        self.channels.extend(made);
    }

    fn make_group(&mut self) {
        let name = self.name();
        let outcome = self.ask("users", "POST /groups", &json!({ "name": name }));
        let is_certain = matches!(outcome, Outcome::Done(_));
        self.announce("users", "group.create", "name", &name, is_certain);
        match outcome {
            Outcome::Done(group) => {
                let id = group["id"].as_str().expect("an id").to_owned();
                self.note(("groups", id.clone(), "name"), Some(name), true);
                self.groups.push(id);
            }
            Outcome::Unknown => {}
            Outcome::Refused(why) => panic!("group {name}: {why}"),
        }
    }

    /// For a thing of its own, which is never disabled: that would take the configuration with it.
    fn make_config(&mut self, channel: &str) {
        let Some(thing) = self.make("things", "thing.create") else {
            return;
        };
        let name = self.name();
        let body = json!({
            "thing_id": thing,
            "external_id": format!("device {name}"),
            "external_key": "an external key",
            "channels": [channel],
            "name": name,
            "content": "{}",
        });
        let outcome = self.ask("bootstrap", "POST /things/configs", &body);
        let is_certain = outcome.is_done("POST /things/configs");
        self.announce("bootstrap", "config.create", "thing_id", &thing, is_certain);
        self.note(("configs", thing.clone(), "name"), Some(name), is_certain);
        if is_certain {
            let fact = ("configs", thing.clone(), "state");
            self.note(fact, Some("0".to_owned()), true);
            self.configs.push(thing);
        }
    }

    fn rename(
        &mut self,
        service: &'static str,
        kind: &'static str,
        operation: &'static str,
        method: &str,
        id: &str,
    ) {
        let name = self.name();
        let what = format!("{method} /{kind}/{id}");
        let rpc = match kind {
            "users" => "users.v1.Users/UpdateUser",
            "groups" => "users.v1.Groups/UpdateGroup",
            "things" => "things.v1.Things/UpdateThing",
            _ => "things.v1.Channels/UpdateChannel",
        };
        let outcome = self.either(
            (service, &what, &json!({ "name": name })),
            (rpc, &json!({ "id": id, "name": name })),
        );
        let is_certain = outcome.is_done(&what);
        self.announce(service, operation, "name", &name, is_certain);
        self.note((kind, id.to_owned(), "name"), Some(name), is_certain);
    }

    fn tag(&mut self, kind: &'static str, operation: &'static str, rpc: &str, id: &str) {
        let name = self.name();
        let what = format!("PATCH /{kind}/{id}/tags");
        let outcome = self.either(
            (kind, &what, &json!({ "tags": [name] })),
            (rpc, &json!({ "id": id, "tags": [name] })),
        );
        let is_certain = outcome.is_done(&what);
        let tags = format!("[{name}]");
        self.announce(kind, operation, "tags", &tags, is_certain);
        self.note((kind, id.to_owned(), "tags"), Some(tags), is_certain);
    }

    /// Disables and enables again, so that the rest of the game goes on.
    fn toggle(&mut self, service: &'static str, kind: &'static str, id: &str) {
        for (verb, status) in [("disable", "disabled"), ("enable", "enabled")] {
            let outcome = self.ask(service, &format!("POST /{kind}/{id}/{verb}"), &Value::Null);
            // It is refused if it is so already.
            let is_certain = !matches!(outcome, Outcome::Unknown);
            let fact = (kind, id.to_owned(), "status");
            self.note(fact, Some(status.to_owned()), is_certain);
        }
    }

    fn connect(&mut self, thing: &str, channel: &str) {
        let action = ["m_read", "m_write"][usize::from(self.dice.throw(2) == 0)];
        let body = json!({ "subjects": [thing], "objects": [channel], "actions": [action] });
        let outcome = self.either(
            ("things", "POST /connect", &body),
            ("things.v1.Policies/Connect", &body),
        );
        let is_certain = outcome.is_done(&body.to_string());
        let fact = ("thing-policies", format!("{thing} {channel}"), "actions");
        self.note(fact, Some(format!("[{action}]")), is_certain);
    }

    fn disconnect(&mut self, thing: &str, channel: &str) {
        let what = format!("DELETE /policies/{thing}/{channel}");
        let body = json!({ "subjects": [thing], "objects": [channel] });
        let outcome = self.either(
            ("things", &what, &Value::Null),
            ("things.v1.Policies/Disconnect", &body),
        );
        let is_certain = !matches!(outcome, Outcome::Unknown);
        let fact = ("thing-policies", format!("{thing} {channel}"), "actions");
        self.note(fact, None, is_certain);
    }

    fn set_content(&mut self, config: &str) {
        let name = self.name();
        let what = format!("PUT /things/configs/{config}");
        let body = json!({ "name": name, "content": "more" });
        let message = json!({ "thing_id": config, "name": name, "content": "more" });
        let outcome = self.either(
            ("bootstrap", &what, &body),
            ("bootstrap.v1.Bootstrap/UpdateConfig", &message),
        );
        let is_certain = outcome.is_done(&what);
        self.announce("bootstrap", "config.update", "name", &name, is_certain);
        self.note(
            ("configs", config.to_owned(), "name"),
            Some(name),
            is_certain,
        );
    }

    fn set_state(&mut self, config: &str) {
        let state = self.dice.throw(2);
        let what = format!("PUT /things/state/{config}");
        let outcome = self.either(
            ("bootstrap", &what, &json!({ "state": state })),
            (
                "bootstrap.v1.Bootstrap/ChangeState",
                &json!({ "thing_id": config, "state": state }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        let fact = ("configs", config.to_owned(), "state");
        self.note(fact, Some(state.to_string()), is_certain);
    }

    fn allow(&mut self, group: &str) {
        let action = ["c_list", "g_list"][usize::from(self.dice.throw(2) == 0)];
        let body = json!({ "subject": self.member, "object": group, "actions": [action] });
        let is_certain = self
            .ask("users", "POST /policies", &body)
            .is_done("POST /policies");
        let fact = (
            "user-policies",
            format!("{} {group}", self.member),
            "actions",
        );
        self.note(fact, Some(format!("[{action}]")), is_certain);
    }

    fn forbid(&mut self, group: &str) {
        let what = format!("DELETE /policies/{}/{group}", self.member);
        let is_certain = self.ask("users", &what, &Value::Null).is_done(&what);
        let fact = (
            "user-policies",
            format!("{} {group}", self.member),
            "actions",
        );
        self.note(fact, None, is_certain);
    }
}
