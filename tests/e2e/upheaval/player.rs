//! Somebody who does everything there is to be done, and knows what must have come of it.

mod bootstrap;
mod things;
mod users;

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
use users::Account;

/// How long somebody waits before trying a server again that is gone.
const PAUSE: Duration = Duration::from_millis(5);

/// What came of a request.
enum Outcome {
    Done(Value),
    /// Understood and refused: that it is so already, that there is none, that a login has ended or a key is not right.
    Refused(String),
    /// The server is gone: it may or may not have happened.
    Unknown,
}

impl Outcome {
    /// Of what is never refused: it has happened, or nobody knows.
    fn is_done(&self, what: &str) -> bool {
        self.done(what).is_some()
    }

    /// As [`Self::is_done`], with the answer.
    fn done(&self, what: &str) -> Option<&Value> {
        match self {
            Self::Done(value) => Some(value),
            Self::Unknown => None,
            Self::Refused(why) => panic!("{what}: {why}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Rest,
    Grpc,
}

/// Who asks.
#[derive(Clone, Debug)]
enum Who {
    /// Without a word about it.
    Nobody,
    Token(String),
    /// A thing or a device.
    Key(String),
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
    /// What is to be done before it is done again.
    deck: Vec<(Act, Edge)>,
    /// By which way it is asked.
    edge: Edge,
    things: Vec<String>,
    channels: Vec<String>,
    groups: Vec<String>,
    configs: Vec<String>,
    /// A user of its own, who is in groups, and signs in and out.
    member: Account,
    /// A thing that is never shut out, with the keys that it may have.
    lamp: (String, Vec<String>),
    /// A channel that is never shut; the lamp is connected to it.
    room: String,
    pub(super) facts: BTreeMap<Fact, Possible>,
    pub(super) announced: Vec<Announced>,
    /// What must not be left behind.
    pub(super) secrets: Vec<String>,
    /// Where gRPC was served last, and who asks there.
    caller: RefCell<Option<(String, Caller)>>,
}

/// Something to do.
type Act = for<'a, 'b> fn(&'b mut Player<'a>);

/// Everything there is to do, each over REST and over gRPC.
const ACTS: &[Act] = &[
    |it| it.register(),
    |it| it.sign_in(),
    |it| it.refresh(),
    |it| it.sign_out(),
    |it| it.change_secret(),
    |it| it.reset_secret(),
    |it| it.change_identity(),
    |it| it.shut_member_out(),
    |it| it.rename_user(),
    |it| it.tag_user(),
    |it| it.look_at_users(),
    |it| it.make_group(),
    |it| it.rename_group(),
    |it| it.toggle_group(),
    |it| it.look_at_groups(),
    |it| it.allow(),
    |it| it.forbid(),
    |it| it.ask_about_users(),
    |it| it.make_thing(),
    |it| it.make_things(),
    |it| it.rename_thing(),
    |it| it.tag_thing(),
    |it| it.rotate_key(),
    |it| it.lend_key(),
    |it| it.give_thing_away(),
    |it| it.toggle_thing(),
    |it| it.look_at_things(),
    |it| it.make_channel(),
    |it| it.make_channels(),
    |it| it.rename_channel(),
    |it| it.toggle_channel(),
    |it| it.look_at_channels(),
    |it| it.connect(),
    |it| it.connect_one(),
    |it| it.change_policy(),
    |it| it.disconnect(),
    |it| it.disconnect_one(),
    |it| it.ask_about_things(),
    |it| it.add_config(),
    |it| it.set_content(),
    |it| it.set_certificates(),
    |it| it.set_connections(),
    |it| it.set_state(),
    |it| it.remove_config(),
    |it| it.look_at_configs(),
    |it| it.fetch(),
    |it| it.lose_the_thing(),
    |it| it.lose_a_channel(),
    |it| it.lose_a_connection(),
];

impl<'a> Player<'a> {
    /// With one of everything, while the server is there.
    pub(super) fn join(world: &World, game: &'a Game, number: u64, seed: u64) -> Self {
        let mut player = Self {
            game,
            dice: Dice(seed.wrapping_add(number)),
            number,
            token: String::new(),
            user: String::new(),
            count: 0,
            deck: Vec::new(),
            edge: Edge::Rest,
            things: Vec::new(),
            channels: Vec::new(),
            groups: Vec::new(),
            configs: Vec::new(),
            member: Account::default(),
            lamp: (String::new(), Vec::new()),
            room: String::new(),
            caller: RefCell::new(None),
            facts: BTreeMap::new(),
            announced: Vec::new(),
            secrets: Vec::new(),
        };
        player.settle();
        for secret in player.secrets.drain(..) {
            world.secrets.add(secret);
        }
        player
    }

    fn settle(&mut self) {
        let identity = format!("player-{}@example.com", self.number);
        let secret = format!("the secret of {}", self.number);
        let credentials = json!({ "identity": identity, "secret": secret });
        let name = self.name();
        let user = json!({ "name": name, "credentials": credentials });
        let user = self.must("users", "POST /users", &user);
        self.user = text(&user["id"]);
        let user = self.user.clone();
        self.note(("users", user.clone(), "name"), Some(name), true);
        self.note(("users", user, "tags"), Some(String::new()), true);
        let tokens = self.must("users", "POST /users/tokens/issue", &credentials);
        self.token = text(&tokens["access_token"]);
        self.secrets.extend([secret, self.token.clone()]);
        let (identity, secret) = (self.address(), self.secret());
        let credentials = json!({ "identity": identity, "secret": secret });
        let new = json!({ "credentials": credentials });
        let member = self.must("users", "POST /users", &new);
        let id = text(&member["id"]);
        let fact = ("users", id.clone(), "identity");
        self.note(fact, Some(identity.clone()), true);
        self.member = Account::new(id, identity, secret);
        let key = self.secret();
        let new = json!({ "name": "lamp", "credentials": { "secret": key } });
        let lamp = self.must("things", "POST /things", &new);
        self.lamp = (text(&lamp["id"]), vec![key]);
        let name = self.name();
        let room = self.must("things", "POST /channels", &json!({ "name": name }));
        self.room = text(&room["id"]);
        let fact = ("channels", self.room.clone(), "name");
        self.note(fact, Some(name), true);
        let pair = json!({ "subjects": [self.lamp.0], "objects": [self.room] });
        self.must("things", "POST /connect", &pair);
        let pair = format!("{} {}", self.lamp.0, self.room);
        let fact = ("thing-policies", pair, "actions");
        self.note(fact, Some("[m_write,m_read]".to_owned()), true);
        for make in [Self::make_thing, Self::make_channel, Self::make_group] {
            make(self);
        }
        self.add_config();
    }

    /// A name that nobody has had.
    fn name(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.number, self.count)
    }

    /// An address that nobody has had.
    fn address(&mut self) -> String {
        format!("member-{}@example.com", self.name())
    }

    /// A password or key that nobody has had.
    fn secret(&mut self) -> String {
        let secret = format!("a secret of {}", self.name());
        self.secrets.push(secret.clone());
        secret
    }

    /// Where a service is now. Waits a little if it is gone.
    fn place(&self, service: &str) -> Option<String> {
        let places = self.game.places.lock().expect("lock").clone();
        if places.is_none() {
            thread::sleep(PAUSE);
        }
        places.map(|places| places[service].clone())
    }

    fn me(&self) -> Who {
        match self.token.as_str() {
            "" => Who::Nobody,
            token => Who::Token(token.to_owned()),
        }
    }

    /// Asks over REST.
    fn ask(&self, who: &Who, service: &str, what: &str, body: &Value) -> Outcome {
        let Some(address) = self.place(service) else {
            return Outcome::Unknown;
        };
        let credentials = match who {
            Who::Nobody => None,
            Who::Token(token) => Some(format!("Authorization: Bearer {token}")),
            Who::Key(key) => Some(format!("Authorization: Thing {key}")),
        };
        // For those who want a new password.
        let mut headers = vec![
            "Content-Type: application/json",
            "Referer: http://localhost",
        ];
        headers.extend(credentials.as_deref());
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let Ok(answer) = try_send(&address, what, &headers, text.as_bytes()) else {
            thread::sleep(PAUSE);
            return Outcome::Unknown;
        };
        match answer.status {
            200..300 => {
                self.game.did(&format!("{service} {what}"));
                Outcome::Done(serde_json::from_str(&answer.body).unwrap_or_default())
            }
            // It is on its way out.
            503 => Outcome::Unknown,
            400 | 401 | 403 | 404 | 409 => Outcome::Refused(format!("{answer:?}")),
            _ => panic!("{what} {body}: {answer:?}"),
        }
    }

    fn must(&self, service: &str, what: &str, body: &Value) -> Value {
        match self.ask(&self.me(), service, what, body) {
            Outcome::Done(value) => value,
            Outcome::Refused(why) => panic!("{what}: {why}"),
            Outcome::Unknown => panic!("{what}: nobody answers"),
        }
    }

    /// Asks over gRPC; a key is in the message.
    fn call(&self, who: &Who, method: &str, body: &Value) -> Outcome {
        let Some(address) = self.place("grpc") else {
            return Outcome::Unknown;
        };
        let mut caller = self.caller.borrow_mut();
        let known = caller.take().filter(|(known, _)| *known == address);
        let (_, caller) = caller.insert(known.unwrap_or_else(|| {
            let caller = Caller::new(&address);
            (address, caller)
        }));
        let token = match who {
            Who::Token(token) => Some(token.as_str()),
            Who::Nobody | Who::Key(_) => None,
        };
        match caller.call(method, &body.to_string(), token) {
            Ok(value) => {
                self.game.did(&format!("grpc {method}"));
                Outcome::Done(value)
            }
            // The server has not said so, or is on its way out.
            Err(status) if status.source().is_some() || status.code() == Code::Unavailable => {
                thread::sleep(PAUSE);
                Outcome::Unknown
            }
            Err(status) => match status.code() {
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::Unauthenticated
                | Code::PermissionDenied => Outcome::Refused(format!("{status:?}")),
                _ => panic!("{method} {body}: {status:?}"),
            },
        }
    }

    /// Asks over REST or gRPC, whichever it is the turn of.
    fn either(&self, rest: (&str, &str, &Value), grpc: (&str, &Value)) -> Outcome {
        self.either_as(&self.me(), rest, grpc)
    }

    fn either_as(&self, who: &Who, rest: (&str, &str, &Value), grpc: (&str, &Value)) -> Outcome {
        match self.edge {
            Edge::Rest => self.ask(who, rest.0, rest.1, rest.2),
            Edge::Grpc => self.call(who, &format!("rollcall.{}", grpc.0), grpc.1),
        }
    }

    /// Asks for something that changes nothing.
    fn read(&self, service: &str, path: &str, method: &str, message: &Value) {
        let what = format!("GET {path}");
        self.either((service, &what, &Value::Null), (method, message))
            .is_done(&what);
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

    /// One of them; there is always one.
    fn one(&mut self, of: fn(&Self) -> &Vec<String>) -> String {
        let n = self.dice.throw(of(self).len() as u64);
        of(self)[usize::try_from(n).expect("a small number")].clone()
    }

    pub(super) fn play(&mut self) {
        while !self.game.over.load(Ordering::Relaxed) {
            let (act, edge) = match self.deck.pop() {
                Some(card) => card,
                None => {
                    self.shuffle();
                    continue;
                }
            };
            self.edge = edge;
            act(self);
        }
    }

    fn shuffle(&mut self) {
        let edges = [Edge::Rest, Edge::Grpc];
        let cards = ACTS.iter().flat_map(|act| edges.map(|edge| (*act, edge)));
        self.deck = cards.collect();
        for n in (1..self.deck.len()).rev() {
            let other = self.dice.throw(n as u64 + 1);
            self.deck
                .swap(n, usize::try_from(other).expect("a small number"));
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
            self.set_status(service, kind, id, verb, status);
        }
    }

    fn set_status(
        &mut self,
        service: &'static str,
        kind: &'static str,
        id: &str,
        verb: &str,
        status: &str,
    ) -> bool {
        let rpc = match (kind, verb) {
            ("users", "enable") => "users.v1.Users/EnableUser",
            ("users", _) => "users.v1.Users/DisableUser",
            ("groups", "enable") => "users.v1.Groups/EnableGroup",
            ("groups", _) => "users.v1.Groups/DisableGroup",
            ("things", "enable") => "things.v1.Things/EnableThing",
            ("things", _) => "things.v1.Things/DisableThing",
            (_, "enable") => "things.v1.Channels/EnableChannel",
            _ => "things.v1.Channels/DisableChannel",
        };
        let outcome = self.either(
            (service, &format!("POST /{kind}/{id}/{verb}"), &Value::Null),
            (rpc, &json!({ "id": id })),
        );
        // It is refused if it is so already.
        let is_certain = !matches!(outcome, Outcome::Unknown);
        let fact = (kind, id.to_owned(), "status");
        let before = || vec![Some("enabled".to_owned())];
        self.facts.entry(fact.clone()).or_insert_with(before);
        self.note(fact, Some(status.to_owned()), is_certain);
        is_certain
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
