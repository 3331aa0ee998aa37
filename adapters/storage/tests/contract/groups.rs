//! What stores of groups and policies promise, for groups of users and channels alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rollcall_domain::entity::{Metadata, Status, Update};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{
    Details, Direction, Group, GroupFilter, GroupKey, GroupStore, Policy, PolicyFilter,
    PolicyStore, Seen, Subject, Tree,
};
use rollcall_domain::identity::{ThingId, Timestamp, UserId};
use rollcall_domain::listing::{Listing, Page, StatusFilter, Visibility};
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::ports::StoreError;

pub(crate) trait Store<I: GroupKey>: GroupStore<I> + PolicyStore<I> {}

impl<I: GroupKey, T: GroupStore<I> + PolicyStore<I>> Store<I> for T {}

const ALL: Page = Page {
    offset: 0,
    limit: 1_000,
};

pub(crate) fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

fn thing(number: u8) -> Subject {
    // The same bytes as those of a user: they are not the same subject.
    Subject::Thing(ThingId::from_bytes([number; 16]))
}

fn told(what: &'static str, id: impl std::fmt::Display) -> Event {
    Event::operation(Stream::Users, what, [("id", id.to_string())])
}

fn by(number: u8, at: u64) -> Update {
    Update {
        at: Timestamp(at),
        by: user(number),
    }
}

fn metadata(text: &str) -> Metadata {
    serde_json::from_str(text).expect("an object")
}

/// A group of `owner`, made at `at`. Ids run against the order of making.
pub(crate) fn group<I: GroupKey>(
    owner: u8,
    name: &str,
    at: u8,
    parent: Option<&Group<I>>,
) -> Group<I> {
    Group {
        id: I::from_bytes([255 - at; 16]),
        owner: user(owner),
        ancestors: parent.map(Group::path).unwrap_or_default(),
        name: name.into(),
        description: String::new(),
        metadata: Metadata::new(),
        status: Status::Enabled,
        created_at: Timestamp(at.into()),
        update: None,
    }
}

pub(crate) fn policy<I: GroupKey>(
    subject: Subject,
    object: I,
    actions: &[Action],
    at: u64,
) -> Policy<I> {
    Policy {
        subject,
        object,
        actions: actions.iter().copied().collect(),
        owner: user(1),
        vouched: true,
        created_at: Timestamp(at),
        update: None,
    }
}

async fn add<I: GroupKey>(store: &dyn Store<I>, groups: &[&Group<I>]) {
    let groups: Vec<_> = groups.iter().copied().cloned().collect();
    store.add_groups(&groups, Vec::new()).await.expect("kept");
}

async fn put<I: GroupKey>(store: &dyn Store<I>, policies: &[Policy<I>]) -> Vec<Policy<I>> {
    let tell = |policy: &Policy<I>| told("put", policy.object);
    store.put_policies(policies, &tell).await.expect("kept")
}

async fn names<I: GroupKey>(store: &dyn Store<I>, filter: GroupFilter<I>) -> String {
    let listing = store.groups(&filter, ALL).await.expect("read");
    assert_eq!(listing.total, listing.items.len() as u64);
    let names: Vec<_> = listing.items.iter().map(|it| it.name.as_str()).collect();
    names.join(" ")
}

pub(crate) async fn a_group_comes_back_as_it_was_kept<I: GroupKey>(store: &dyn Store<I>) {
    let root = Group {
        description: "all of it".into(),
        metadata: metadata(r#"{"a": [1, {"b": null}], "c": "é"}"#),
        status: Status::Disabled,
        ..group(1, "root", 1, None)
    };
    let child = group(2, "child", 2, Some(&root));
    add(store, &[&root, &child]).await;
    for group in [root, child] {
        assert_eq!(store.group(group.id).await.expect("read"), Some(group));
    }
    let nobody = store.group(I::from_bytes([9; 16])).await.expect("read");
    assert_eq!(nobody, None);
}

pub(crate) async fn an_owner_has_a_name_once<I: GroupKey>(store: &dyn Store<I>) {
    let (a, b) = (group(1, "a", 1, None), group(1, "b", 2, None));
    add(store, &[&a, &b, &group(2, "a", 3, None)]).await;
    let twice = [group(1, "c", 4, None), group(1, "a", 5, None)];
    let refused = store.add_groups(&twice, Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::Taken("name"))));
    assert_eq!(store.group(twice[0].id).await.expect("read"), None);

    let tell = |group: &Group<I>| told("change", group.id);
    let named = |name: &str| Details {
        name: Some(name.into()),
        ..Details::default()
    };
    let refused = store.change_group(b.id, &named("a"), by(1, 9), &tell).await;
    assert!(matches!(refused, Err(StoreError::Taken("name"))));
    assert_eq!(store.group(b.id).await.expect("read"), Some(b.clone()));
    let kept = store.change_group(b.id, &named("b"), by(1, 9), &tell).await;
    assert!(kept.expect("its own name").is_some());
}

pub(crate) async fn an_id_is_one_groups<I: GroupKey>(store: &dyn Store<I>) {
    let one = group(1, "a", 1, None);
    add(store, &[&one]).await;
    let with_id = |id, name: &str| Group {
        id,
        ..group(2, name, 4, None)
    };
    let new = group(1, "new", 5, None);
    for taken in [
        // Whatever its name is.
        vec![new.clone(), with_id(one.id, "b")],
        vec![with_id(one.id, "a")],
        vec![one.clone()],
        // Twice at one time.
        vec![new.clone(), with_id(new.id, "b")],
        vec![new.clone(), new.clone()],
    ] {
        let refused = store.add_groups(&taken, Vec::new()).await;
        assert!(matches!(refused, Err(StoreError::Taken("id"))), "{taken:?}");
        assert_eq!(store.group(new.id).await.expect("read"), None);
    }
    assert_eq!(store.group(one.id).await.expect("read"), Some(one));
}

pub(crate) async fn a_change_is_of_what_it_names<I: GroupKey>(store: &dyn Store<I>) {
    let before = Group {
        description: "before".into(),
        metadata: metadata(r#"{"before": true}"#),
        ..group(1, "before", 1, None)
    };
    add(store, &[&before]).await;
    let tell = |group: &Group<I>| told("change", group.id);
    let changes = [
        Details {
            name: Some("after".into()),
            ..Details::default()
        },
        Details {
            description: Some(String::new()),
            ..Details::default()
        },
        Details {
            metadata: Some(metadata(r#"{"after": 1}"#)),
            ..Details::default()
        },
        Details::default(),
    ];
    let mut expected = before;
    for (at, details) in changes.into_iter().enumerate() {
        let update = by(2, at as u64);
        let kept = store.change_group(expected.id, &details, update, &tell);
        let kept = kept.await.expect("kept").expect("there");
        expected.name = details.name.unwrap_or(expected.name);
        expected.description = details.description.unwrap_or(expected.description);
        expected.metadata = details.metadata.unwrap_or(expected.metadata);
        expected.update = Some(update);
        assert_eq!(kept, expected);
        assert_eq!(store.group(kept.id).await.expect("read"), Some(kept));
    }
    let nobody = I::from_bytes([9; 16]);
    let nothing = Details::default();
    let none = store.change_group(nobody, &nothing, by(2, 9), &tell);
    assert_eq!(none.await.expect("read"), None);
}

pub(crate) async fn a_status_is_set_once<I: GroupKey>(store: &dyn Store<I>) {
    let group = group(1, "a", 1, None);
    add(store, &[&group]).await;
    let tell = |group: &Group<I>| told("status", group.id);
    let mut expected = group;
    for (status, changes, at) in [
        (Status::Enabled, false, 2),
        (Status::Disabled, true, 3),
        (Status::Disabled, false, 4),
        (Status::Enabled, true, 5),
    ] {
        let kept = store.set_group_status(expected.id, status, by(2, at), &tell);
        let kept = kept.await.expect("kept");
        assert_eq!(kept.is_some(), changes, "{at}");
        if changes {
            expected.status = status;
            expected.update = Some(by(2, at));
        }
        let now = store.group(expected.id).await.expect("read");
        assert_eq!(now.as_ref(), Some(&expected));
    }
    let nobody = I::from_bytes([9; 16]);
    let none = store.set_group_status(nobody, Status::Disabled, by(2, 9), &tell);
    assert_eq!(none.await.expect("read"), None);
}

pub(crate) async fn a_list_has_what_its_filter_says<I: GroupKey>(store: &dyn Store<I>) {
    let a = group(1, "a", 1, None);
    let off = Group {
        status: Status::Disabled,
        ..group(1, "off", 2, Some(&a))
    };
    let c = group(2, "c", 3, Some(&a));
    let d = group(2, "a", 4, None);
    add(store, &[&d, &c, &off, &a]).await;
    let (one, two) = (Subject::User(user(1)), Subject::User(user(2)));
    put(
        store,
        &[
            policy(one, d.id, &[Action::MessageRead], 1),
            policy(one, c.id, &[Action::ClientShare], 2),
            policy(thing(2), a.id, &[Action::GroupList], 3),
        ],
    )
    .await;
    let all = || GroupFilter {
        status: StatusFilter::All,
        ..GroupFilter::default()
    };
    let status = |status| GroupFilter { status, ..all() };
    assert_eq!(names(store, GroupFilter::default()).await, "a c a");
    assert_eq!(names(store, status(StatusFilter::All)).await, "a off c a");
    assert_eq!(names(store, status(StatusFilter::Disabled)).await, "off");
    let owner = Some(user(1));
    assert_eq!(names(store, GroupFilter { owner, ..all() }).await, "a off");
    let name = Some("a".into());
    assert_eq!(names(store, GroupFilter { name, ..all() }).await, "a a");
    let parent = Some(a.id);
    assert_eq!(names(store, GroupFilter { parent, ..all() }).await, "off c");
    for (subject, in_it) in [(one, "c a"), (two, ""), (thing(2), "a"), (thing(1), "")] {
        let subject = Some(subject);
        assert_eq!(names(store, GroupFilter { subject, ..all() }).await, in_it);
    }
    for (viewer, visibility, sees) in [
        (1, Visibility::Mine, "a off"),
        (1, Visibility::Shared, "c"),
        (1, Visibility::All, "a off c"),
        (2, Visibility::All, "c a"),
        (2, Visibility::Shared, ""),
        (3, Visibility::All, ""),
    ] {
        let by = user(viewer);
        let seen = Some(Seen { by, visibility });
        assert_eq!(names(store, GroupFilter { seen, ..all() }).await, sees);
    }
}

pub(crate) async fn a_list_has_what_contains_some_metadata<I: GroupKey>(store: &dyn Store<I>) {
    let with = |name: &str, at, text| Group {
        metadata: metadata(text),
        ..group(1, name, at, None)
    };
    let a = with("a", 1, r#"{"at": {"floor": 1, "rooms": [1, 2]}, "x": "1"}"#);
    let b = with("b", 2, r#"{"at": {"floor": 2, "rooms": [2]}, "x": 1}"#);
    let c = with("c", 3, r#"{"at": [{"floor": 1, "room": 1}, {"floor": 2}]}"#);
    add(store, &[&a, &b, &c]).await;
    let found = async |text| {
        let filter = GroupFilter {
            metadata: Some(metadata(text)),
            ..GroupFilter::default()
        };
        names(store, filter).await
    };
    for (wanted, has) in [
        ("{}", "a b c"),
        (r#"{"at": {}}"#, "a b"),
        (r#"{"at": {"floor": 1}}"#, "a"),
        (r#"{"at": {"rooms": [2]}}"#, "a b"),
        (r#"{"at": {"rooms": [2, 1]}}"#, "a"),
        (r#"{"at": [{"floor": 1, "room": 1}]}"#, "c"),
        (r#"{"at": [{"floor": 2, "room": 1}]}"#, ""),
        (r#"{"x": 1.0}"#, "b"),
        (r#"{"x": null}"#, ""),
    ] {
        assert_eq!(found(wanted).await, has, "{wanted}");
    }
    let details = Details {
        metadata: Some(metadata(r#"{"y": 1}"#)),
        ..Details::default()
    };
    let tell = |group: &Group<I>| told("change", group.id);
    let changed = store.change_group(b.id, &details, by(1, 9), &tell).await;
    assert!(changed.expect("kept").is_some());
    assert_eq!(found(r#"{"y": 1}"#).await, "b");
    assert_eq!(found(r#"{"x": 1}"#).await, "");
}

pub(crate) async fn a_page_tells_of_the_whole_list<I: GroupKey>(store: &dyn Store<I>) {
    let groups: Vec<_> = (1..=5)
        .map(|at| group(1, &at.to_string(), at, None))
        .collect();
    add(store, &groups.iter().collect::<Vec<_>>()).await;
    for (offset, limit, names) in [
        (0, 2, "1 2"),
        (4, 2, "5"),
        (3, 2, "4 5"),
        (5, 2, ""),
        (9, 2, ""),
        (0, 1_000, "1 2 3 4 5"),
    ] {
        let page = Page { offset, limit };
        let listing = store.groups(&GroupFilter::default(), page).await;
        let Listing { items, total } = listing.expect("read");
        let got: Vec<_> = items.iter().map(|it| it.name.as_str()).collect();
        assert_eq!((got.join(" ").as_str(), total), (names, 5), "{page:?}");
    }
    let none = GroupFilter {
        name: Some("none".into()),
        ..GroupFilter::default()
    };
    assert_eq!(store.groups(&none, ALL).await.expect("read").total, 0);
}

pub(crate) async fn a_tree_has_what_is_above_or_below<I: GroupKey>(store: &dyn Store<I>) {
    // Ids at the end of all there are: no path comes behind them.
    let mut root = group(1, "root", 1, None);
    root.id = I::from_bytes([255; 16]);
    let left = group(1, "left", 2, Some(&root));
    let right = group(2, "right", 3, Some(&root));
    let leaf = group(1, "leaf", 4, Some(&left));
    let other = group(1, "other", 5, None);
    add(store, &[&root, &left, &right, &leaf, &other]).await;
    use Direction::{Children, Parents};
    for (around, direction, levels, has) in [
        (&root, Children, None, "root left right leaf"),
        (&root, Children, Some(1), "root left right"),
        (&root, Children, Some(0), "root"),
        (&root, Parents, None, "root"),
        (&left, Children, None, "left leaf"),
        (&left, Parents, None, "root left"),
        (&leaf, Parents, None, "root left leaf"),
        (&leaf, Parents, Some(1), "left leaf"),
        (&leaf, Children, Some(5), "leaf"),
        (&other, Children, None, "other"),
        (&other, Parents, Some(usize::MAX), "other"),
    ] {
        let tree = Tree {
            around: around.clone(),
            direction,
            levels,
        };
        let filter = GroupFilter {
            tree: Some(tree),
            ..GroupFilter::default()
        };
        let what = format!("{} {direction:?} {levels:?}", around.name);
        assert_eq!(names(store, filter).await, has, "{what}");
    }
}

pub(crate) async fn a_policy_that_is_there_gets_other_actions_and_keeps_its_maker<I: GroupKey>(
    store: &dyn Store<I>,
) {
    let object = I::from_bytes([7; 16]);
    let one = Subject::User(user(1));
    let first = policy(one, object, &[Action::GroupAdd, Action::ClientList], 5);
    let same_bytes = policy(thing(1), object, &[Action::MessageWrite], 6);
    assert_eq!(put(store, &[first, same_bytes]).await, [first, same_bytes]);
    let again = Policy {
        owner: user(2),
        vouched: false,
        ..policy(one, object, &[Action::MessageRead], 9)
    };
    let expected = Policy {
        actions: again.actions,
        update: Some(by(2, 9)),
        ..first
    };
    assert_eq!(put(store, &[again]).await, [expected]);
    let kept = store.policy(one, object).await.expect("read");
    assert_eq!(kept, Some(expected));
    let mut was_vouched = false;
    for vouched in [false, true, false] {
        let policy = Policy {
            vouched,
            ..policy(Subject::User(user(2)), object, &[Action::GroupAdd], 9)
        };
        let kept = put(store, &[policy]).await;
        assert_eq!(kept[0].vouched, vouched || was_vouched);
        was_vouched |= vouched;
    }
    let untouched = store.policy(thing(1), object).await.expect("read");
    assert_eq!(untouched, Some(same_bytes));
}

pub(crate) async fn a_policy_that_is_there_is_left_alone_where_others_are_added<I: GroupKey>(
    store: &dyn Store<I>,
) {
    let (object, other) = (I::from_bytes([7; 16]), I::from_bytes([8; 16]));
    let one = Subject::User(user(1));
    let narrow = policy(one, object, &[Action::MessageRead], 5);
    put(store, &[narrow]).await;
    let wide = |object| policy(one, object, &[Action::MessageRead, Action::MessageWrite], 9);
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let tell = move |policy: &Policy<I>| {
        counted.fetch_add(1, Ordering::Relaxed);
        told("put", policy.object)
    };
    let added = store
        .add_policies(&[wide(object), wide(other)], &tell)
        .await;
    assert_eq!(added.expect("kept"), [wide(other)]);
    assert_eq!(times.load(Ordering::Relaxed), 1);
    let left = store.policy(one, object).await.expect("read");
    assert_eq!(left, Some(narrow));
    let added = store.policy(one, other).await.expect("read");
    assert_eq!(added, Some(wide(other)));
}

pub(crate) async fn a_policy_changes_and_goes_once<I: GroupKey>(store: &dyn Store<I>) {
    let object = I::from_bytes([7; 16]);
    let (one, two) = (Subject::User(user(1)), Subject::User(user(2)));
    let first = policy(one, object, &[Action::GroupAdd], 5);
    let second = policy(two, object, &[Action::GroupAdd], 6);
    put(store, &[first, second]).await;
    let tell = |policy: &Policy<I>| told("policy", policy.subject);
    let actions = Actions::default().with(Action::GroupDelete);
    let changed = store.change_policy(one, object, actions, by(3, 9), &tell);
    let expected = Policy {
        actions,
        update: Some(by(3, 9)),
        ..first
    };
    assert_eq!(changed.await.expect("kept"), Some(expected));
    let none = store.change_policy(thing(1), object, actions, by(3, 9), &tell);
    assert_eq!(none.await.expect("kept"), None);

    let pairs = [(one, object), (thing(2), object), (one, object)];
    let removed = store.remove_policies(&pairs, &tell).await;
    assert_eq!(removed.expect("removed"), [expected]);
    assert_eq!(store.policy(one, object).await.expect("read"), None);
    let left = store.policy(two, object).await.expect("read");
    assert_eq!(left, Some(second));
}

pub(crate) async fn policies_are_found_by_what_they_say<I: GroupKey>(store: &dyn Store<I>) {
    let (a, b) = (I::from_bytes([7; 16]), I::from_bytes([8; 16]));
    let one = Subject::User(user(1));
    let mine = policy(one, a, &[Action::GroupAdd], 3);
    let other = Policy {
        owner: user(2),
        ..policy(one, b, &[Action::MessageRead], 2)
    };
    let things = policy(thing(1), a, &[Action::ClientUpdate], 1);
    put(store, &[mine, other, things]).await;
    let every = PolicyFilter::default;
    let owner = Some(user(1));
    let (subject, object) = (Some(one), Some(b));
    for (filter, found) in [
        (every(), &[things, other, mine][..]),
        (PolicyFilter { owner, ..every() }, &[things, mine]),
        (PolicyFilter { subject, ..every() }, &[other, mine]),
        (PolicyFilter { object, ..every() }, &[other]),
        (
            PolicyFilter {
                owner,
                object,
                ..every()
            },
            &[],
        ),
    ] {
        let listing = store.policies(&filter, ALL).await.expect("read");
        assert_eq!(listing.items, found, "{filter:?}");
        assert_eq!(listing.total, found.len() as u64);
    }
    for (action, found) in [
        (Action::GroupList, 2),
        (Action::ClientList, 1),
        (Action::GroupAdd, 1),
        (Action::MessageWrite, 0),
    ] {
        let action = Some(action);
        let filter = PolicyFilter { action, ..every() };
        let listing = store.policies(&filter, ALL).await.expect("read");
        assert_eq!(listing.total, found, "{action:?}");
    }
    let second = Page {
        offset: 1,
        limit: 1,
    };
    let listing = store.policies(&every(), second).await.expect("read");
    assert_eq!((listing.items.as_slice(), listing.total), (&[other][..], 3));
}

pub(crate) async fn a_standing_is_of_one_subject_to_one_group<I: GroupKey>(store: &dyn Store<I>) {
    let group = Group {
        status: Status::Disabled,
        ..group(1, "a", 1, None)
    };
    add(store, &[&group]).await;
    let two = Subject::User(user(2));
    let held = policy(two, group.id, &[Action::GroupUpdate], 1);
    put(store, &[held]).await;
    for (subject, actions) in [
        (two, held.actions),
        (thing(2), Actions::default()),
        (Subject::User(user(1)), Actions::default()),
    ] {
        let standing = store.standing(subject, group.id).await.expect("read");
        let standing = standing.expect("there");
        assert_eq!(standing.actions, actions);
        assert_eq!(
            (standing.owner, standing.status),
            (user(1), Status::Disabled)
        );
    }
    let standing = store.standing(two, group.id).await.expect("read");
    let standing = standing.expect("there");
    assert!(standing.allows(user(2), Action::GroupList));
    assert!(!standing.allows(user(2), Action::GroupDelete));
    assert!(standing.allows(user(1), Action::GroupDelete));
    let nowhere = store.standing(two, I::from_bytes([9; 16])).await;
    assert_eq!(nowhere.expect("read"), None);
}

pub(crate) async fn reach_goes_through_an_enabled_group_that_both_are_in<I: GroupKey>(
    store: &dyn Store<I>,
) {
    let on = group(9, "on", 1, None);
    let off = Group {
        status: Status::Disabled,
        ..group(9, "off", 2, None)
    };
    add(store, &[&on, &off]).await;
    let subject = |number| Subject::User(user(number));
    put(
        store,
        &[
            policy(subject(1), on.id, &[Action::ClientUpdate], 1),
            policy(subject(1), off.id, &[Action::ClientDelete], 2),
            policy(subject(2), on.id, &[Action::MessageRead], 3),
            policy(subject(2), off.id, &[Action::MessageRead], 4),
            policy(thing(3), on.id, &[Action::MessageRead], 5),
            Policy {
                vouched: false,
                ..policy(subject(4), on.id, &[Action::ClientUpdate], 6)
            },
        ],
    )
    .await;
    for (holder, action, member, reaches) in [
        (1, Action::ClientUpdate, subject(2), true),
        (1, Action::ClientList, subject(2), true),
        (1, Action::ClientDelete, subject(2), false),
        (1, Action::ClientUpdate, thing(3), true),
        (1, Action::ClientUpdate, subject(3), false),
        (1, Action::ClientUpdate, thing(2), false),
        (1, Action::ClientUpdate, subject(4), false),
        (4, Action::ClientUpdate, subject(2), true),
        (2, Action::ClientList, subject(1), false),
        (3, Action::ClientList, subject(2), false),
        (9, Action::ClientList, subject(2), false),
    ] {
        let told = store.reaches(user(holder), action, member).await;
        assert_eq!(told.expect("read"), reaches, "{holder} {action} {member}");
    }
}
