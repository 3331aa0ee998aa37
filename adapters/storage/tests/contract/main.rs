//! What stores promise, on each of them: in memory, in a SQLite file, in a PostgreSQL.

mod attempts;
mod before;
mod bootstrap;
mod groups;
mod heard;
mod lists;
mod log;
mod metadata;
mod pages;
mod postgres;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
mod stores;
mod things;
mod users;

/// A test for each promise and each store. A suite is a module of functions that take a store, of which there are
/// two kinds or one; `memory` makes the store in memory.
macro_rules! held_to {
    ($suite:ident::{$($promise:ident),* $(,)?}, memory: $memory:ident) => {
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                crate::$suite::$promise(&super::$memory()).await;
            })*
        }
        held_to!($suite::{$($promise),*});
    };
    ($suite:ident::{$($promise:ident),* $(,)?}) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $promise() {
                let store = crate::stores::sqlite().await;
                crate::$suite::$promise(&store.database).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $promise() {
                let store = crate::stores::postgres().await;
                crate::$suite::$promise(&store.database).await;
            })*
        }
    };
    ($suite:ident::{$($promise:ident),* $(,)?}, for $a:ident and $b:ident, memory: $memory:ident) => {
        mod memory {
            use rollcall_domain::identity::{$a, $b};
            $(#[tokio::test]
            async fn $promise() {
                crate::$suite::$promise(&super::$memory::<$a>()).await;
                crate::$suite::$promise(&super::$memory::<$b>()).await;
            })*
        }
        mod sqlite {
            use rollcall_domain::identity::{$a, $b};
            $(#[tokio::test]
            async fn $promise() {
                let store = crate::stores::sqlite().await;
                crate::$suite::$promise::<$a>(&store.database).await;
                crate::$suite::$promise::<$b>(&store.database).await;
            })*
        }
        mod postgres {
            use rollcall_domain::identity::{$a, $b};
            $(#[tokio::test]
            async fn $promise() {
                let store = crate::stores::postgres().await;
                crate::$suite::$promise::<$a>(&store.database).await;
                crate::$suite::$promise::<$b>(&store.database).await;
            })*
        }
    };
}

mod of_groups {
    use rollcall_domain::groups::GroupKey;
    use rollcall_domain::memory::{Events, Groups};

    fn memory<I: GroupKey>() -> Groups<I> {
        Groups::new(Events::default())
    }

    held_to! {
        groups::{
            a_group_comes_back_as_it_was_kept,
            an_owner_has_a_name_once,
            an_id_is_one_groups,
            a_change_is_of_what_it_names,
            a_status_is_set_once,
            a_list_has_what_its_filter_says,
            a_list_has_what_contains_some_metadata,
            a_page_tells_of_the_whole_list,
            a_tree_has_what_is_above_or_below,
            a_policy_that_is_there_gets_other_actions_and_keeps_its_maker,
            a_policy_that_is_there_is_left_alone_where_others_are_added,
            a_policy_changes_and_goes_once,
            policies_are_found_by_what_they_say,
            a_standing_is_of_one_subject_to_one_group,
            reach_goes_through_an_enabled_group_that_both_are_in,
        },
        for GroupId and ChannelId, memory: memory
    }
}

mod of_logs {
    held_to! {
        log::{
            positions_have_no_gaps_and_time_goes_on_whoever_appends,
            what_is_recorded_keeps_its_order_with_changes,
            a_change_that_fails_says_nothing,
            marks_of_the_relay_are_remembered,
            a_new_producer_is_the_same_for_all,
            more_callers_than_can_wait_are_all_heard,
        }
    }
}

mod of_users {
    use std::sync::Arc;

    use rollcall_domain::memory::{Events, Groups, Users};

    fn memory() -> Users {
        let events = Events::default();
        Users::new(events.clone(), Arc::new(Groups::new(events)))
    }

    held_to! {
        users::{
            a_user_comes_back_as_it_was_kept,
            an_identity_is_one_users,
            a_change_is_of_what_it_names,
            a_status_is_set_once_and_a_password_instead_of_another,
            a_list_has_what_its_filter_says,
            a_list_has_who_the_one_who_asks_may_see,
            a_page_is_a_part_of_the_list,
            a_login_begins_with_the_password_of_an_enabled_user,
            a_refresh_token_is_good_once,
            logins_end_with_what_they_rest_on,
            a_user_has_so_many_logins_and_no_more,
            a_reset_is_due_until_its_mail_is_sent,
            a_reset_token_is_good_once_and_for_a_while,
        },
        memory: memory
    }
}

mod of_configurations {
    use crate::bootstrap::memory;

    held_to! {
        bootstrap::{
            a_configuration_comes_back_as_it_was_kept,
            a_thing_and_an_external_id_are_taken_once,
            a_change_is_of_what_it_names_and_of_one_revision,
            channels_are_shared_and_forgotten_when_nobody_has_them,
            a_list_has_what_its_filter_says,
            newer_copies_of_channels_are_announced_before_what_brings_them,
        },
        memory: memory
    }
}

mod of_entries_that_are_heard {
    use crate::bootstrap::memory;

    held_to! {
        heard::{
            an_entry_is_heard_once_and_in_turn,
            what_is_heard_changes_what_is_older,
            what_was_set_aside_is_listed_and_taken_up_once,
            what_comes_at_one_time_is_as_if_one_came_after_the_other,
            what_is_heard_is_announced_if_it_changes_something,
        },
        memory: memory
    }
}

mod of_things {
    use crate::things::memory;

    held_to! {
        things::{
            a_thing_comes_back_as_it_was_kept,
            ids_and_keys_are_one_things,
            a_key_is_lent_until_its_thing_is_anothers,
            a_change_is_of_what_it_names,
            a_list_has_what_its_filter_says,
            a_page_tells_of_the_whole_list,
            a_list_is_of_what_one_may_see,
            a_key_opens_what_its_thing_may,
            a_thing_is_of_the_channels_where_it_may_talk,
        },
        memory: memory
    }
}

mod of_metadata {
    use crate::things::memory;

    held_to! {
        metadata::{a_list_has_what_contains_some_metadata},
        memory: memory
    }
}
