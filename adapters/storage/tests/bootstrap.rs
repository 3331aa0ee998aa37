//! The contract of stores of configurations, on each of them.

#[path = "contract/bootstrap.rs"]
mod contract;

use rollcall_domain::memory::{Configs, Events};
use rollcall_storage::database::Database;

macro_rules! held_to {
    ($($promise:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $promise() {
            contract::$promise(&Configs::new(Events::default())).await;
            let folder = tempfile::tempdir().expect("a folder");
            let database = Database::open(&folder.path().join("rollcall.db")).await;
            contract::$promise(&database.expect("opens")).await;
        }
    )*};
}

held_to! {
    a_configuration_comes_back_as_it_was_kept,
    a_thing_and_an_external_id_are_taken_once,
    a_change_is_of_what_it_names_and_of_one_revision,
    channels_are_shared_and_forgotten_when_nobody_has_them,
    a_list_has_what_its_filter_says,
    an_entry_is_heard_once_and_in_turn,
    what_is_heard_changes_what_is_older,
}
