//! Calls of `rollcall.bootstrap.v1`.

use super::{Client, ClientError, MAX_MESSAGE};
use crate::bootstrap_api as api;
use crate::bootstrap_api::bootstrap_client::BootstrapClient;

impl Client {
    #[must_use]
    pub const fn configs(&self) -> Configs<'_> {
        Configs(self)
    }
}

calls! {
    /// Configurations, by `rollcall.bootstrap.v1.Bootstrap`.
    Configs of BootstrapClient:
    add_config(AddConfigRequest) -> AddConfigResponse;
    view_config(ViewConfigRequest) -> Config;
    list_configs(ListConfigsRequest) -> ListConfigsResponse;
    update_config(UpdateConfigRequest) -> UpdateConfigResponse;
    update_certificates(UpdateCertificatesRequest) -> UpdateCertificatesResponse;
    update_connections(UpdateConnectionsRequest) -> UpdateConnectionsResponse;
    change_state(ChangeStateRequest) -> ChangeStateResponse;
    remove_config(RemoveConfigRequest) -> RemoveConfigResponse;
    fetch(FetchRequest) -> Provision;
    fetch_secure(FetchRequest) -> FetchSecureResponse;
}
