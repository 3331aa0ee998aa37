//! Calls of `rollcall.bootstrap.v1`.

use super::{Client, ClientError, MAX_MESSAGE};
use crate::bootstrap_api as api;
use crate::bootstrap_api::bootstrap_client::BootstrapClient;
use crate::bootstrap_api::set_aside_client::SetAsideClient;

impl Client {
    #[must_use]
    pub const fn configs(&self) -> Configs<'_> {
        Configs(self)
    }

    #[must_use]
    pub const fn set_aside(&self) -> SetAside<'_> {
        SetAside(self)
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

calls! {
    /// What was set aside, by `rollcall.bootstrap.v1.SetAside`.
    SetAside of SetAsideClient:
    list_set_aside(ListSetAsideRequest) -> ListSetAsideResponse;
    retry_set_aside(RetrySetAsideRequest) -> RetrySetAsideResponse;
    drop_set_aside(DropSetAsideRequest) -> DropSetAsideResponse;
}
