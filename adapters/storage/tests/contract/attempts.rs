//! Random attempts to give and take rights, against the rules put once more, on each store.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use rollcall_domain::caller::Caller;
use rollcall_domain::groups::{
    GroupStore, Groups, NewGroup, People, Person, PolicyFilter, PolicyStore,
};
use rollcall_domain::identity::{GroupId, UserId};
use rollcall_domain::listing::{Listing, Page};
use rollcall_domain::memory::{self, Events};
use rollcall_domain::policies::{Action, Actions};
use rollcall_domain::ports::StoreError;
use rollcall_domain::users::{User, UserFilter};
use tokio::runtime::Runtime;

/// What a caller tries with the policy of a subject on a group, which is the first user's.
#[derive(Clone, Debug)]
enum Attempt {
    Add(u8, u8, u16),
    Change(u8, u8, u16),
    Remove(u8, u8),
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let who = || 1..=5_u8;
    let bits = || 0..1_024_u16;
    prop_oneof![
        (who(), who(), bits()).prop_map(|(by, of, bits)| Attempt::Add(by, of, bits)),
        (who(), who(), bits()).prop_map(|(by, of, bits)| Attempt::Change(by, of, bits)),
        (who(), who()).prop_map(|(by, of)| Attempt::Remove(by, of)),
    ]
}

/// Everybody is there, and nobody's.
struct Everybody;

#[async_trait]
impl People for Everybody {
    async fn person(&self, _: UserId) -> Result<Option<Person>, StoreError> {
        let (owner, admin) = (None, false);
        Ok(Some(Person { owner, admin }))
    }

    async fn members(
        &self,
        _: GroupId,
        _: bool,
        _: &UserFilter,
        _: Page,
    ) -> Result<Listing<User>, StoreError> {
        unreachable!("nobody asks who is in a group")
    }
}

const fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

/// The ninth is an administrator.
const fn caller(number: u8) -> Caller {
    Caller {
        user: user(number),
        admin: number == 9,
    }
}

/// Who made each policy, and what it allows, by who may.
type Model = HashMap<u8, (u8, Actions)>;

/// Whether the attempt is within the rules, and what it makes of the model then.
fn expect(model: &mut Model, attempt: &Attempt) -> bool {
    let holds = |by: u8, wanted: Actions| {
        let held = model.get(&by);
        let held = held.map_or(Actions::default(), |(_, held)| *held);
        by == 1 || held.implied().includes_all(wanted)
    };
    let is_theirs =
        |by: u8, of: u8| by == 1 || model.get(&of).is_some_and(|(maker, _)| *maker == by);
    match *attempt {
        Attempt::Add(by, of, bits) => {
            let wanted = Actions::from_bits(bits);
            let may = !wanted.is_empty()
                && holds(by, wanted.with(Action::GroupAdd))
                && (!model.contains_key(&of) || is_theirs(by, of));
            if may {
                model.entry(of).or_insert((by, wanted)).1 = wanted;
            }
            may
        }
        Attempt::Change(by, of, bits) => {
            let wanted = Actions::from_bits(bits);
            let may = !wanted.is_empty() && is_theirs(by, of) && holds(by, wanted);
            match model.get_mut(&of) {
                Some(policy) if may => policy.1 = wanted,
                _ => return false,
            }
            true
        }
        Attempt::Remove(by, of) => {
            let may = !model.contains_key(&of) || is_theirs(by, of);
            if may {
                model.remove(&of);
            }
            may
        }
    }
}

async fn make(groups: &Groups, group: GroupId, attempt: &Attempt) -> bool {
    match *attempt {
        Attempt::Add(by, of, bits) => {
            let (by, wanted) = (caller(by), Actions::from_bits(bits));
            let added = groups.add_policy(&by, user(of), group, wanted);
            added.await.is_ok()
        }
        Attempt::Change(by, of, bits) => {
            let (by, wanted) = (caller(by), Actions::from_bits(bits));
            let changed = groups.change_policy(&by, user(of), group, wanted);
            changed.await.is_ok()
        }
        Attempt::Remove(by, of) => {
            let by = caller(by);
            let removed = groups.remove_policy(&by, user(of), group);
            removed.await.is_ok()
        }
    }
}

/// All attempts on a group of their own, looking at what is kept after each.
async fn play(groups: &Groups, name: u32, attempts: &[Attempt]) -> Result<(), TestCaseError> {
    let new = NewGroup {
        name: name.to_string(),
        ..NewGroup::default()
    };
    let group = groups.create(&caller(1), new).await.expect("made").id;
    let mut model = Model::new();
    for attempt in attempts {
        let may = expect(&mut model, attempt);
        prop_assert_eq!(make(groups, group, attempt).await, may, "{:?}", attempt);
        let here = PolicyFilter {
            object: Some(group),
            ..PolicyFilter::default()
        };
        let kept = groups.policies(&caller(9), &here, Page::default()).await;
        let kept = kept.expect("read").items.into_iter();
        let kept: Model = kept
            .map(|it| {
                (
                    it.subject.as_bytes()[0],
                    (it.owner.as_bytes()[0], it.actions),
                )
            })
            .collect();
        prop_assert_eq!(&kept, &model, "{:?}", attempt);
    }
    Ok(())
}

fn hold_to_the_rules<S>(runtime: &Runtime, store: S, cases: u32)
where
    S: GroupStore<GroupId> + PolicyStore<GroupId> + 'static,
{
    let store = Arc::new(store);
    let groups = Groups::new(Arc::clone(&store) as _, store, Arc::new(Everybody));
    let name = Cell::new(0);
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let attempts = prop::collection::vec(attempt(), 1..60);
    let played = TestRunner::new(config).run(&attempts, |attempts| {
        name.set(name.get() + 1);
        runtime.block_on(play(&groups, name.get(), &attempts))
    });
    played.unwrap_or_else(|error| panic!("{error}"));
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

#[test]
fn policies_in_memory_are_as_the_rules_have_it() {
    let store = memory::Groups::<GroupId>::new(Events::default());
    hold_to_the_rules(&runtime(), store, 64);
}

#[test]
fn policies_in_a_file_are_as_the_rules_have_it() {
    let runtime = runtime();
    let store = runtime.block_on(crate::stores::sqlite());
    hold_to_the_rules(&runtime, store.database.clone(), 16);
}

#[test]
fn policies_in_postgresql_are_as_the_rules_have_it() {
    let runtime = runtime();
    let store = runtime.block_on(crate::stores::postgres());
    hold_to_the_rules(&runtime, store.database.clone(), 16);
}
