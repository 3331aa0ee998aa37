//! Things, channels, and what connects them.

use serde_json::{Value, json};

use super::{Edge, Outcome, Player, Who, text};

impl Player<'_> {
    /// Things and channels are given their ids, so that they are known whether there was an answer or not.
    pub(super) fn make(
        &mut self,
        path: &'static str,
        operation: &'static str,
        count: usize,
    ) -> Vec<String> {
        let new: Vec<(String, String)> = (0..count).map(|_| (self.id(), self.name())).collect();
        let items = new
            .iter()
            .map(|(id, name)| json!({ "id": id, "name": name }));
        let items: Vec<Value> = items.collect();
        let (what, body) = match &items[..] {
            [item] => (format!("POST /{path}"), item.clone()),
            items => (format!("POST /{path}/bulk"), json!(items)),
        };
        let rpc = match path {
            "things" => "things.v1.Things/CreateThings",
            _ => "things.v1.Channels/CreateChannels",
        };
        let outcome = self.either(("things", &what, &body), (rpc, &json!({ path: items })));
        let is_certain = outcome.is_done(&what);
        for (id, name) in &new {
            self.note((path, id.clone(), "name"), Some(name.clone()), is_certain);
            self.announce("things", operation, "id", id, is_certain);
        }
        match is_certain {
            true => new.into_iter().map(|(id, _)| id).collect(),
            false => Vec::new(),
        }
    }

    fn keep_things(&mut self, count: usize) {
        for id in self.make("things", "thing.create", count) {
            self.note(("things", id.clone(), "tags"), Some(String::new()), true);
            self.things.push(id);
        }
    }

    pub(super) fn make_thing(&mut self) {
        self.keep_things(1);
    }

    pub(super) fn make_things(&mut self) {
        self.keep_things(2);
    }

    pub(super) fn make_channel(&mut self) {
        let made = self.make("channels", "channel.create", 1);
        self.channels.extend(made);
    }

    pub(super) fn make_channels(&mut self) {
        let made = self.make("channels", "channel.create", 2);
        self.channels.extend(made);
    }

    pub(super) fn rename_thing(&mut self) {
        let id = self.one(|it| &it.things);
        self.rename("things", "things", "thing.update", "PATCH", &id);
    }

    pub(super) fn tag_thing(&mut self) {
        let id = self.one(|it| &it.things);
        let rpc = "things.v1.Things/UpdateThingTags";
        self.tag("things", "thing.update_tags", rpc, &id);
    }

    pub(super) fn toggle_thing(&mut self) {
        let id = self.one(|it| &it.things);
        self.toggle("things", "things", &id);
    }

    pub(super) fn rename_channel(&mut self) {
        let id = self.one(|it| &it.channels);
        self.rename("things", "channels", "channel.update", "PUT", &id);
        // Configurations have this one.
        let room = self.room.clone();
        self.rename("things", "channels", "channel.update", "PUT", &room);
    }

    pub(super) fn toggle_channel(&mut self) {
        let id = self.one(|it| &it.channels);
        self.toggle("things", "channels", &id);
    }

    /// The lamp gets another key.
    pub(super) fn rotate_key(&mut self) {
        let (id, key) = (self.lamp.0.clone(), self.secret());
        let what = format!("PATCH /things/{id}/secret");
        let outcome = self.either(
            ("things", &what, &json!({ "secret": key })),
            (
                "things.v1.Things/UpdateThingKey",
                &json!({ "id": id, "key": key }),
            ),
        );
        if outcome.is_done(&what) {
            self.lamp.1.clear();
        }
        self.lamp.1.push(key);
    }

    /// The lamp's key is lent, read and asked back, as services do it among themselves.
    pub(super) fn lend_key(&mut self) {
        let by_id = json!({ "id": self.lamp.0 });
        let [lend, read, end] = ["LendThingKey", "ReadLentThingKey", "EndThingKeyLoan"]
            .map(|it| format!("rollcall.things.v1.Things/{it}"));
        let Outcome::Done(lent) = self.call(&self.me(), &lend, &by_id) else {
            return;
        };
        let loan = text(&lent["loan"]);
        let with_loan = json!({ "id": self.lamp.0, "loan": loan });
        self.secrets.push(loan);
        self.call(&Who::Nobody, &read, &with_loan).is_done(&read);
        self.call(&self.me(), &end, &by_id).is_done(&end);
    }

    /// A thing that is not needed any longer.
    pub(super) fn give_thing_away(&mut self) {
        let Some(id) = self.make("things", "thing.create", 1).pop() else {
            return;
        };
        let owner = self.member.id.clone();
        let what = format!("PATCH /things/{id}/owner");
        let outcome = self.either(
            ("things", &what, &json!({ "owner": owner })),
            (
                "things.v1.Things/UpdateThingOwner",
                &json!({ "id": id, "owner": owner }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        self.announce("things", "thing.update_owner", "id", &id, is_certain);
        let fact = ("things", id, "owner");
        self.note(fact.clone(), Some(self.user.clone()), true);
        self.note(fact, Some(owner), is_certain);
    }

    pub(super) fn look_at_things(&mut self) {
        let (id, room) = (self.one(|it| &it.things), self.room.clone());
        let (page, by_id) = (json!({ "page": { "limit": 5 } }), json!({ "id": id }));
        let by_channel = json!({ "channel_id": room });
        for (path, rpc, message) in [
            ("/things?limit=5".to_owned(), "ListThings", &page),
            (format!("/things/{id}"), "ViewThing", &by_id),
            (
                format!("/channels/{room}/things"),
                "ListThingsByChannel",
                &by_channel,
            ),
        ] {
            self.read("things", &path, &format!("things.v1.Things/{rpc}"), message);
        }
        let path = "/policies?limit=5";
        self.read("things", path, "things.v1.Policies/ListPolicies", &page);
    }

    pub(super) fn look_at_channels(&mut self) {
        let (id, thing) = (self.one(|it| &it.channels), self.lamp.0.clone());
        let (page, by_id) = (json!({ "page": { "limit": 5 } }), json!({ "id": id }));
        let by_thing = json!({ "thing_id": thing });
        for (path, rpc, message) in [
            ("/channels?limit=5".to_owned(), "ListChannels", &page),
            (format!("/channels/{id}"), "ViewChannel", &by_id),
            (
                format!("/channels/{id}/children"),
                "ListChannelChildren",
                &by_id,
            ),
            (
                format!("/channels/{id}/parents"),
                "ListChannelParents",
                &by_id,
            ),
            (
                format!("/things/{thing}/channels"),
                "ListChannelsByThing",
                &by_thing,
            ),
        ] {
            self.read(
                "things",
                &path,
                &format!("things.v1.Channels/{rpc}"),
                message,
            );
        }
    }

    fn pair(&mut self) -> (String, String) {
        (self.one(|it| &it.things), self.one(|it| &it.channels))
    }

    /// By one of the two ways that there are over REST. False if nobody knows whether it has happened.
    fn connect_pair(&mut self, what: &str, thing: &str, channel: &str) -> bool {
        let action = ["m_read", "m_write"][usize::from(self.dice.throw(2) == 0)];
        let many = json!({ "subjects": [thing], "objects": [channel], "actions": [action] });
        let one = json!({ "subject": thing, "object": channel, "actions": [action] });
        let body = match what {
            "POST /connect" => &many,
            _ => &one,
        };
        let outcome = self.either(
            ("things", what, body),
            ("things.v1.Policies/Connect", &many),
        );
        let is_certain = outcome.is_done(what);
        let fact = ("thing-policies", format!("{thing} {channel}"), "actions");
        self.note(fact, Some(format!("[{action}]")), is_certain);
        is_certain
    }

    pub(super) fn connect(&mut self) {
        let (thing, channel) = self.pair();
        self.connect_pair("POST /connect", &thing, &channel);
    }

    pub(super) fn connect_one(&mut self) {
        let (thing, channel) = self.pair();
        self.connect_pair("POST /policies", &thing, &channel);
    }

    /// Both of what it may do already.
    pub(super) fn change_policy(&mut self) {
        let (lamp, room) = (self.lamp.0.clone(), self.room.clone());
        let body = json!({ "subject": lamp, "object": room, "actions": ["m_read", "m_write"] });
        let what = "PUT /policies";
        let outcome = self.either(
            ("things", what, &body),
            ("things.v1.Policies/UpdatePolicy", &body),
        );
        let is_certain = outcome.is_done(what);
        let fact = ("thing-policies", format!("{lamp} {room}"), "actions");
        self.note(fact, Some("[m_write,m_read]".to_owned()), is_certain);
    }

    /// False if nobody knows whether it has happened.
    pub(super) fn disconnect_pair(&mut self, what: &str, thing: &str, channel: &str) -> bool {
        let pairs = json!({ "subjects": [thing], "objects": [channel] });
        let body = match what {
            "POST /disconnect" => &pairs,
            _ => &Value::Null,
        };
        let outcome = self.either(
            ("things", what, body),
            ("things.v1.Policies/Disconnect", &pairs),
        );
        // It is refused if it is so already.
        let is_certain = !matches!(outcome, Outcome::Unknown);
        let fact = ("thing-policies", format!("{thing} {channel}"), "actions");
        self.note(fact, None, is_certain);
        is_certain
    }

    pub(super) fn disconnect(&mut self) {
        let (thing, channel) = self.pair();
        if self.connect_pair("POST /connect", &thing, &channel) {
            self.disconnect_pair("POST /disconnect", &thing, &channel);
        }
    }

    pub(super) fn disconnect_one(&mut self) {
        let (thing, channel) = self.pair();
        if self.connect_pair("POST /connect", &thing, &channel) {
            let what = format!("DELETE /policies/{thing}/{channel}");
            self.disconnect_pair(&what, &thing, &channel);
        }
    }

    /// As fronts ask. One of the keys is that of the lamp.
    pub(super) fn ask_about_things(&mut self) {
        let mut found = 0;
        let keys = self.lamp.1.clone();
        for key in &keys {
            for outcome in self.questions(key) {
                match outcome {
                    Outcome::Done(answer) => {
                        let ids = ["id", "thing_id", "thingID"];
                        let id = ids.iter().find_map(|name| answer.get(name));
                        assert_eq!(text(id.expect("an id")), self.lamp.0);
                        found += 1;
                    }
                    Outcome::Refused(why) => assert!(keys.len() > 1, "{why}"),
                    Outcome::Unknown => return,
                }
            }
        }
        assert!(found > 0, "no key of {keys:?} is right");
    }

    fn questions(&self, key: &str) -> Vec<Outcome> {
        let what = format!("POST /channels/{}/access", self.room);
        let question = json!({
            "subject": key, "object": self.room, "action": "m_write", "entity_type": "thing",
        });
        let mut outcomes = vec![
            self.either_as(
                &Who::Key(key.to_owned()),
                ("things", "POST /identify", &Value::Null),
                ("things.v1.Things/IdentifyThing", &json!({ "key": key })),
            ),
            self.either_as(
                &Who::Nobody,
                ("things", &what, &question),
                ("things.v1.Policies/Authorize", &question),
            ),
        ];
        if self.edge == Edge::Grpc {
            let service = "mainflux.things.policies.AuthService";
            let question = json!({
                "subject": key, "object": self.room, "action": "m_write", "entityType": "thing",
            });
            let key = json!({ "secret": key });
            for (method, message) in [("Identify", key), ("Authorize", question)] {
                outcomes.push(self.call(&Who::Nobody, &format!("{service}/{method}"), &message));
            }
        }
        outcomes
    }
}
