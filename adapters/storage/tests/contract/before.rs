//! Databases of earlier versions: what they have is kept.

use std::path::Path;

use rollcall_domain::entity::{Metadata, Status, Update};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{
    Details, Group, GroupFilter, GroupStore, People, PolicyFilter, PolicyStore, Subject,
};
use rollcall_domain::identity::{ChannelId, GroupId, ThingId};
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::things::{Scope, ThingFilter, ThingStore};
use rollcall_domain::users::UserFilter;
use rollcall_storage::database::Database;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::groups as contract;

/// Channels and grants of a file that was made before there were groups and policies.
#[tokio::test]
async fn channels_and_grants_of_before_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rollcall.db");
    let mut file = as_of(&path, 4).await;
    sqlx::raw_sql(
        "INSERT INTO users VALUES (zeroblob(16), 'admin', '', '', 1, 1, 1);
         INSERT INTO things (id, owner, name, tags, metadata, key_hash, enabled, created_at)
         VALUES (x'31313131313131313131313131313131', zeroblob(16), '', '[]', '{}', x'01', 1, 1);
         INSERT INTO channels VALUES
         (x'43434343434343434343434343434341', zeroblob(16), 'hall', '{\"a\":1}', 1, 2, NULL, NULL),
         (x'43434343434343434343434343434342', zeroblob(16), 'hall', '{}', 0, 3, 9, zeroblob(16)),
         (x'43434343434343434343434343434343', zeroblob(16), '', '{}', 1, 1, NULL, NULL);
         INSERT INTO grants VALUES
         (x'31313131313131313131313131313131', x'43434343434343434343434343434341', 1, 0, 4, NULL),
         (x'31313131313131313131313131313131', x'43434343434343434343434343434342', 0, 1, 5, 6);",
    )
    .execute(&mut file)
    .await
    .expect("filled");
    file.close().await.expect("closed");

    let database = Database::open(&path).await.expect("brought up to date");
    let owner = contract::user(0);
    let channel = |end: u8| {
        let mut id = [0x43; 16];
        id[15] = end;
        ChannelId::from_bytes(id)
    };
    let thing = Subject::Thing(ThingId::from_bytes([0x31; 16]));
    let page = Page::default();
    let all = GroupFilter::<ChannelId> {
        status: StatusFilter::All,
        ..GroupFilter::default()
    };
    let channels = database.groups(&all, page).await.expect("read").items;
    let names: Vec<_> = channels.iter().map(|it| (it.id, &*it.name)).collect();
    let expected = [
        (channel(0x43), ""),
        (channel(0x41), "hall"),
        (channel(0x42), "hall"),
    ];
    assert_eq!(names, expected);
    assert_eq!(channels[1].metadata["a"], 1);
    let wanted = GroupFilter::<ChannelId> {
        metadata: Some(channels[1].metadata.clone()),
        ..GroupFilter::default()
    };
    let found = database.groups(&wanted, page).await.expect("read").items;
    assert_eq!(
        found[..],
        channels[1..2],
        "its metadata can be searched for"
    );
    let off = &channels[2];
    assert_eq!((off.status, off.owner), (Status::Disabled, owner));
    assert_eq!(off.update.expect("changed").at.0, 9);

    let filter = PolicyFilter::<ChannelId>::default();
    let policies = database.policies(&filter, page).await.expect("read").items;
    let read = Actions::default().with(Action::MessageRead);
    let write = Actions::default().with(Action::MessageWrite);
    for (policy, object, actions) in [
        (policies[0], channel(0x41), read),
        (policies[1], channel(0x42), write),
    ] {
        assert_eq!((policy.subject, policy.object), (thing, object));
        assert_eq!((policy.actions, policy.owner), (actions, owner));
    }
    assert_eq!(policies[0].update, None);
    assert_eq!(policies[1].update.expect("changed").at.0, 6);

    // A name that repeats is taken; what had no name of its own can be given one.
    let named = |name: &str| Details {
        name: Some(name.into()),
        ..Details::default()
    };
    let tell = |_: &Group<ChannelId>| Event::operation(Stream::Things, "channel.update", []);
    let update = Update::now(owner);
    for (end, name, taken) in [
        (0x43, "hall", true),
        (0x43, "yard", false),
        (0x42, "yard", true),
    ] {
        let details = named(name);
        let kept = database.change_group(channel(end), &details, update, &tell);
        assert_eq!(kept.await.is_err(), taken, "{name}");
    }
}

/// What was made before there were lists is found by them.
#[tokio::test]
async fn lists_have_what_was_made_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rollcall.db");
    let mut file = as_of(&path, 23).await;
    sqlx::raw_sql(
        "INSERT INTO users (id, identity, name, password, enabled, admin, created_at, tags, metadata, owner)
         VALUES (x'31313131313131313131313131313131', 'joe', 'joe', '', 1, 0, 1, '[\"red\"]', '{\"a\":1}', zeroblob(16));
         INSERT INTO user_tags VALUES ('red', x'31313131313131313131313131313131');
         INSERT INTO groups (id, owner, path, name, description, metadata, enabled, created_at)
         VALUES (x'47474747474747474747474747474747', zeroblob(16), x'47474747474747474747474747474747', 'all', '', '{}', 1, 1);
         INSERT INTO user_policies VALUES
         (x'31313131313131313131313131313131', 1, x'47474747474747474747474747474747', 1, zeroblob(16), 1, 1, NULL, NULL);
         INSERT INTO things (id, owner, name, tags, identity, metadata, key_hash, enabled, created_at)
         VALUES (x'31313131313131313131313131313131', zeroblob(16), 'lamp', '[\"red\"]', '', '{\"a\":[{\"b\":1}]}', x'01', 0, 1);
         INSERT INTO thing_tags VALUES ('red', 1, x'31313131313131313131313131313131');
         INSERT INTO thing_policies VALUES
         (x'31313131313131313131313131313131', 0, x'43434343434343434343434343434343', 1, zeroblob(16), 1, 1, NULL, NULL);
         INSERT INTO metadata_terms VALUES
         ('thing', x'31313131313131313131313131313131', '.\"a\"', '[]', ''),
         ('thing', x'31313131313131313131313131313131', '.\"a\".[]', '{}', '0.'),
         ('thing', x'31313131313131313131313131313131', '.\"a\".[].\"b\"', '1', '0.');",
    )
    .execute(&mut file)
    .await
    .expect("filled");
    file.close().await.expect("closed");

    for _ in 0..2 {
        let database = Database::open(&path).await.expect("brought up to date");
        let page = Page::default();
        let parse = |text| serde_json::from_str::<Metadata>(text).expect("an object");
        let thing = ThingFilter {
            status: StatusFilter::Disabled,
            name: Some("lamp".into()),
            tag: Some("red".into()),
            owner: Some(contract::user(0)),
            metadata: parse(r#"{"a":[{"b":1}]}"#),
        };
        let things = database.things(&thing, Scope::Everybodys, page).await;
        assert_eq!(things.expect("read").total, 1);
        let channel = ChannelId::from_bytes([0x43; 16]);
        let things = database.things_of_channel(channel, &thing, page).await;
        assert_eq!(things.expect("read").total, 1);
        let user = UserFilter {
            name: Some("joe".into()),
            tag: Some("red".into()),
            owner: Some(contract::user(0)),
            metadata: Some(parse(r#"{"a":1}"#)),
            ..UserFilter::default()
        };
        let group = GroupId::from_bytes([0x47; 16]);
        let users = database.members(group, true, &user, page).await;
        assert_eq!(users.expect("read").total, 1);
        let groups = GroupFilter::<GroupId>::default();
        assert_eq!(database.groups(&groups, page).await.expect("read").total, 1);
        database.close().await;
    }
}

/// Lists that do not tell whose the members of channels are, are made anew.
#[tokio::test]
async fn lists_of_before_are_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rollcall.db");
    let mut file = as_of(&path, 31).await;
    sqlx::raw_sql(
        "INSERT INTO things (id, owner, name, tags, identity, metadata, key_hash, enabled, created_at) VALUES
         (x'31313131313131313131313131313131', zeroblob(16), '', '[]', '', '{}', x'01', 1, 1),
         (x'32323232323232323232323232323232', x'4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f', '', '[]', '', '{}', x'02', 1, 2);
         INSERT INTO channels (id, owner, path, name, description, metadata, enabled, created_at) VALUES
         (x'43434343434343434343434343434343', zeroblob(16), x'43434343434343434343434343434343', '', '', '{}', 1, 1);
         INSERT INTO thing_policies SELECT id, 0, x'43434343434343434343434343434343', 1, zeroblob(16), 1, 1, NULL, NULL FROM things;
         INSERT INTO listed VALUES (zeroblob(16), 1, x'31313131313131313131313131313131');
         INSERT INTO list_spans VALUES (zeroblob(16), 1, 1);",
    )
    .execute(&mut file)
    .await
    .expect("filled");
    for user in [contract::user(0), contract::user(1)] {
        sqlx::query(
            "INSERT INTO thing_policies VALUES ($1, 1, $2, $3, zeroblob(16), 1, 1, NULL, NULL)",
        )
        .bind(user.as_bytes().as_slice())
        .bind([0x43; 16].as_slice())
        .bind(i64::from(Action::ClientList.allowed_by().bits()))
        .execute(&mut file)
        .await
        .expect("filled");
    }
    file.close().await.expect("closed");

    let database = Database::open(&path).await.expect("brought up to date");
    for (user, others) in [(0, 1), (1, 2)] {
        let scope = Scope::Of(contract::user(user), Visibility::Shared);
        let all = ThingFilter::default();
        let things = database.things(&all, scope, Page::default());
        assert_eq!(things.await.expect("read").total, others, "for user {user}");
    }
}

/// A file of an earlier version.
async fn as_of(path: &Path, version: i64) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let mut file = SqliteConnection::connect_with(&options)
        .await
        .expect("made");
    let mut before = sqlx::migrate!("migrations/services");
    before
        .migrations
        .to_mut()
        .retain(|it| it.version <= version);
    before
        .run_direct(None, &mut file, false)
        .await
        .expect("as of before");
    file
}

#[tokio::test]
async fn a_file_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rollcall.db");
    let database = Database::open(&path).await.expect("made");
    database.close().await;
    drop(database);
    let options = SqliteConnectOptions::new().filename(&path);
    let file = SqliteConnection::connect_with(&options).await;
    let mut file = file.expect("opens");
    let later = "INSERT INTO _sqlx_migrations VALUES (9999, 'later', 0, 1, x'00', 1)";
    sqlx::raw_sql(later).execute(&mut file).await.expect("kept");
    file.close().await.expect("closed");
    let before = std::fs::read(&path).expect("a file");
    let opened = Database::open(&path).await.map(|_| ());
    let said = opened.expect_err("later").to_string();
    assert!(said.contains("of a later version"), "{said}");
    assert!(std::fs::read(&path).expect("a file") == before);
}
