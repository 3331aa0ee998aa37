//! What stores of users, logins and resets promise.

use rollcall_domain::entity::{Metadata, Status, Update};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{Group, GroupStore, People, Person, Policy, PolicyStore, Subject};
use rollcall_domain::identity::{GroupId, Timestamp, UserId};
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use rollcall_domain::memory;
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{
    Change, Login, LoginId, MAX_LOGINS, Reset, ResetId, Rotated, Scope, Store as Users, TokenHash,
    TokenId, User, UserFilter,
};
use rollcall_storage::database::Database;

pub(crate) trait Groups: GroupStore<GroupId> + PolicyStore<GroupId> {}

impl<T: GroupStore<GroupId> + PolicyStore<GroupId>> Groups for T {}

pub(crate) trait Store: Users + People {
    fn groups(&self) -> &dyn Groups;
}

impl Store for Database {
    fn groups(&self) -> &dyn Groups {
        self
    }
}

impl Store for memory::Users {
    fn groups(&self) -> &dyn Groups {
        self.groups()
    }
}

const ALL: Page = Page {
    offset: 0,
    limit: 1_000,
};
const EVERYBODY: UserFilter = UserFilter {
    status: StatusFilter::All,
    name: None,
    identity: None,
    tag: None,
    owner: None,
    metadata: None,
    visibility: Visibility::All,
};

fn id(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

/// Ids run against the order of making.
fn user(number: u8) -> User {
    User {
        id: id(number),
        name: format!("user {number}"),
        tags: Vec::new(),
        owner: None,
        identity: format!("{number}@example.com"),
        metadata: Metadata::new(),
        status: Status::Enabled,
        admin: false,
        created_at: Timestamp(1_000 - u64::from(number)),
        update: None,
    }
}

fn metadata(text: &str) -> Metadata {
    serde_json::from_str(text).expect("an object")
}

fn told(user: &User) -> Event {
    Event::operation(Stream::Users, "told", [("id", user.id.to_string())])
}

const BY: Update = Update {
    at: Timestamp(5_000),
    by: UserId::from_bytes([77; 16]),
};

async fn add(store: &dyn Store, users: &[&User]) {
    for user in users {
        let added = store.add_user(user, "hash", vec![told(user)]).await;
        added.expect("kept");
    }
}

async fn change(store: &dyn Store, number: u8, change: Change) -> Option<User> {
    let changed = store.change_user(id(number), &change, BY, &told).await;
    changed.expect("kept")
}

async fn found(store: &dyn Store, scope: Scope, filter: UserFilter) -> Vec<u8> {
    let listing = store.users(scope, &filter, ALL).await.expect("read");
    assert_eq!(listing.total, listing.items.len() as u64);
    let numbers = listing.items.iter().map(|user| user.id.as_bytes()[0]);
    numbers.collect()
}

pub(crate) async fn a_user_comes_back_as_it_was_kept(store: &dyn Store) {
    let full = User {
        tags: vec!["a".into(), "b,c".into(), "a".into()],
        owner: Some(id(2)),
        metadata: metadata(r#"{"a": [1, {"b": null}], "c": "é"}"#),
        status: Status::Disabled,
        admin: true,
        ..user(1)
    };
    let plain = user(2);
    add(store, &[&full, &plain]).await;
    for user in [full.clone(), plain] {
        assert_eq!(store.user(user.id).await.expect("read"), Some(user.clone()));
        let found = store.credentials(&user.identity).await.expect("read");
        assert_eq!(found, Some((user.clone(), "hash".into())));
        let password = store.password(user.id).await.expect("read");
        assert_eq!(password.as_deref(), Some("hash"));
        let person = Person {
            owner: user.owner,
            admin: user.admin,
        };
        assert_eq!(store.person(user.id).await.expect("read"), Some(person));
    }
    // Disabled as it is: there is to be no second one.
    assert_eq!(store.admin().await.expect("read"), Some(full));
    assert_eq!(store.user(id(3)).await.expect("read"), None);
    assert_eq!(
        store.credentials("1@EXAMPLE.com").await.expect("read"),
        None
    );
    assert_eq!(store.person(id(3)).await.expect("read"), None);
}

pub(crate) async fn an_identity_is_one_users(store: &dyn Store) {
    add(store, &[&user(1), &user(2)]).await;
    let other = User {
        identity: "1@example.com".into(),
        ..user(3)
    };
    let refused = store.add_user(&other, "hash", vec![]).await;
    assert!(matches!(refused, Err(StoreError::Taken("identity"))));
    assert_eq!(store.user(id(3)).await.expect("read"), None);
    let same = Change::Identity("1@example.com".into());
    let refused = store.change_user(id(2), &same, BY, &told).await;
    assert!(matches!(refused, Err(StoreError::Taken("identity"))));
    assert_eq!(store.user(id(2)).await.expect("read"), Some(user(2)));
    assert!(change(store, 1, same).await.is_some());
}

pub(crate) async fn a_change_is_of_what_it_names(store: &dyn Store) {
    add(store, &[&user(1)]).await;
    let mut expected = user(1);
    expected.update = Some(BY);
    let (name, given) = ("another", metadata(r#"{"a": 1}"#));
    for (what, becomes) in [
        (
            Change::Details {
                name: Some(name.into()),
                metadata: None,
            },
            (&mut |user: &mut User| user.name = name.into()) as &mut dyn FnMut(&mut User),
        ),
        (
            Change::Details {
                name: None,
                metadata: Some(given.clone()),
            },
            &mut |user| user.metadata = given.clone(),
        ),
        (Change::Tags(vec!["t".into()]), &mut |user| {
            user.tags = vec!["t".into()];
        }),
        (Change::Identity("new".into()), &mut |user| {
            user.identity = "new".into();
        }),
        (Change::Owner(id(9)), &mut |user| user.owner = Some(id(9))),
        (Change::Status(Status::Disabled), &mut |user| {
            user.status = Status::Disabled;
        }),
    ] {
        becomes(&mut expected);
        assert_eq!(change(store, 1, what).await, Some(expected.clone()));
        assert_eq!(
            store.user(id(1)).await.expect("read"),
            Some(expected.clone())
        );
    }
    assert_eq!(change(store, 2, Change::Tags(vec![])).await, None);
}

pub(crate) async fn a_status_is_set_once_and_a_password_instead_of_another(store: &dyn Store) {
    add(store, &[&user(1)]).await;
    assert_eq!(
        change(store, 1, Change::Status(Status::Enabled)).await,
        None
    );
    let off = Change::Status(Status::Disabled);
    assert!(change(store, 1, off.clone()).await.is_some());
    assert_eq!(change(store, 1, off).await, None);
    let password = |hash: &str, instead_of: &str| Change::Password {
        hash: hash.into(),
        instead_of: instead_of.into(),
    };
    assert_eq!(change(store, 1, password("new", "wrong")).await, None);
    assert!(change(store, 1, password("new", "hash")).await.is_some());
    assert_eq!(change(store, 1, password("newer", "hash")).await, None);
    let kept = store.password(id(1)).await.expect("read");
    assert_eq!(kept.as_deref(), Some("new"));
}

pub(crate) async fn a_list_has_what_its_filter_says(store: &dyn Store) {
    let disabled = User {
        status: Status::Disabled,
        ..user(1)
    };
    let tagged = User {
        tags: vec!["x".into(), "y".into()],
        metadata: metadata(r#"{"a": {"b": 1}, "c": [1, 2]}"#),
        ..user(2)
    };
    let owned = User {
        owner: Some(id(2)),
        tags: vec!["y".into()],
        metadata: metadata(r#"{"a": {"b": 2}}"#),
        ..user(3)
    };
    add(store, &[&disabled, &tagged, &owned]).await;
    let with = |filter: UserFilter| found(store, Scope::Everybody, filter);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(with(UserFilter::default()).await, [3, 2]);
    assert_eq!(with(EVERYBODY).await, [3, 2, 1]);
    let status = StatusFilter::Disabled;
    assert_eq!(
        with(UserFilter {
            status,
            ..EVERYBODY
        })
        .await,
        [1]
    );
    let name = text("user 2");
    assert_eq!(with(UserFilter { name, ..EVERYBODY }).await, [2]);
    let name = text("user");
    assert_eq!(with(UserFilter { name, ..EVERYBODY }).await, [0; 0]);
    let identity = text("1@example.com");
    assert_eq!(
        with(UserFilter {
            identity,
            ..EVERYBODY
        })
        .await,
        [1]
    );
    let tag = text("y");
    assert_eq!(with(UserFilter { tag, ..EVERYBODY }).await, [3, 2]);
    let owner = Some(id(2));
    assert_eq!(with(UserFilter { owner, ..EVERYBODY }).await, [3]);
    let containing = |text: &str| UserFilter {
        metadata: Some(metadata(text)),
        ..EVERYBODY
    };
    assert_eq!(with(containing(r#"{"a": {"b": 1}}"#)).await, [2]);
    assert_eq!(with(containing(r#"{"a": {}}"#)).await, [3, 2]);
    assert_eq!(with(containing(r#"{"c": [2]}"#)).await, [2]);
    // What was searched for before a change is not found by it later.
    change(store, 2, Change::Tags(vec!["z".into()])).await;
    let details = Change::Details {
        name: None,
        metadata: Some(metadata(r#"{"d": 1}"#)),
    };
    change(store, 2, details).await;
    let tag = text("y");
    assert_eq!(with(UserFilter { tag, ..EVERYBODY }).await, [3]);
    let tag = text("z");
    assert_eq!(with(UserFilter { tag, ..EVERYBODY }).await, [2]);
    assert_eq!(with(containing(r#"{"a": {}}"#)).await, [3]);
    assert_eq!(with(containing(r#"{"d": 1}"#)).await, [2]);
}

pub(crate) async fn a_list_has_who_the_one_who_asks_may_see(store: &dyn Store) {
    let mine = User {
        owner: Some(id(1)),
        ..user(2)
    };
    let people: Vec<User> = (3..=7).map(user).collect();
    add(store, &[&user(1), &mine]).await;
    add(store, &people.iter().collect::<Vec<_>>()).await;
    let group = |number: u8, status| Group {
        id: GroupId::from_bytes([number; 16]),
        owner: id(7),
        ancestors: Vec::new(),
        name: format!("group {number}"),
        description: String::new(),
        metadata: Metadata::new(),
        status,
        created_at: Timestamp(u64::from(number)),
        update: None,
    };
    let policy = |subject: u8, object: u8, action, vouched| Policy {
        subject: Subject::User(id(subject)),
        object: GroupId::from_bytes([object; 16]),
        actions: Actions::default().with(action),
        owner: id(7),
        vouched,
        created_at: Timestamp(1),
        update: None,
    };
    let groups = [
        group(1, Status::Enabled),
        group(2, Status::Disabled),
        group(3, Status::Enabled),
    ];
    let added = store.groups().add_groups(&groups, vec![]).await;
    added.expect("kept");
    let policies = [
        policy(1, 1, Action::ClientUpdate, true),
        policy(3, 1, Action::MessageRead, true),
        policy(4, 1, Action::ClientList, false),
        policy(1, 2, Action::ClientList, true),
        policy(5, 2, Action::ClientList, true),
        policy(1, 3, Action::GroupList, true),
        policy(6, 3, Action::ClientList, true),
    ];
    let tell = |_: &Policy<GroupId>| Event::operation(Stream::Users, "told", []);
    let put = store.groups().put_policies(&policies, &tell).await;
    put.expect("kept");
    let seen = |visibility| found(store, Scope::Of(id(1), visibility), EVERYBODY);
    assert_eq!(seen(Visibility::Mine).await, [2]);
    // Oneself, and who was brought in by somebody with a say over him.
    assert_eq!(seen(Visibility::Shared).await, [3, 1]);
    assert_eq!(seen(Visibility::All).await, [3, 2, 1]);
    let nothing = found(store, Scope::Of(id(5), Visibility::All), EVERYBODY).await;
    assert_eq!(nothing, [0; 0]);

    let page = Page {
        offset: 0,
        limit: 2,
    };
    let off = UserFilter {
        status: StatusFilter::Disabled,
        ..UserFilter::default()
    };
    for (group, vouched, filter, total) in [
        (1, false, UserFilter::default(), 3),
        (1, true, UserFilter::default(), 2),
        (1, false, off, 0),
        (3, false, UserFilter::default(), 2),
        (4, false, UserFilter::default(), 0),
    ] {
        let group = GroupId::from_bytes([group; 16]);
        let members = store.members(group, vouched, &filter, page).await;
        let members = members.expect("read");
        assert_eq!(members.total, total);
        assert_eq!(members.items.len() as u64, total.min(2));
    }
}

pub(crate) async fn a_page_is_a_part_of_the_list(store: &dyn Store) {
    let people: Vec<User> = (1..=5).map(user).collect();
    add(store, &people.iter().collect::<Vec<_>>()).await;
    for (offset, limit, numbers) in [
        (0, 2, vec![5, 4]),
        (2, 2, vec![3, 2]),
        (4, 2, vec![1]),
        (5, 2, vec![]),
        (9, 2, vec![]),
    ] {
        let page = Page { offset, limit };
        let listing = store.users(Scope::Everybody, &EVERYBODY, page).await;
        let listing = listing.expect("read");
        assert_eq!(listing.total, 5);
        let got: Vec<u8> = listing.items.iter().map(|it| it.id.as_bytes()[0]).collect();
        assert_eq!(got, numbers);
    }
}

fn login(number: u8, of: u8, created_at: u64) -> Login {
    Login {
        id: LoginId::from_bytes([number; 16]),
        user: id(of),
        refresh: TokenId::from_bytes([number; 16]),
        created_at: Timestamp(created_at),
        expires_at: Timestamp(created_at + 100),
    }
}

async fn sign_in(store: &dyn Store, login: &Login) -> bool {
    let begun = store.add_login(login, "hash", vec![told(&user(1))]).await;
    begun.expect("kept")
}

async fn is_live(store: &dyn Store, login: &Login, now: u64) -> bool {
    let user = store.login(login.id, Timestamp(now)).await.expect("read");
    user.is_some_and(|user| user.id == login.user)
}

pub(crate) async fn a_login_begins_with_the_password_of_an_enabled_user(store: &dyn Store) {
    add(store, &[&user(1)]).await;
    let wrong = store.add_login(&login(1, 1, 0), "wrong", vec![]).await;
    assert!(!wrong.expect("read"));
    assert!(!is_live(store, &login(1, 1, 0), 0).await);
    assert!(!sign_in(store, &login(2, 2, 0)).await);
    assert!(sign_in(store, &login(1, 1, 0)).await);
    assert!(is_live(store, &login(1, 1, 0), 99).await);
    assert!(!is_live(store, &login(1, 1, 0), 100).await);
    change(store, 1, Change::Status(Status::Disabled)).await;
    assert!(!sign_in(store, &login(3, 1, 0)).await);
}

pub(crate) async fn a_refresh_token_is_good_once(store: &dyn Store) {
    add(store, &[&user(1)]).await;
    let first = login(1, 1, 0);
    sign_in(store, &first).await;
    let rotate = async |login: &Login, new: u8, now: u64| {
        let new = TokenId::from_bytes([new; 16]);
        let rotated = store.rotate_login(login, new, Timestamp(now), vec![]).await;
        rotated.expect("kept")
    };
    let later = Login {
        expires_at: Timestamp(300),
        ..first.clone()
    };
    assert_eq!(rotate(&later, 2, 50).await, Rotated::Done);
    assert!(is_live(store, &first, 299).await);
    let second = Login {
        refresh: TokenId::from_bytes([2; 16]),
        ..later.clone()
    };
    assert_eq!(rotate(&second, 3, 200).await, Rotated::Done);
    // The first one comes again: everything ends.
    assert_eq!(rotate(&later, 4, 200).await, Rotated::Reused);
    assert!(!is_live(store, &first, 200).await);
    assert_eq!(rotate(&second, 5, 200).await, Rotated::Gone);
}

pub(crate) async fn logins_end_with_what_they_rest_on(store: &dyn Store) {
    add(store, &[&user(1), &user(2)]).await;
    let (a, b, other) = (login(1, 1, 0), login(2, 1, 0), login(3, 2, 0));
    for login in [&a, &b, &other] {
        sign_in(store, login).await;
    }
    store.end_login(a.id).await.expect("ended");
    assert!(!is_live(store, &a, 1).await && is_live(store, &b, 1).await);
    change(store, 1, Change::Status(Status::Disabled)).await;
    assert!(!is_live(store, &b, 1).await);
    change(store, 1, Change::Status(Status::Enabled)).await;
    assert!(!is_live(store, &b, 1).await, "it does not come back");
    assert!(is_live(store, &other, 1).await);
    let password = Change::Password {
        hash: "new".into(),
        instead_of: "hash".into(),
    };
    change(store, 2, password).await;
    assert!(!is_live(store, &other, 1).await);
}

pub(crate) async fn a_user_has_so_many_logins_and_no_more(store: &dyn Store) {
    add(store, &[&user(1), &user(2)]).await;
    let other = login(1, 2, 0);
    sign_in(store, &other).await;
    let many: Vec<Login> = (0..=MAX_LOGINS)
        .map(|n| Login {
            id: LoginId::generate(),
            expires_at: Timestamp(1_000_000),
            ..login(1, 1, u64::from(n) + 1)
        })
        .collect();
    for login in &many {
        assert!(sign_in(store, login).await);
    }
    assert!(!is_live(store, &many[0], 10).await);
    for login in &many[1..] {
        assert!(is_live(store, login, 10).await);
    }
    // That one has expired, and was forgotten for it.
    assert!(!is_live(store, &other, 10).await);
}

fn reset(number: u8, of: Option<u8>, created_at: u64) -> Reset {
    Reset {
        id: ResetId::from_bytes([number; 16]),
        user: of.map(id),
        host: format!("http://host{number}"),
        created_at: Timestamp(created_at),
    }
}

async fn ask(store: &dyn Store, reset: &Reset) {
    let kept = store.add_reset(reset, Timestamp(0), vec![]).await;
    kept.expect("kept");
}

async fn due(store: &dyn Store, now: u64) -> Vec<u8> {
    let due = store.due_resets(Timestamp(now), 10).await.expect("read");
    due.iter().map(|due| due.id.as_bytes()[0]).collect()
}

pub(crate) async fn a_reset_is_due_until_its_mail_is_sent(store: &dyn Store) {
    add(store, &[&user(1), &user(2)]).await;
    assert_eq!(store.next_reset().await.expect("read"), None);
    ask(store, &reset(1, Some(1), 20)).await;
    ask(store, &reset(2, Some(2), 10)).await;
    ask(store, &reset(3, None, 5)).await;
    assert_eq!(due(store, 100).await, [2, 1]);
    assert_eq!(due(store, 15).await, [2]);
    let one = store.due_resets(Timestamp(100), 1).await.expect("read");
    assert_eq!((one.len(), &one[0].user, one[0].attempts), (1, &user(2), 0));
    assert_eq!(one[0].host, "http://host2");
    assert_eq!(one[0].created_at, Timestamp(10));
    let hash = TokenHash([1; 32]);
    store
        .arm_reset(one[0].id, &hash, Timestamp(200))
        .await
        .expect("kept");
    let until = Timestamp(150);
    store.defer_reset(one[0].id, until).await.expect("kept");
    assert_eq!(due(store, 149).await, [1]);
    let again = store.due_resets(until, 10).await.expect("read");
    assert_eq!(again[1].attempts, 1);
    store
        .reset_sent(reset(1, None, 0).id, vec![])
        .await
        .expect("kept");
    assert_eq!(store.next_reset().await.expect("read"), Some(until));
    // Whoever is disabled gets no mail, and holds up nobody.
    change(store, 2, Change::Status(Status::Disabled)).await;
    assert_eq!(due(store, 200).await, [0; 0]);
    assert_eq!(store.next_reset().await.expect("read"), None);
    ask(store, &reset(4, Some(1), 20)).await;
    store
        .drop_reset(reset(4, None, 0).id)
        .await
        .expect("dropped");
    assert_eq!(due(store, 200).await, [0; 0]);
    // What is too old is forgotten.
    ask(store, &reset(5, Some(1), 20)).await;
    let late = store
        .add_reset(&reset(6, Some(1), 30), Timestamp(21), vec![])
        .await;
    late.expect("kept");
    assert_eq!(due(store, 200).await, [6]);
}

pub(crate) async fn a_reset_token_is_good_once_and_for_a_while(store: &dyn Store) {
    add(store, &[&user(1), &user(2), &user(3)]).await;
    let [hash, other, of_2, of_3] = [1, 2, 3, 4].map(|number| TokenHash([number; 32]));
    let end = Timestamp(200);
    for (number, of, hash) in [(1, 1, &hash), (2, 1, &other), (3, 2, &of_2), (4, 3, &of_3)] {
        ask(store, &reset(number, Some(of), 10)).await;
        let id = reset(number, None, 0).id;
        store.arm_reset(id, hash, end).await.expect("kept");
    }
    sign_in(store, &login(1, 1, 0)).await;
    let whose = async |hash: &TokenHash, now| {
        let user = store.reset_by_token(hash, Timestamp(now)).await;
        user.expect("read")
    };
    assert_eq!(whose(&hash, 199).await, Some(id(1)));
    assert_eq!(whose(&hash, 200).await, None);
    assert_eq!(whose(&TokenHash([9; 32]), 199).await, None);
    let complete = async |hash: &TokenHash, now| {
        let done = store
            .complete_reset(hash, Timestamp(now), "new", &told)
            .await;
        done.expect("kept")
    };
    assert_eq!(complete(&hash, 200).await, None);
    let expected = User {
        update: Some(Update {
            at: Timestamp(50),
            by: id(1),
        }),
        ..user(1)
    };
    assert_eq!(complete(&hash, 50).await, Some(expected));
    let kept = store.password(id(1)).await.expect("read");
    assert_eq!(kept.as_deref(), Some("new"));
    assert!(!is_live(store, &login(1, 1, 0), 50).await);
    // Neither it nor another one of that user is good any longer.
    assert_eq!(complete(&hash, 50).await, None);
    assert_eq!(whose(&other, 50).await, None);
    assert_eq!(whose(&of_2, 50).await, Some(id(2)));
    assert_eq!(whose(&of_3, 50).await, Some(id(3)));
    change(store, 2, Change::Status(Status::Disabled)).await;
    // It went where somebody else may read it by now.
    change(store, 3, Change::Identity("elsewhere".into())).await;
    for hash in [&of_2, &of_3] {
        assert_eq!(whose(hash, 50).await, None);
        assert_eq!(complete(hash, 50).await, None);
    }
}
