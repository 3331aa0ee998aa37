//! Random attempts to give and take, against the rules put once more.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What a caller tries with the policy of a subject on the one group there is, which is the first user's.
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The rules once more, as plain as they can be put: subject to who made the policy, and what it allows.
    #[test]
    fn policies_are_as_the_rules_have_it(attempts in prop::collection::vec(attempt(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let house = house();
            let group = house.group(1, "hall").await;
            let mut model: HashMap<u8, (u8, Actions)> = HashMap::new();
            for attempt in attempts {
                let holds = |by: u8, wanted: Actions| {
                    let held = model.get(&by).map_or(Actions::default(), |(_, held)| *held);
                    by == 1 || held.implied().includes_all(wanted)
                };
                let theirs = |by: u8, of: u8| {
                    by == 1 || model.get(&of).is_some_and(|(maker, _)| *maker == by)
                };
                let groups = &house.groups;
                match attempt {
                    Attempt::Add(by, of, bits) => {
                        let wanted = Actions::from_bits(bits);
                        let may = !wanted.is_empty()
                            && holds(by, wanted.with(Action::GroupAdd))
                            && (!model.contains_key(&of) || theirs(by, of));
                        let added = groups.add_policy(caller(by), user(of), group, wanted).await;
                        prop_assert_eq!(added.is_ok(), may);
                        if may {
                            model.entry(of).or_insert((by, wanted)).1 = wanted;
                        }
                    }
                    Attempt::Change(by, of, bits) => {
                        let wanted = Actions::from_bits(bits);
                        let may = !wanted.is_empty()
                            && model.contains_key(&of)
                            && theirs(by, of)
                            && holds(by, wanted);
                        let changed = groups.change_policy(caller(by), user(of), group, wanted);
                        prop_assert_eq!(changed.await.is_ok(), may);
                        if let (true, Some(policy)) = (may, model.get_mut(&of)) {
                            policy.1 = wanted;
                        }
                    }
                    Attempt::Remove(by, of) => {
                        let may = !model.contains_key(&of) || theirs(by, of);
                        let removed = groups.remove_policy(caller(by), user(of), group).await;
                        prop_assert_eq!(removed.is_ok(), may);
                        if may {
                            model.remove(&of);
                        }
                    }
                }
                let every = PolicyFilter::default();
                let kept = groups.policies(caller(9), &every, Page::default()).await;
                let kept = kept.expect("read").items;
                let kept: HashMap<_, _> = kept
                    .into_iter()
                    .map(|it| (it.subject.as_bytes()[0], (it.owner.as_bytes()[0], it.actions)))
                    .collect();
                prop_assert_eq!(&kept, &model);
            }
            Ok(())
        })?;
    }
}
