//! The contract of stores of groups and policies, on each of them.

#[path = "contract/groups.rs"]
mod contract;

use rollcall_domain::entity::{Status, Update};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{
    Details, Group, GroupFilter, GroupStore, PolicyFilter, PolicyStore, Subject,
};
use rollcall_domain::identity::{ChannelId, GroupId, ThingId};
use rollcall_domain::listing::{Page, StatusFilter};
use rollcall_domain::memory::{Events, Groups};
use rollcall_domain::policies::{Action, Actions};
use rollcall_storage::database::Database;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

macro_rules! held_to {
    ($($promise:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $promise() {
            contract::$promise(&Groups::<GroupId>::new(Events::default())).await;
            contract::$promise(&Groups::<ChannelId>::new(Events::default())).await;
            let folder = tempfile::tempdir().expect("a folder");
            let database = Database::open(&folder.path().join("rollcall.db")).await;
            let database = database.expect("opens");
            contract::$promise::<GroupId>(&database).await;
            contract::$promise::<ChannelId>(&database).await;
        }
    )*};
}

held_to! {
    a_group_comes_back_as_it_was_kept,
    an_owner_has_a_name_once,
    a_change_is_of_what_it_names,
    a_status_is_set_once,
    a_list_has_what_its_filter_says,
    a_list_has_what_contains_some_metadata,
    a_page_tells_of_the_whole_list,
    a_tree_has_what_is_above_or_below,
    a_policy_that_is_there_gets_other_actions_and_keeps_its_maker,
    a_policy_changes_and_goes_once,
    policies_are_found_by_what_they_say,
    a_standing_is_of_one_subject_to_one_group,
    reach_goes_through_an_enabled_group_that_both_are_in,
}

/// Channels and grants of a file that was made before there were groups and policies.
#[tokio::test]
async fn channels_and_grants_of_before_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rollcall.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut file = SqliteConnection::connect_with(&options)
        .await
        .expect("made");
    let mut before = sqlx::migrate!("migrations/services");
    before.migrations.to_mut().retain(|it| it.version <= 4);
    before
        .run_direct(None, &mut file, false)
        .await
        .expect("as of before");
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
