//! What tokens and keys are good for, asked directly over gRPC: what is given, what is refused and why, what is told of
//! it, and how often one may guess.

use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::contract::grpc::Caller;
use crate::world::World;

const PASSWORD: &str = "the first password";

struct Asking<'a> {
    world: &'a World,
    caller: Caller,
}

impl<'a> Asking<'a> {
    fn new(world: &'a World) -> Self {
        Self {
            world,
            caller: Caller::new(world.grpc()),
        }
    }

    fn ask(&self, method: &str, body: &Value) -> Result<Value, Status> {
        self.world.secrets.add_from(body);
        self.caller
            .call(&format!("rollcall.{method}"), &body.to_string(), None)
    }

    fn done(&self, method: &str, body: &Value) -> Value {
        let answer = self.ask(method, body);
        answer.unwrap_or_else(|status| panic!("{method} {body}: {status:?}"))
    }

    /// Refused with this code, and for this reason, or because of this field.
    fn refused(&self, method: &str, body: &Value, code: Code, reason: &str) {
        let status = self.ask(method, body).expect_err(method);
        assert_eq!(status.code(), code, "{method} {body}: {status:?}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(details.contains(reason), "{method} {body}: {details:?}");
    }

    fn register(&self, name: &str) -> (String, Value) {
        let login = json!({ "identity": format!("{name}@example.com"), "secret": PASSWORD });
        let made = self.done("users.v1.Users/CreateUser", &login);
        (made["id"].as_str().expect("an id").to_owned(), login)
    }

    /// Access and refresh token.
    fn sign_in(&self, login: &Value) -> [String; 2] {
        self.pair(&self.done("users.v1.Tokens/Issue", login))
    }

    fn refresh(&self, token: &str) -> [String; 2] {
        let asked = json!({ "refresh_token": token });
        self.pair(&self.done("users.v1.Tokens/Refresh", &asked))
    }

    fn pair(&self, pair: &Value) -> [String; 2] {
        ["access_token", "refresh_token"].map(|name| {
            let token = pair[name].as_str().expect("a token").to_owned();
            self.world.secrets.add(&*token);
            token
        })
    }

    fn is_in(&self, access: &str) -> bool {
        let method = "rollcall.users.v1.Users/ViewProfile";
        match self.caller.call(method, "", Some(access)) {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
                false
            }
        }
    }

    /// How often an operation was told of.
    fn told(&self, stream: &str, operation: &str) -> usize {
        let events = self.world.stream(stream).into_iter();
        events.filter(|it| it["operation"] == operation).count()
    }
}

const REFRESH: &str = "users.v1.Tokens/Refresh";
const REVOKE: &str = "users.v1.Tokens/Revoke";
const WRONG: &str = "TOKEN_MISSING_OR_WRONG";

#[test]
fn a_refresh_token_is_exchanged_once_and_its_second_use_ends_the_login() {
    let world = World::start();
    let asking = Asking::new(&world);
    let (_, login) = asking.register("ada");
    let [access, first] = asking.sign_in(&login);
    let [elsewhere, _] = asking.sign_in(&login);
    let [second_access, second] = asking.refresh(&first);
    assert!(asking.is_in(&access) && asking.is_in(&second_access));
    let [third_access, third] = asking.refresh(&second);
    assert_eq!(asking.told("users", "user.refresh_token"), 2);
    let event = world.stream("users").pop().expect("told");
    assert_eq!(
        event.len(),
        2,
        "nothing but what it is, and when: {event:?}"
    );

    // What is none: an access token, one that was changed, nothing.
    for wrong in [&*third_access, &third[1..], &format!("{third}x"), "x", ""] {
        let wrong = json!({ "refresh_token": wrong });
        asking.refused(REFRESH, &wrong, Code::Unauthenticated, WRONG);
    }
    assert!(asking.is_in(&third_access), "a guess ends nothing");

    // Somebody has it who should not: nobody can go on with the login.
    let reused = json!({ "refresh_token": first });
    asking.refused(REFRESH, &reused, Code::Unauthenticated, WRONG);
    for token in [&access, &second_access, &third_access] {
        assert!(!asking.is_in(token));
    }
    let latest = json!({ "refresh_token": third });
    asking.refused(REFRESH, &latest, Code::Unauthenticated, WRONG);
    assert!(asking.is_in(&elsewhere), "another login is another");
    assert_eq!(asking.told("users", "user.refresh_token"), 2);
}

#[test]
fn either_token_ends_its_login_and_no_other() {
    let world = World::start();
    let asking = Asking::new(&world);
    let (id, login) = asking.register("ada");
    let logins = [(); 3].map(|()| asking.sign_in(&login));
    let [
        [first, first_refresh],
        [second, second_refresh],
        [third, third_refresh],
    ] = &logins;
    for wrong in [&first[1..], "not a token", ""] {
        let wrong = json!({ "token": wrong });
        asking.refused(REVOKE, &wrong, Code::Unauthenticated, WRONG);
    }
    let before = world.stream("users").len();
    asking.done(REVOKE, &json!({ "token": first }));
    asking.done(REVOKE, &json!({ "token": second_refresh }));
    // That it has ended is no obstacle.
    asking.done(REVOKE, &json!({ "token": first_refresh }));
    assert_eq!(world.stream("users").len(), before, "nothing is told of it");
    assert!(!asking.is_in(first) && !asking.is_in(second));
    for token in [first_refresh, second_refresh] {
        let token = json!({ "refresh_token": token });
        asking.refused(REFRESH, &token, Code::Unauthenticated, WRONG);
    }
    assert!(asking.is_in(third));

    // A login of somebody who is shut out goes on with nothing.
    let admin = std::fs::read_to_string(world.folder().join("data/secrets/admin.token"));
    let disable = "rollcall.users.v1.Users/DisableUser";
    let body = json!({ "id": id }).to_string();
    let admin = admin.expect("a token");
    let out = asking.caller.call(disable, &body, Some(&admin));
    out.expect("disabled");
    let token = json!({ "refresh_token": third_refresh });
    asking.refused(REFRESH, &token, Code::Unauthenticated, WRONG);
    assert!(!asking.is_in(third));
}

#[test]
fn who_guesses_passwords_over_grpc_is_not_heard_for_a_while() {
    let world = World::with(&[("ROLLCALL_USERS__MAX_GUESSES", "3")]);
    let asking = Asking::new(&world);
    let (_, ada) = asking.register("ada");
    let (_, bob) = asking.register("bob");
    let issue = "users.v1.Tokens/Issue";
    let guess = json!({ "identity": "ada@example.com", "secret": "a wrong guess" });
    for _ in 0..3 {
        asking.refused(issue, &guess, Code::Unauthenticated, "WRONG_CREDENTIALS");
    }
    asking.refused(issue, &guess, Code::ResourceExhausted, "BUSY");
    asking.refused(issue, &ada, Code::ResourceExhausted, "BUSY");
    asking.sign_in(&bob);
    assert_eq!(asking.told("users", "user.issue_token"), 1);
    let empty = json!({ "identity": "", "secret": "a wrong guess" });
    asking.refused(issue, &empty, Code::InvalidArgument, "identity");
}

#[test]
fn a_key_tells_its_thing_and_what_that_may_and_nothing_else() {
    let world = World::start();
    let asking = Asking::new(&world);
    let (lamp, kitchen) = (world.thing("lamp"), world.channel());
    let other = world.channel();
    world.grant(&lamp, &kitchen, "m_write");
    let identify = "things.v1.Things/IdentifyThing";
    let authorize = "things.v1.Policies/Authorize";
    let identified = asking.told("things", "thing.identify");
    let found = asking.done(identify, &json!({ "key": lamp.key }));
    assert_eq!(found, json!({ "id": lamp.id }));
    assert_eq!(asking.told("things", "thing.identify"), identified + 1);
    let event = world.stream("things").pop().expect("told");
    assert_eq!(event["thing_id"], lamp.id);
    assert_eq!(event.len(), 3, "{event:?}");

    let question = |object: &str, action: &str, entity: &str| json!({ "subject": lamp.key, "object": object, "action": action, "entity_type": entity });
    for (entity, told) in [
        ("", "thing"),
        ("thing", "thing"),
        ("group", "group"),
        ("client", "client"),
    ] {
        let found = asking.done(authorize, &question(&kitchen, "m_write", entity));
        assert_eq!(found, json!({ "thing_id": lamp.id }));
        let event = world.stream("things").pop().expect("told");
        assert_eq!(event["operation"], "policies.authorize");
        let fields = [&event["entity_type"], &event["object"], &event["actions"]];
        assert_eq!(fields, [told, &kitchen, "m_write"]);
        assert_eq!(event.len(), 5, "{event:?}");
    }

    // What is refused is told to nobody else.
    let before = world.stream("things").len();
    let unknown = "a key that nobody has";
    for (key, code, reason) in [
        (unknown, Code::NotFound, ""),
        (&lamp.key[1..], Code::NotFound, ""),
        ("76a58221-e319-492a-be3e-b3d15631e92a", Code::NotFound, ""),
        ("", Code::InvalidArgument, "key"),
    ] {
        asking.refused(identify, &json!({ "key": key }), code, reason);
    }
    for (asked, code, reason) in [
        (question(&kitchen, "m_read", ""), Code::PermissionDenied, ""),
        (question(&other, "m_write", ""), Code::PermissionDenied, ""),
        (
            question("no channel", "m_write", ""),
            Code::PermissionDenied,
            "",
        ),
        (question("", "m_write", ""), Code::PermissionDenied, ""),
        (
            question(&kitchen, "c_list", ""),
            Code::InvalidArgument,
            "action",
        ),
        (question(&kitchen, "", ""), Code::InvalidArgument, "action"),
        (
            question(&kitchen, "m_write", "robot"),
            Code::InvalidArgument,
            "entity_type",
        ),
        (
            json!({ "subject": unknown, "object": kitchen, "action": "m_write" }),
            Code::PermissionDenied,
            "",
        ),
        (
            json!({ "subject": "", "object": kitchen, "action": "m_write" }),
            Code::InvalidArgument,
            "subject",
        ),
    ] {
        asking.refused(authorize, &asked, code, reason);
    }
    assert_eq!(world.stream("things").len(), before);

    // Who is shut out is nobody, and what was taken back is gone, at once.
    world.tell(&["disconnect", &lamp.id, &kitchen]);
    let asked = question(&kitchen, "m_write", "");
    asking.refused(authorize, &asked, Code::PermissionDenied, "");
    world.grant(&lamp, &kitchen, "m_write");
    asking.done(authorize, &asked);
    world.tell(&["things", "disable", &lamp.id]);
    asking.refused(authorize, &asked, Code::PermissionDenied, "");
    asking.refused(identify, &json!({ "key": lamp.key }), Code::NotFound, "");
}
