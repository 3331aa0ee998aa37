//! Who may do what with groups of users, and to each other.

use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::caller::Question;
use crate::event::Event;
use crate::identity::Secret;
use crate::listing::{Listing, Page, Visibility};
use crate::memory::{self, Events};
use crate::policies::{Action, Actions};
use crate::ports::StoreError;
use crate::users::{User, UserFilter};

/// Users 1 to 9; the ninth is an administrator, and the fifth is owned by the fourth.
struct Nine;

#[async_trait]
impl People for Nine {
    async fn person(&self, id: UserId) -> Result<Option<Person>, StoreError> {
        let number = id.as_bytes()[0];
        let person = Person {
            owner: (number == 5).then(|| user(4)),
            admin: number == 9,
        };
        Ok((1..=9).contains(&number).then_some(person))
    }

    /// Nobody: who is asked for is seen by the total.
    async fn members(
        &self,
        _: GroupId,
        vouched: bool,
        _: &UserFilter,
        _: Page,
    ) -> Result<Listing<User>, StoreError> {
        Ok(Listing {
            items: Vec::new(),
            total: if vouched { 1 } else { 2 },
        })
    }
}

struct House {
    groups: Groups,
    events: Events,
}

fn house() -> House {
    let events = Events::default();
    let store = Arc::new(memory::Groups::new(events.clone()));
    let groups = Groups::new(Arc::clone(&store) as _, store, Arc::new(Nine));
    House { groups, events }
}

const fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

fn caller(number: u8) -> &'static Caller {
    static CALLERS: [Caller; 10] = {
        let mut callers = [Caller {
            user: user(0),
            admin: false,
        }; 10];
        let mut number = 0;
        while number < 10 {
            callers[number as usize].user = user(number);
            callers[number as usize].admin = number == 9;
            number += 1;
        }
        callers
    };
    &CALLERS[usize::from(number)]
}

fn actions(names: &str) -> Actions {
    let parse = |name: &str| name.parse::<Action>().expect("an action");
    names.split_whitespace().map(parse).collect()
}

fn named(name: &str) -> NewGroup<GroupId> {
    NewGroup {
        name: name.into(),
        ..NewGroup::default()
    }
}

/// The outcome in one word.
fn word<T>(outcome: Result<T, Refusal>) -> &'static str {
    match outcome {
        Ok(_) => "done",
        Err(Refusal::Denied) => "denied",
        Err(Refusal::NotFound(_)) => "unknown",
        Err(Refusal::Invalid { field, .. }) => field,
        Err(Refusal::Taken(_)) => "taken",
        Err(Refusal::Already(_)) => "already",
        Err(other) => panic!("{other}"),
    }
}

impl House {
    async fn group(&self, owner: u8, name: &str) -> GroupId {
        let made = self.groups.create(caller(owner), named(name)).await;
        made.expect("made").id
    }

    async fn let_do(&self, by: u8, subject: u8, group: GroupId, names: &str) -> &'static str {
        let (by, subject) = (caller(by), user(subject));
        word(
            self.groups
                .add_policy(by, subject, group, actions(names))
                .await,
        )
    }

    async fn ask(&self, subject: u8, action: &str, object: &str, kind: &str) -> &'static str {
        let question = Question {
            subject: &Secret::new("not looked at"),
            object,
            action,
            entity_type: kind,
        };
        word(self.groups.authorize(caller(subject), &question).await)
    }

    async fn may_touch(&self, subject: u8, action: &str, other: u8) -> bool {
        let object = user(other).to_string();
        self.ask(subject, action, &object, "client").await == "done"
    }

    fn last(&self) -> Event {
        self.events.all().pop().expect("an event")
    }
}

fn field<'a>(event: &'a Event, name: &str) -> &'a str {
    let field = event.fields.iter().find(|(it, _)| it == name);
    field.map_or("", |(_, value)| value)
}

#[test]
fn a_name_has_1_to_1024_bytes() {
    assert!(named("a").make(caller(1), None).is_ok());
    assert!(named(&"a".repeat(1024)).make(caller(1), None).is_ok());
    for name in [String::new(), "a".repeat(1025), "a\n".into()] {
        assert_eq!(word(named(&name).make(caller(1), None)), "name");
        let details = Details {
            name: Some(name),
            ..Details::default()
        };
        assert!(details.check().is_err());
    }
    assert!(Details::default().check().is_ok());
}

#[test]
fn a_description_has_at_most_16_kib_of_text() {
    let described = |len| NewGroup {
        description: "a".repeat(len),
        ..named("a")
    };
    assert!(described(MAX_DESCRIPTION).make(caller(1), None).is_ok());
    let refused = described(MAX_DESCRIPTION + 1).make(caller(1), None);
    assert_eq!(word(refused), "description");
    let lines = |description: &str| NewGroup {
        description: description.to_owned(),
        ..named("a")
    };
    assert!(lines("a\nb").make(caller(1), None).is_ok());
    assert_eq!(word(lines("a\0b").make(caller(1), None)), "description");
}

#[test]
fn a_tree_has_5_levels_below_its_root() {
    let mut group = named("root").make(caller(1), None).expect("made");
    for level in 1..=MAX_LEVEL {
        let parent = group;
        group = named("child").make(caller(1), Some(&parent)).expect("made");
        assert_eq!(group.level(), level);
        assert_eq!(group.parent(), Some(parent.id));
        assert_eq!(group.path()[..level], parent.path());
    }
    assert_eq!(
        word(named("deep").make(caller(1), Some(&group))),
        "parent_id"
    );
}

#[test]
fn only_an_administrator_makes_groups_for_others() {
    let given = || NewGroup {
        owner: Some(user(1)),
        ..named("a")
    };
    assert_eq!(given().make(caller(1), None).expect("own").owner, user(1));
    assert_eq!(given().make(caller(9), None).expect("any").owner, user(1));
    let other = NewGroup {
        owner: Some(user(9)),
        ..named("a")
    };
    assert!(matches!(other.make(caller(1), None), Err(Refusal::Denied)));
}

#[tokio::test]
async fn what_may_be_done_with_a_group_is_the_owners_the_administrators_and_who_is_let() {
    // The owner is 1, a stranger 2, the administrator 9; what 3 holds stands before.
    for (held, view, update, disable, add, child) in [
        ("", false, false, false, false, false),
        ("m_read", false, false, false, false, false),
        ("c_list", true, false, false, false, true),
        ("c_update", true, false, false, false, true),
        ("g_list", true, false, false, false, true),
        ("g_update", true, true, false, false, true),
        ("g_delete", true, false, true, false, true),
        ("g_add", true, false, false, true, true),
    ] {
        let house = house();
        let group = house.group(1, "hall").await;
        if !held.is_empty() {
            assert_eq!(house.let_do(1, 3, group, held).await, "done");
        }
        let may = |yes: bool| if yes { "done" } else { "denied" };
        for (who, all, none) in [
            (3, false, false),
            (2, false, true),
            (9, true, false),
            (1, true, false),
        ] {
            let by = caller(who);
            let may = |yes: bool| may(all || yes && !none);
            let what = format!("{who} with {held:?}");
            let groups = &house.groups;
            assert_eq!(word(groups.view(by, group).await), may(view), "{what}");
            let details = Details {
                description: Some(what.clone()),
                ..Details::default()
            };
            let updated = groups.update(by, group, &details).await;
            assert_eq!(word(updated), may(update), "{what}");
            for status in [Status::Disabled, Status::Enabled] {
                let set = groups.set_status(by, group, status).await;
                assert_eq!(word(set), may(disable), "{what}");
            }
            // What one holds oneself: that is to be given.
            let gift = if held.is_empty() { "g_list" } else { held };
            assert_eq!(house.let_do(who, 6, group, gift).await, may(add), "{what}");
            let _ = groups.remove_policy(caller(1), user(6), group).await;
            let new = NewGroup {
                parent: Some(group),
                ..named(&what)
            };
            let made = word(groups.create(by, new).await);
            let expected = if all || child && !none {
                "done"
            } else {
                "parent_id"
            };
            assert_eq!(made, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn who_may_not_see_a_group_does_not_learn_whether_it_is_there() {
    let house = house();
    let nowhere = GroupId::generate();
    assert_eq!(word(house.groups.view(caller(2), nowhere).await), "denied");
    assert_eq!(word(house.groups.view(caller(9), nowhere).await), "unknown");
    assert_eq!(house.let_do(2, 3, nowhere, "g_list").await, "denied");
    assert_eq!(house.let_do(9, 3, nowhere, "g_list").await, "unknown");
}

#[tokio::test]
async fn nobody_gives_what_he_does_not_hold() {
    let house = house();
    let group = house.group(1, "hall").await;
    assert_eq!(house.let_do(1, 2, group, "g_add g_update").await, "done");
    assert_eq!(house.let_do(2, 3, group, "g_update g_list").await, "done");
    assert_eq!(house.let_do(2, 4, group, "g_delete").await, "denied");
    assert_eq!(house.let_do(2, 4, group, "g_update c_list").await, "denied");
    // Nor by changing what he has made, nor what others have.
    let change = async |by: u8, subject: u8, names: &str| {
        let (by, subject) = (caller(by), user(subject));
        word(
            house
                .groups
                .change_policy(by, subject, group, actions(names))
                .await,
        )
    };
    assert_eq!(change(2, 3, "g_delete").await, "denied");
    assert_eq!(change(2, 3, "g_list").await, "done");
    assert_eq!(change(2, 2, "g_add g_update g_delete").await, "denied");
    assert_eq!(house.let_do(1, 4, group, "g_add g_list").await, "done");
    assert_eq!(change(4, 3, "g_list").await, "denied");
    assert_eq!(house.let_do(4, 3, group, "g_list").await, "denied");
    let removed = house.groups.remove_policy(caller(4), user(3), group).await;
    assert_eq!(word(removed), "denied");
    // Who owns the group may do all of it, and so may administrators.
    assert_eq!(change(1, 3, "g_delete").await, "done");
    assert_eq!(change(9, 3, "g_add").await, "done");
    assert_eq!(change(9, 7, "g_add").await, "unknown");
    let removed = house.groups.remove_policy(caller(1), user(3), group).await;
    assert_eq!(word(removed), "done");
    let again = house.groups.remove_policy(caller(1), user(3), group).await;
    assert_eq!(word(again), "done");
}

#[tokio::test]
async fn a_policy_is_of_a_user_and_allows_something() {
    let house = house();
    let group = house.group(1, "hall").await;
    assert_eq!(house.let_do(1, 77, group, "g_list").await, "subject");
    assert_eq!(house.let_do(1, 2, group, "").await, "actions");
    let change = house
        .groups
        .change_policy(caller(1), user(2), group, Actions::default());
    assert_eq!(word(change.await), "actions");
}

#[tokio::test]
async fn nobody_gets_power_over_users_by_a_group_of_his_own() {
    let house = house();
    let group = house.group(1, "trap").await;
    assert_eq!(
        house.let_do(1, 1, group, "c_update c_delete c_list").await,
        "done"
    );
    assert_eq!(house.let_do(1, 2, group, "g_list").await, "done");
    for action in ["c_list", "c_update", "c_delete", "c_share"] {
        assert!(!house.may_touch(1, action, 2).await, "{action}");
    }
    // Until somebody who has a say over the user vouches for it.
    assert_eq!(house.let_do(9, 2, group, "g_list").await, "done");
    assert!(house.may_touch(1, "c_update", 2).await);
    assert!(!house.may_touch(1, "c_share", 2).await);
    assert!(!house.may_touch(2, "c_list", 1).await);
    // Nobody touches an administrator by a group.
    assert_eq!(house.let_do(9, 9, group, "g_list").await, "done");
    assert!(house.may_touch(1, "c_list", 9).await);
    assert!(!house.may_touch(1, "c_update", 9).await);
    // A group that is shut down gives no power.
    let shut = house.groups.set_status(caller(1), group, Status::Disabled);
    shut.await.expect("done");
    assert!(!house.may_touch(1, "c_update", 2).await);
}

#[tokio::test]
async fn who_owns_a_user_may_bring_it_into_a_group() {
    let house = house();
    let group = house.group(4, "family").await;
    assert!(house.may_touch(4, "c_delete", 5).await);
    assert!(house.may_touch(5, "c_update", 5).await);
    assert_eq!(house.let_do(4, 5, group, "m_read").await, "done");
    assert_eq!(house.let_do(4, 6, group, "c_share").await, "done");
    assert!(house.may_touch(6, "c_share", 5).await);
    assert!(!house.may_touch(6, "c_delete", 5).await);
    // And who may share it may bring it into another.
    let other = house.group(6, "friends").await;
    assert_eq!(house.let_do(6, 5, other, "m_read").await, "done");
    assert_eq!(house.let_do(6, 7, other, "c_delete").await, "done");
    assert!(house.may_touch(7, "c_delete", 5).await);
}

#[tokio::test]
async fn questions_are_answered_by_what_is_held() {
    let house = house();
    let group = house.group(1, "hall").await;
    let id = group.to_string();
    assert_eq!(house.let_do(1, 2, group, "g_update").await, "done");
    for (subject, action, object, kind, answer) in [
        (1, "g_delete", id.as_str(), "group", "done"),
        (2, "g_update", &id, "group", "done"),
        (2, "g_list", &id, "group", "done"),
        (2, "g_delete", &id, "group", "denied"),
        (3, "g_list", &id, "group", "denied"),
        (9, "g_delete", &id, "group", "done"),
        (9, "c_list", "things", "client", "done"),
        (9, "c_list", "users", "client", "done"),
        (1, "c_list", "things", "client", "denied"),
        (1, "c_list", "users", "group", "denied"),
        (1, "fly", &id, "group", "action"),
        (1, "g_list", &id, "thing", "entity_type"),
        (1, "g_list", "no id", "group", "object"),
        (1, "c_list", "no id", "client", "object"),
        (9, "g_list", "no id", "group", "object"),
    ] {
        let before = house.events.all().len();
        let answered = house.ask(subject, action, object, kind).await;
        assert_eq!(answered, answer, "{subject} {action} {object} {kind}");
        let told = house.events.all().split_off(before);
        assert_eq!(told.len(), usize::from(answer == "done"));
        for event in told {
            assert_eq!(field(&event, "operation"), "policies.authorize");
            assert_eq!(field(&event, "object"), object);
            assert_eq!(field(&event, "actions"), action);
            assert_eq!(field(&event, "entity_type"), kind);
            assert_eq!(event.fields.len(), 4);
        }
    }
}

#[tokio::test]
async fn lists_have_what_their_reader_may_see() {
    let house = house();
    let (hall, yard) = (house.group(1, "hall").await, house.group(2, "yard").await);
    let cellar = NewGroup {
        parent: Some(hall),
        ..named("cellar")
    };
    let cellar = house.groups.create(caller(1), cellar).await;
    let cellar = cellar.expect("made").id;
    assert_eq!(house.let_do(2, 1, yard, "g_list").await, "done");
    assert_eq!(house.let_do(1, 3, cellar, "m_read").await, "done");
    assert_eq!(house.let_do(2, 3, yard, "m_read").await, "done");
    let all = Page::default();
    let query = |visibility| GroupQuery {
        visibility,
        ..GroupQuery::default()
    };
    let names = |listing: Listing<Group<GroupId>>| {
        let names: Vec<_> = listing.items.into_iter().map(|it| it.name).collect();
        names.join(" ")
    };
    for (who, visibility, sees) in [
        (1, Visibility::All, "hall yard cellar"),
        (1, Visibility::Mine, "hall cellar"),
        (1, Visibility::Shared, "yard"),
        (3, Visibility::All, ""),
        (9, Visibility::All, "hall yard cellar"),
        (9, Visibility::Mine, ""),
    ] {
        let listing = house
            .groups
            .list(caller(who), &query(visibility), all)
            .await;
        assert_eq!(
            names(listing.expect("listed")),
            sees,
            "{who} {visibility:?}"
        );
    }
    for (who, sees) in [(3, "yard cellar"), (1, "yard cellar"), (2, "yard"), (4, "")] {
        let (who, of) = (caller(who), user(3));
        let query = query(Visibility::All);
        let listing = house.groups.memberships(who, of, &query, all).await;
        assert_eq!(names(listing.expect("listed")), sees, "{who:?}");
        assert_eq!(field(&house.last(), "channel_id"), of.to_string());
    }
    let below = async |who| {
        let (who, query) = (caller(who), query(Visibility::All));
        let related = house
            .groups
            .related(who, hall, Direction::Children, None, &query, all);
        related.await.map(|(_, listing)| names(listing))
    };
    assert_eq!(below(1).await.expect("seen"), "hall cellar");
    assert_eq!(word(below(3).await), "denied");
    let policies = async |who, owner: Option<u8>| {
        let filter = PolicyFilter {
            owner: owner.map(user),
            ..PolicyFilter::default()
        };
        let listed = house.groups.policies(caller(who), &filter, all).await;
        listed.map(|listing| listing.total)
    };
    assert_eq!(policies(1, None).await.expect("own"), 1);
    assert_eq!(policies(2, Some(2)).await.expect("own"), 2);
    assert_eq!(policies(9, None).await.expect("all"), 3);
    assert_eq!(word(policies(1, Some(2)).await), "denied");
}

#[tokio::test]
async fn members_are_listed_for_who_may_see_them() {
    let house = house();
    let group = house.group(1, "hall").await;
    assert_eq!(house.let_do(1, 2, group, "c_list").await, "done");
    assert_eq!(house.let_do(1, 3, group, "g_list").await, "done");
    for (who, total) in [
        (1, Ok(1)),
        (2, Ok(1)),
        (9, Ok(2)),
        (3, Err("denied")),
        (4, Err("denied")),
    ] {
        let filter = UserFilter::default();
        let listed = house
            .groups
            .members(caller(who), group, &filter, Page::default())
            .await;
        let listed = listed.map(|listing| listing.total);
        assert_eq!(listed.map_err(|refusal| word::<()>(Err(refusal))), total);
        if total.is_ok() {
            let told = house.last();
            assert_eq!(field(&told, "operation"), "user.list_by_group");
            assert_eq!(field(&told, "group_id"), group.to_string());
        }
    }
}

#[tokio::test]
async fn events_tell_what_was_kept() {
    let house = house();
    let group = house.group(1, "hall").await;
    let made = house.last();
    assert_eq!(field(&made, "operation"), "group.create");
    assert_eq!(field(&made, "metadata"), "{}");
    assert_eq!(field(&made, "owner"), user(1).to_string());
    assert_eq!(house.let_do(1, 2, group, "c_list g_add").await, "done");
    let added = house.last();
    assert_eq!(field(&added, "operation"), "policies.add");
    assert_eq!(field(&added, "actions"), "[g_add,c_list]");
    assert_eq!(field(&added, "owner_id"), user(1).to_string());
    assert!(!field(&added, "created_at").is_empty());
    let removed = house.groups.remove_policy(caller(9), user(2), group).await;
    removed.expect("removed");
    assert_eq!(field(&house.last(), "operation"), "policies.delete");
    assert_eq!(field(&house.last(), "actions"), "[g_add,c_list]");
    let set = house.groups.set_status(caller(9), group, Status::Disabled);
    let update = set.await.expect("set").update.expect("updated");
    let removed = house.last();
    assert_eq!(field(&removed, "operation"), "group.remove");
    assert_eq!(field(&removed, "status"), "disabled");
    assert_eq!(field(&removed, "updated_at"), update.at.rfc3339());
    assert_eq!(field(&removed, "updated_by"), user(9).to_string());
}
