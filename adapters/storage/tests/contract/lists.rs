//! Lists in a database are what they are in memory: whatever was done, from whichever entry a page begins.

use proptest::prelude::*;
use rollcall_domain::entity::{Metadata, Status};
use rollcall_domain::event::{Event, Stream};
use rollcall_domain::groups::{Details, Group, GroupFilter, Policy, Seen, Subject};
use rollcall_domain::identity::{ChannelId, ThingId, Timestamp};
use rollcall_domain::listing::{Page, StatusFilter, Visibility};
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::things::{Scope, Thing, ThingChange, ThingFilter};
use rollcall_domain::vault::KeptKey;
use rollcall_storage::database::Database;

use crate::stores;
use crate::things::{Store, by, key, memory, metadata, policy_told, told, user};

/// Few, so that the lists of a test have many spans.
pub(crate) const SPAN: u16 = 4;
const CHANNELS: u8 = 12;
const METADATA: [&str; 5] = [
    "{}",
    r#"{"a":1}"#,
    r#"{"a":[1,2,1]}"#,
    r#"{"a":1,"b":[{"x":1,"y":2},{"x":2}]}"#,
    r#"{"b":[{"x":1},{"y":2}]}"#,
];
pub(crate) const WANTED: [&str; 6] = [
    "{}",
    r#"{"a":1}"#,
    r#"{"a":[1]}"#,
    r#"{"b":[{"x":1,"y":2}]}"#,
    r#"{"b":[{}],"a":1}"#,
    r#"{"c":1}"#,
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Make(Vec<Made>),
    Change(usize, Changed),
    Channel(u8, bool),
    Switch(u8, bool),
    Describe(u8, usize),
    Allow(Vec<(Who, u8, bool)>),
    Forbid(Who, u8),
}

#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) owner: u8,
    pub(crate) name: u8,
    pub(crate) tags: Vec<u8>,
    pub(crate) metadata: usize,
    pub(crate) is_on: bool,
    /// Several at one moment, and not in the order of making.
    pub(crate) at: u8,
}

#[derive(Clone, Debug)]
pub(crate) enum Changed {
    Name(u8),
    Metadata(usize),
    Tags(Vec<u8>),
    Owner(u8),
    Status(bool),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Thing(usize),
    User(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) status: StatusFilter,
    pub(crate) name: Option<u8>,
    pub(crate) tag: Option<u8>,
    pub(crate) owner: Option<u8>,
    pub(crate) metadata: usize,
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    Everybody,
    User(u8, Visibility),
    Channel(u8),
}

/// Few have most members: so some is shared by one alone, some by several.
fn a_channel() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 0..3_u8, 1 => 0..CHANNELS]
}

/// All that is shared with each user.
fn shared() -> impl Iterator<Item = Asked> {
    (0..3_u8).map(|user| Asked {
        status: StatusFilter::Enabled,
        name: None,
        tag: None,
        owner: None,
        metadata: 0,
        of: Of::User(user, Visibility::Shared),
    })
}

fn a_step() -> impl Strategy<Value = Step> {
    let tags = || prop::collection::vec(0..3_u8, 0..3);
    let made = (
        0..3_u8,
        0..2_u8,
        tags(),
        0..METADATA.len(),
        0..4_u8,
        0..30_u8,
    );
    let made = made.prop_map(|(owner, name, tags, metadata, off, at)| Made {
        owner,
        name,
        tags,
        metadata,
        is_on: off > 0,
        at,
    });
    let changed = prop_oneof![
        (0..2_u8).prop_map(Changed::Name),
        (0..METADATA.len()).prop_map(Changed::Metadata),
        tags().prop_map(Changed::Tags),
        (0..3_u8).prop_map(Changed::Owner),
        any::<bool>().prop_map(Changed::Status),
    ];
    let who = || {
        prop_oneof![
            4 => (0..60_usize).prop_map(Who::Thing),
            1 => (0..3_u8).prop_map(Who::User),
        ]
    };
    let policy = (who(), a_channel(), any::<bool>());
    prop_oneof![
        3 => prop::collection::vec(made, 1..20).prop_map(Step::Make),
        8 => (0..60_usize, changed).prop_map(|(n, changed)| Step::Change(n, changed)),
        2 => (a_channel(), any::<bool>()).prop_map(|(n, is_on)| Step::Channel(n, is_on)),
        1 => (0..CHANNELS, any::<bool>()).prop_map(|(n, is_on)| Step::Switch(n, is_on)),
        1 => (0..CHANNELS, 0..METADATA.len()).prop_map(|(n, it)| Step::Describe(n, it)),
        4 => prop::collection::vec(policy, 1..20).prop_map(Step::Allow),
        1 => (who(), a_channel()).prop_map(|(who, n)| Step::Forbid(who, n)),
    ]
}

fn a_status() -> impl Strategy<Value = StatusFilter> {
    prop_oneof![
        2 => Just(StatusFilter::Enabled),
        1 => Just(StatusFilter::Disabled),
        1 => Just(StatusFilter::All),
    ]
}

fn an_asked() -> impl Strategy<Value = Asked> {
    let visibility = prop_oneof![
        Just(Visibility::Mine),
        Just(Visibility::Shared),
        Just(Visibility::All),
    ];
    let of = prop_oneof![
        2 => Just(Of::Everybody),
        3 => (0..3_u8, visibility).prop_map(|(user, it)| Of::User(user, it)),
        1 => (0..CHANNELS).prop_map(Of::Channel),
    ];
    let rarely = |values| prop::option::weighted(0.2, 0..values);
    let metadata = prop_oneof![3 => Just(0), 2 => 0..WANTED.len()];
    let asked = (a_status(), rarely(2_u8), rarely(3), rarely(3), metadata, of);
    asked.prop_map(|(status, name, tag, owner, metadata, of)| Asked {
        status,
        name,
        tag,
        owner,
        metadata,
        of,
    })
}

/// The thing that was made as the so many-th.
fn thing_id(number: usize) -> ThingId {
    // Ids go up and down.
    let number = u8::try_from(number).expect("few");
    ThingId::from_bytes([
        number.wrapping_mul(97),
        number,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ])
}

fn channel_id(number: u8) -> ChannelId {
    ChannelId::from_bytes([100 + number; 16])
}

pub(crate) fn status(is_on: bool) -> Status {
    match is_on {
        true => Status::Enabled,
        false => Status::Disabled,
    }
}

fn texts(prefix: &str, numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|n| format!("{prefix} {n}")).collect()
}

fn channel_told(_: &Group<ChannelId>) -> Event {
    Event::operation(Stream::Things, "channel.update", [])
}

fn subject(who: Who) -> Subject {
    match who {
        Who::Thing(number) => Subject::Thing(thing_id(number)),
        Who::User(number) => Subject::User(user(number)),
    }
}

/// What a store is filled with; the same for each.
pub(crate) async fn take(store: &dyn Store, steps: &[Step]) {
    let mut made = 0;
    for step in steps {
        match step {
            Step::Make(things) => {
                let rows: Vec<(Thing, KeptKey)> = (made..)
                    .zip(things)
                    .map(|(number, it)| {
                        (thing(number, it), key(u8::try_from(number).expect("few")))
                    })
                    .collect();
                made += rows.len();
                let kept = store.things().add_things(&rows, vec![]).await;
                kept.expect("kept");
            }
            Step::Change(number, changed) => {
                let change = change(changed);
                let id = thing_id(*number);
                let changed = store.things().change_thing(id, &change, by(1), &told).await;
                changed.expect("asked");
            }
            Step::Channel(number, is_on) => {
                let channel = Group {
                    id: channel_id(*number),
                    owner: user(number % 3),
                    ancestors: Vec::new(),
                    name: format!("channel {number}"),
                    description: String::new(),
                    metadata: Metadata::new(),
                    status: status(*is_on),
                    created_at: Timestamp(u64::from(number % 5)),
                    update: None,
                };
                // It may be there.
                let _ = store.channels().add_groups(&[channel], vec![]).await;
            }
            Step::Switch(number, is_on) => {
                let (id, status) = (channel_id(*number), status(*is_on));
                let set = store
                    .channels()
                    .set_group_status(id, status, by(1), &channel_told);
                set.await.expect("asked");
            }
            Step::Describe(number, n) => {
                let details = Details {
                    metadata: Some(metadata(METADATA[*n])),
                    ..Details::default()
                };
                let id = channel_id(*number);
                let changed = store
                    .channels()
                    .change_group(id, &details, by(1), &channel_told);
                changed.await.expect("asked");
            }
            Step::Allow(policies) => {
                let actions: Actions = [Action::ClientList, Action::GroupList]
                    .into_iter()
                    .collect();
                let policies: Vec<Policy<ChannelId>> = policies
                    .iter()
                    .map(|(who, channel, vouched)| Policy {
                        subject: subject(*who),
                        object: channel_id(*channel),
                        actions,
                        owner: user(9),
                        vouched: *vouched,
                        created_at: Timestamp(1),
                        update: None,
                    })
                    .collect();
                let put = store.policies().put_policies(&policies, &policy_told).await;
                put.expect("kept");
            }
            Step::Forbid(who, channel) => {
                let pairs = [(subject(*who), channel_id(*channel))];
                let removed = store.policies().remove_policies(&pairs, &policy_told).await;
                removed.expect("asked");
            }
        }
    }
}

pub(crate) fn thing(number: usize, made: &Made) -> Thing {
    Thing {
        id: thing_id(number),
        owner: user(made.owner),
        name: format!("name {}", made.name),
        tags: texts("tag", &made.tags),
        identity: String::new(),
        metadata: metadata(METADATA[made.metadata]),
        status: status(made.is_on),
        created_at: Timestamp(u64::from(made.at)),
        update: None,
    }
}

fn change(changed: &Changed) -> ThingChange {
    let about = |name, metadata| ThingChange::About { name, metadata };
    match changed {
        Changed::Name(n) => about(Some(format!("name {n}")), None),
        Changed::Metadata(n) => about(None, Some(metadata(METADATA[*n]))),
        Changed::Tags(numbers) => ThingChange::Tags(texts("tag", numbers)),
        Changed::Owner(number) => ThingChange::Owner(user(*number)),
        Changed::Status(is_on) => ThingChange::Status(status(*is_on)),
    }
}

fn filter(asked: &Asked) -> ThingFilter {
    ThingFilter {
        status: asked.status,
        name: asked.name.map(|n| format!("name {n}")),
        tag: asked.tag.map(|n| format!("tag {n}")),
        owner: asked.owner.map(user),
        metadata: metadata(WANTED[asked.metadata]),
    }
}

pub(crate) async fn listed(store: &dyn Store, asked: &Asked, page: Page) -> (Vec<Thing>, u64) {
    let (filter, things) = (filter(asked), store.things());
    let listing = match asked.of {
        Of::Everybody => things.things(&filter, Scope::Everybodys, page).await,
        Of::User(number, visibility) => {
            let scope = Scope::Of(user(number), visibility);
            things.things(&filter, scope, page).await
        }
        Of::Channel(number) => {
            let channel = channel_id(number);
            things.things_of_channel(channel, &filter, page).await
        }
    };
    let listing = listing.expect("listed");
    (listing.items, listing.total)
}

/// Channels, by as much of what was asked as there is of them.
async fn channels(store: &dyn Store, asked: &Asked, page: Page) -> (Vec<Group<ChannelId>>, u64) {
    let seen = match asked.of {
        Of::User(number, visibility) => Some(Seen {
            by: user(number),
            visibility,
        }),
        Of::Everybody | Of::Channel(_) => None,
    };
    let filter = GroupFilter {
        status: asked.status,
        owner: asked.owner.map(user),
        metadata: Some(metadata(WANTED[asked.metadata])),
        seen,
        ..GroupFilter::default()
    };
    let listing = store.channels().groups(&filter, page).await;
    let listing = listing.expect("listed");
    (listing.items, listing.total)
}

async fn hold(database: &Database, steps: &[Step], asked: &[Asked]) {
    let memory = memory();
    take(&memory, steps).await;
    take(database, steps).await;
    for asked in asked.iter().cloned().chain(shared()) {
        let asked = &asked;
        let mut offset = 0;
        loop {
            let page = Page { offset, limit: 3 };
            let expected = listed(&memory, asked, page).await;
            let found = listed(database, asked, page).await;
            assert_eq!(found, expected, "{asked:?} from {offset}");
            if offset > expected.1 {
                break;
            }
            offset += 1;
        }
        for offset in 0..3 {
            let page = Page { offset, limit: 4 };
            let expected = channels(&memory, asked, page).await;
            let found = channels(database, asked, page).await;
            assert_eq!(found, expected, "channels, {asked:?} from {offset}");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Few things have few steps: ids are of one byte.
fn is_little(steps: &[Step]) -> bool {
    let made = steps.iter().map(|step| match step {
        Step::Make(things) => things.len(),
        _ => 0,
    });
    made.sum::<usize>() < 250
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_lists_what_memory_does(
        steps in prop::collection::vec(a_step(), 10..60).prop_filter("too many things", |it| is_little(it)),
        asked in prop::collection::vec(an_asked(), 12),
    ) {
        runtime().block_on(async {
            let store = stores::sqlite().await;
            let database = store.database.clone().with_spans_of(SPAN);
            hold(&database, &steps, &asked).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn postgresql_lists_what_memory_does(
        steps in prop::collection::vec(a_step(), 10..60).prop_filter("too many things", |it| is_little(it)),
        asked in prop::collection::vec(an_asked(), 8),
    ) {
        runtime().block_on(async {
            let store = stores::postgres().await;
            let database = store.database.clone().with_spans_of(SPAN);
            hold(&database, &steps, &asked).await;
        });
    }
}
