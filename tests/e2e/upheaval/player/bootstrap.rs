//! Configurations, devices that come for them, and what they hear of things and channels.

use serde_json::{Value, json};

use super::super::EXTERNAL_KEY;
use super::{Player, Who, text};

impl Player<'_> {
    /// For a thing of its own, which is never disabled: that would take the configuration with it.
    fn make_config(&mut self, channel: &str) -> Option<String> {
        let thing = self.make("things", "thing.create", 1).pop()?;
        let name = self.name();
        let body = json!({
            "thing_id": thing,
            "external_id": format!("device-{thing}"),
            "external_key": EXTERNAL_KEY,
            "channels": [channel],
            "name": name,
            "content": "{}",
        });
        let what = "POST /things/configs";
        let outcome = self.either(
            ("bootstrap", what, &body),
            ("bootstrap.v1.Bootstrap/AddConfig", &body),
        );
        let is_certain = outcome.is_done(what);
        self.announce("bootstrap", "config.create", "thing_id", &thing, is_certain);
        self.note(("configs", thing.clone(), "name"), Some(name), is_certain);
        if !is_certain {
            return None;
        }
        for (column, value) in [("state", "0"), ("channels", channel), ("client_cert", "")] {
            let fact = ("configs", thing.clone(), column);
            self.note(fact, Some(value.to_owned()), true);
        }
        Some(thing)
    }

    pub(super) fn add_config(&mut self) {
        let room = self.room.clone();
        let made = self.make_config(&room);
        self.configs.extend(made);
    }

    pub(super) fn set_content(&mut self) {
        let (config, name) = (self.one(|it| &it.configs), self.name());
        let what = format!("PUT /things/configs/{config}");
        let outcome = self.either(
            (
                "bootstrap",
                &what,
                &json!({ "name": name, "content": "more" }),
            ),
            (
                "bootstrap.v1.Bootstrap/UpdateConfig",
                &json!({ "thing_id": config, "name": name, "content": "more" }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        self.announce("bootstrap", "config.update", "name", &name, is_certain);
        self.note(("configs", config, "name"), Some(name), is_certain);
    }

    pub(super) fn set_certificates(&mut self) {
        let (config, name, key) = (self.one(|it| &it.configs), self.name(), self.secret());
        let certificates = json!({ "client_cert": name, "client_key": key, "ca_cert": "ca" });
        let what = format!("PATCH /things/configs/certs/{config}");
        let outcome = self.either(
            ("bootstrap", &what, &certificates),
            (
                "bootstrap.v1.Bootstrap/UpdateCertificates",
                &json!({ "thing_id": config, "certificates": certificates }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        self.note(("configs", config, "client_cert"), Some(name), is_certain);
    }

    /// The room it has, and another one.
    pub(super) fn set_connections(&mut self) {
        let Some(other) = self.make("channels", "channel.create", 1).pop() else {
            return;
        };
        let config = self.one(|it| &it.configs);
        let what = format!("PUT /things/configs/connections/{config}");
        let channels = [self.room.clone(), other];
        let outcome = self.either(
            ("bootstrap", &what, &json!({ "channels": channels })),
            (
                "bootstrap.v1.Bootstrap/UpdateConnections",
                &json!({ "thing_id": config, "channels": channels }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        if !is_certain {
            // What was disconnected before the end is heard of as if somebody else had done it.
            let fact = ("configs", config.clone(), "state");
            self.note(fact, Some("0".to_owned()), false);
        }
        let mut channels = channels;
        channels.sort();
        let fact = ("configs", config, "channels");
        self.note(fact, Some(channels.join(", ")), is_certain);
    }

    fn change_state(&mut self, config: &str, state: u64) -> bool {
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
        is_certain
    }

    pub(super) fn set_state(&mut self) {
        let (config, state) = (self.one(|it| &it.configs), self.dice.throw(2));
        self.change_state(&config, state);
    }

    pub(super) fn remove_config(&mut self) {
        let room = self.room.clone();
        let Some(config) = self.make_config(&room) else {
            return;
        };
        let what = format!("DELETE /things/configs/{config}");
        let outcome = self.either(
            ("bootstrap", &what, &Value::Null),
            (
                "bootstrap.v1.Bootstrap/RemoveConfig",
                &json!({ "thing_id": config }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        self.announce(
            "bootstrap",
            "config.remove",
            "thing_id",
            &config,
            is_certain,
        );
        self.gone(config, is_certain);
    }

    /// There is no such row, for certain or perhaps.
    fn gone(&mut self, config: String, is_certain: bool) {
        for column in ["name", "state", "channels", "client_cert"] {
            self.note(("configs", config.clone(), column), None, is_certain);
        }
    }

    pub(super) fn look_at_configs(&mut self) {
        let config = self.one(|it| &it.configs);
        let (list, view) = (json!({ "limit": 5 }), json!({ "thing_id": config }));
        let rpc = "bootstrap.v1.Bootstrap/ListConfigs";
        self.read("bootstrap", "/things/configs?limit=5", rpc, &list);
        let path = format!("/things/configs/{config}");
        let rpc = "bootstrap.v1.Bootstrap/ViewConfig";
        self.read("bootstrap", &path, rpc, &view);
    }

    /// As a device, with and without TLS.
    pub(super) fn fetch(&mut self) {
        let thing = self.one(|it| &it.configs);
        let external_id = format!("device-{thing}");
        for (path, rpc, key) in [
            ("bootstrap", "Fetch", EXTERNAL_KEY),
            ("bootstrap/secure", "FetchSecure", &*self.game.sealed_key),
        ] {
            let what = format!("GET /things/{path}/{external_id}");
            let outcome = self.either_as(
                &Who::Key(key.to_owned()),
                ("bootstrap", &what, &Value::Null),
                (
                    &format!("bootstrap.v1.Bootstrap/{rpc}"),
                    &json!({ "external_id": external_id, "external_key": key }),
                ),
            );
            if let Some(given) = outcome.done(&what)
                && path == "bootstrap"
            {
                assert_eq!(text(&given["thing_id"]), thing);
            }
        }
    }

    /// The thing of a configuration is shut out: the configuration goes.
    pub(super) fn lose_the_thing(&mut self) {
        let room = self.room.clone();
        let Some(config) = self.make_config(&room) else {
            return;
        };
        let is_certain = self.set_status("things", "things", &config, "disable", "disabled");
        self.gone(config, is_certain);
    }

    /// A channel of a configuration is shut: the configuration goes on without it.
    pub(super) fn lose_a_channel(&mut self) {
        let Some(channel) = self.make("channels", "channel.create", 1).pop() else {
            return;
        };
        let Some(config) = self.make_config(&channel) else {
            return;
        };
        let is_certain = self.set_status("things", "channels", &channel, "disable", "disabled");
        let fact = ("configs", config, "channels");
        self.note(fact, Some(String::new()), is_certain);
    }

    /// The thing of an active configuration is disconnected: it is active no longer.
    pub(super) fn lose_a_connection(&mut self) {
        let room = self.room.clone();
        let Some(config) = self.make_config(&room) else {
            return;
        };
        if !self.change_state(&config, 1) {
            return;
        }
        let fact = ("thing-policies", format!("{config} {room}"), "actions");
        self.note(fact, Some("[m_write,m_read]".to_owned()), true);
        let what = "POST /disconnect";
        let is_certain = self.disconnect_pair(what, &config, &room);
        let fact = ("configs", config, "state");
        self.note(fact, Some("0".to_owned()), is_certain);
    }
}
