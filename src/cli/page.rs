//! Which part of a list is shown.

use clap::Args;
use rollcall_grpc::{api, users_api};

#[derive(Args)]
pub(super) struct Page {
    #[arg(long, default_value_t = 0)]
    pub(super) offset: u64,
    #[arg(long, default_value_t = 100)]
    pub(super) limit: u64,
}

impl Page {
    /// Of who is online.
    pub(super) const fn of_roll(&self) -> api::Page {
        api::Page {
            offset: self.offset,
            limit: self.limit,
        }
    }

    /// Of what a service has.
    pub(super) fn message(&self) -> anyhow::Result<Option<users_api::Page>> {
        // To the server, none is the usual one.
        anyhow::ensure!(self.limit > 0, "limit: at least 1");
        Ok(Some(users_api::Page {
            offset: self.offset,
            limit: self.limit,
        }))
    }
}
