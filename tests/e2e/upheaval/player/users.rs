//! Users, groups of them, and who signs in and out.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Edge, Outcome, Player, Who, text};
use crate::resets::{mails_in, token_in};

/// Somebody who signs in, as far as it is known with what.
#[derive(Default)]
pub(super) struct Account {
    pub(super) id: String,
    identities: Vec<String>,
    passwords: Vec<String>,
    /// Of a login that may have ended.
    tokens: Option<Tokens>,
}

#[derive(Clone)]
struct Tokens {
    access: String,
    refresh: String,
}

impl Account {
    pub(super) fn new(id: String, identity: String, password: String) -> Self {
        Self {
            id,
            identities: vec![identity],
            passwords: vec![password],
            tokens: None,
        }
    }
}

impl Player<'_> {
    fn keep(&mut self, pair: &Value) -> Tokens {
        let tokens = Tokens {
            access: text(&pair["access_token"]),
            refresh: text(&pair["refresh_token"]),
        };
        self.secrets
            .extend([tokens.access.clone(), tokens.refresh.clone()]);
        self.member.tokens = Some(tokens.clone());
        tokens
    }

    /// As the member, with whatever may be the right identity and password.
    pub(super) fn sign_in(&mut self) {
        let (identities, passwords) = (
            self.member.identities.clone(),
            self.member.passwords.clone(),
        );
        for identity in &identities {
            for password in &passwords {
                let login = json!({ "identity": identity, "secret": password });
                let outcome = self.either_as(
                    &Who::Nobody,
                    ("users", "POST /users/tokens/issue", &login),
                    ("users.v1.Tokens/Issue", &login),
                );
                match outcome {
                    Outcome::Unknown => return,
                    Outcome::Refused(_) => {}
                    Outcome::Done(pair) => {
                        self.keep(&pair);
                        self.member.identities = vec![identity.clone()];
                        self.member.passwords = vec![password.clone()];
                        let fact = ("users", self.member.id.clone(), "identity");
                        self.note(fact, Some(identity.clone()), true);
                        return;
                    }
                }
            }
        }
        panic!("{identities:?} cannot sign in");
    }

    /// A login of the member, and the password of it.
    fn login(&mut self) -> Option<(Tokens, String)> {
        if self.member.tokens.is_none() || self.member.passwords.len() > 1 {
            self.member.tokens = None;
            self.sign_in();
        }
        let tokens = self.member.tokens.clone()?;
        Some((tokens, self.member.passwords[0].clone()))
    }

    pub(super) fn refresh(&mut self) {
        let Some((tokens, _)) = self.login() else {
            return;
        };
        // If there is no answer, the new tokens are lost.
        self.member.tokens = None;
        let outcome = self.either_as(
            &Who::Token(tokens.refresh.clone()),
            ("users", "POST /users/tokens/refresh", &Value::Null),
            (
                "users.v1.Tokens/Refresh",
                &json!({ "refresh_token": tokens.refresh }),
            ),
        );
        if let Outcome::Done(pair) = outcome {
            let now = self.keep(&pair);
            assert_ne!(now.refresh, tokens.refresh);
        }
    }

    pub(super) fn sign_out(&mut self) {
        let Some((tokens, _)) = self.login() else {
            return;
        };
        self.member.tokens = None;
        let token = Who::Token(tokens.access.clone());
        let outcome = self.either_as(
            &token,
            ("users", "POST /users/tokens/revoke", &Value::Null),
            ("users.v1.Tokens/Revoke", &json!({ "token": tokens.access })),
        );
        if matches!(outcome, Outcome::Done(_)) {
            let profile = self.ask(&token, "users", "GET /users/profile", &Value::Null);
            assert!(!matches!(profile, Outcome::Done(_)), "signed out, and in");
        }
    }

    pub(super) fn change_secret(&mut self) {
        let Some((tokens, old)) = self.login() else {
            return;
        };
        let new = self.secret();
        let body = json!({ "old_secret": old, "new_secret": new });
        let outcome = self.either_as(
            &Who::Token(tokens.access),
            ("users", "PATCH /users/secret", &body),
            ("users.v1.Users/UpdateSecret", &body),
        );
        self.got_secret(&outcome, new);
    }

    /// Logins have ended if the member has another password.
    fn got_secret(&mut self, outcome: &Outcome, new: String) {
        match outcome {
            Outcome::Done(_) => self.member.passwords = vec![new],
            Outcome::Unknown => self.member.passwords.push(new),
            // The login had ended, or the link was another's.
            Outcome::Refused(_) => {}
        }
        self.member.tokens = None;
    }

    /// With the link of a mail, which comes when it comes.
    pub(super) fn reset_secret(&mut self) {
        if self.member.identities.len() > 1 {
            self.sign_in();
        }
        let [identity] = &self.member.identities[..] else {
            return;
        };
        let identity = identity.clone();
        let folder = self.game.folder.clone();
        let to = format!("To: {identity}\r\n");
        let mails = || -> Vec<String> {
            let mails = mails_in(&folder).into_iter();
            mails.filter(|mail| mail.contains(&to)).collect()
        };
        let before = mails().len();
        let outcome = self.either_as(
            &Who::Nobody,
            (
                "users",
                "POST /password/reset-request",
                &json!({ "email": identity }),
            ),
            (
                "users.v1.Passwords/RequestReset",
                &json!({ "email": identity, "host": "http://localhost" }),
            ),
        );
        if !outcome.is_done("a reset") {
            return;
        }
        let mail = loop {
            if let Some(mail) = mails().into_iter().nth(before) {
                break mail;
            }
            if self.game.over.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let (token, new) = (token_in(&mail), self.secret());
        self.secrets.push(token.clone());
        let body = json!({ "token": token, "password": new, "confirm_password": new });
        let outcome = self.either_as(
            &Who::Nobody,
            ("users", "PUT /password/reset", &body),
            ("users.v1.Passwords/Reset", &body),
        );
        self.got_secret(&outcome, new);
    }

    pub(super) fn change_identity(&mut self) {
        let (id, identity) = (self.member.id.clone(), self.address());
        let what = format!("PATCH /users/{id}/identity");
        let outcome = self.either(
            ("users", &what, &json!({ "identity": identity })),
            (
                "users.v1.Users/UpdateUserIdentity",
                &json!({ "id": id, "identity": identity }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        self.note(
            ("users", id, "identity"),
            Some(identity.clone()),
            is_certain,
        );
        if is_certain {
            self.member.identities.clear();
        }
        self.member.identities.push(identity);
    }

    pub(super) fn shut_member_out(&mut self) {
        let id = self.member.id.clone();
        self.toggle("users", "users", &id);
        // It may still be out: nothing else in the game shows so.
        while !self.game.over.load(Ordering::Relaxed) {
            if self.set_status("users", "users", &id, "enable", "enabled") {
                break;
            }
        }
        self.member.tokens = None;
    }

    /// A user of its own, who is given to the member.
    pub(super) fn register(&mut self) {
        let (name, identity, secret) = (self.name(), self.address(), self.secret());
        let credentials = json!({ "identity": identity, "secret": secret });
        let outcome = self.either(
            (
                "users",
                "POST /users",
                &json!({ "name": name, "credentials": credentials }),
            ),
            (
                "users.v1.Users/CreateUser",
                &json!({ "name": name, "identity": identity, "secret": secret }),
            ),
        );
        let made = outcome.done("POST /users");
        self.announce("users", "user.create", "name", &name, made.is_some());
        let Some(made) = made else { return };
        let (id, owner) = (text(&made["id"]), self.member.id.clone());
        self.note(("users", id.clone(), "name"), Some(name), true);
        let fact = ("users", id.clone(), "owner");
        self.note(fact.clone(), Some(self.user.clone()), true);
        let what = format!("PATCH /users/{id}/owner");
        let outcome = self.either(
            ("users", &what, &json!({ "owner": owner })),
            (
                "users.v1.Users/UpdateUserOwner",
                &json!({ "id": id, "owner": owner }),
            ),
        );
        let is_certain = outcome.is_done(&what);
        self.announce("users", "user.update_owner", "id", &id, is_certain);
        self.note(fact, Some(owner), is_certain);
    }

    pub(super) fn rename_user(&mut self) {
        let user = self.user.clone();
        self.rename("users", "users", "user.update", "PATCH", &user);
    }

    pub(super) fn tag_user(&mut self) {
        let (user, rpc) = (self.user.clone(), "users.v1.Users/UpdateUserTags");
        self.tag("users", "user.update_tags", rpc, &user);
    }

    pub(super) fn look_at_users(&mut self) {
        let (member, none) = (self.member.id.clone(), json!({}));
        let path = format!("/users/{member}");
        self.read(
            "users",
            "/users/profile",
            "users.v1.Users/ViewProfile",
            &none,
        );
        let message = json!({ "id": member });
        self.read("users", &path, "users.v1.Users/ViewUser", &message);
        let message = json!({ "page": { "limit": 5 } });
        self.read(
            "users",
            "/users?limit=5",
            "users.v1.Users/ListUsers",
            &message,
        );
    }

    pub(super) fn make_group(&mut self) {
        let name = self.name();
        let body = json!({ "name": name });
        let outcome = self.either(
            ("users", "POST /groups", &body),
            ("users.v1.Groups/CreateGroup", &body),
        );
        let made = outcome.done("POST /groups");
        self.announce("users", "group.create", "name", &name, made.is_some());
        let Some(made) = made else { return };
        let id = text(&made["id"]);
        self.note(("groups", id.clone(), "name"), Some(name), true);
        self.groups.push(id);
    }

    pub(super) fn rename_group(&mut self) {
        let id = self.one(|it| &it.groups);
        self.rename("users", "groups", "group.update", "PUT", &id);
    }

    pub(super) fn toggle_group(&mut self) {
        let id = self.one(|it| &it.groups);
        self.toggle("users", "groups", &id);
    }

    pub(super) fn look_at_groups(&mut self) {
        let (id, user) = (self.one(|it| &it.groups), self.user.clone());
        let page = json!({ "page": { "limit": 5 } });
        let (of_group, of_user) = (json!({ "group_id": id }), json!({ "user_id": user }));
        let id_alone = json!({ "id": id });
        for (path, rpc, message) in [
            ("/groups?limit=5".to_owned(), "ListGroups", &page),
            (format!("/groups/{id}"), "ViewGroup", &id_alone),
            (
                format!("/groups/{id}/children"),
                "ListGroupChildren",
                &id_alone,
            ),
            (
                format!("/groups/{id}/parents"),
                "ListGroupParents",
                &id_alone,
            ),
            (format!("/groups/{id}/members"), "ListMembers", &of_group),
            (
                format!("/users/{user}/memberships"),
                "ListMemberships",
                &of_user,
            ),
        ] {
            self.read("users", &path, &format!("users.v1.Groups/{rpc}"), message);
        }
        let path = "/policies?limit=5";
        self.read("users", path, "users.v1.Policies/ListPolicies", &page);
    }

    pub(super) fn allow(&mut self) {
        let group = self.one(|it| &it.groups);
        self.allow_in(&group);
    }

    fn allow_in(&mut self, group: &str) {
        let member = self.member.id.clone();
        let fact = ("user-policies", format!("{member} {group}"), "actions");
        let mut actions = ["c_list", "g_list"];
        if self.dice.throw(2) == 0 {
            actions.reverse();
        }
        let requests = [
            (actions[0], "POST", "users.v1.Policies/AddPolicy"),
            (actions[1], "PUT", "users.v1.Policies/UpdatePolicy"),
        ];
        for (action, method, rpc) in requests {
            let body = json!({ "subject": member, "object": group, "actions": [action] });
            let what = format!("{method} /policies");
            let outcome = self.either(("users", &what, &body), (rpc, &body));
            let is_certain = outcome.is_done(&what);
            self.note(fact.clone(), Some(format!("[{action}]")), is_certain);
            if !is_certain {
                return;
            }
        }
    }

    /// What is there to be taken away: of a policy that there is not nobody hears.
    pub(super) fn forbid(&mut self) {
        let group = self.one(|it| &it.groups);
        self.allow_in(&group);
        let member = self.member.id.clone();
        let what = format!("DELETE /policies/{member}/{group}");
        let outcome = self.either(
            ("users", &what, &Value::Null),
            (
                "users.v1.Policies/DeletePolicy",
                &json!({ "subject": member, "object": group }),
            ),
        );
        let fact = ("user-policies", format!("{member} {group}"), "actions");
        self.note(fact, None, outcome.is_done(&what));
    }

    /// As other services ask.
    pub(super) fn ask_about_users(&mut self) {
        let group = self.one(|it| &it.groups);
        let question = json!({
            "subject": self.user, "object": group, "action": "g_list", "entity_type": "group",
        });
        let what = "POST /authorize";
        self.either_as(
            &Who::Nobody,
            ("users", what, &question),
            ("users.v1.Policies/Authorize", &question),
        )
        .is_done(what);
        if self.edge == Edge::Rest {
            return;
        }
        let service = "mainflux.users.policies.AuthService";
        let question = json!({
            "subject": self.token, "object": group, "action": "g_list", "entityType": "group",
        });
        let token = json!({ "token": self.token });
        for (method, message) in [("Identify", token), ("Authorize", question)] {
            let method = format!("{service}/{method}");
            self.call(&Who::Nobody, &method, &message).is_done(&method);
        }
    }
}
