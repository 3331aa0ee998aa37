//! Calls of `rollcall.things.v1`.

use super::{Client, ClientError, MAX_MESSAGE};
use crate::things_api as api;
use crate::things_api::channels_client::ChannelsClient;
use crate::things_api::policies_client::PoliciesClient;
use crate::things_api::things_client::ThingsClient;

impl Client {
    #[must_use]
    pub const fn things(&self) -> Things<'_> {
        Things(self)
    }

    #[must_use]
    pub const fn channels(&self) -> Channels<'_> {
        Channels(self)
    }

    #[must_use]
    pub const fn thing_policies(&self) -> ThingPolicies<'_> {
        ThingPolicies(self)
    }
}

calls! {
    /// Things, by `rollcall.things.v1.Things`.
    Things of ThingsClient:
    create_things(CreateThingsRequest) -> CreateThingsResponse;
    view_thing(ViewThingRequest) -> Thing;
    list_things(ListThingsRequest) -> ListThingsResponse;
    list_things_by_channel(ListThingsByChannelRequest) -> ListThingsResponse;
    update_thing(UpdateThingRequest) -> Thing;
    update_thing_tags(UpdateThingTagsRequest) -> Thing;
    update_thing_key(UpdateThingKeyRequest) -> Thing;
    update_thing_owner(UpdateThingOwnerRequest) -> Thing;
    enable_thing(EnableThingRequest) -> Thing;
    disable_thing(DisableThingRequest) -> Thing;
    lend_thing_key(LendThingKeyRequest) -> LendThingKeyResponse;
    end_thing_key_loan(EndThingKeyLoanRequest) -> EndThingKeyLoanResponse;
    read_lent_thing_key(ReadLentThingKeyRequest) -> ReadLentThingKeyResponse;
    identify_thing(IdentifyThingRequest) -> IdentifyThingResponse;
}

calls! {
    /// Channels, by `rollcall.things.v1.Channels`.
    Channels of ChannelsClient:
    create_channels(CreateChannelsRequest) -> CreateChannelsResponse;
    view_channel(ViewChannelRequest) -> Channel;
    list_channels(ListChannelsRequest) -> ListChannelsResponse;
    list_channels_by_thing(ListChannelsByThingRequest) -> ListChannelsResponse;
    list_channel_parents(ListRelatedChannelsRequest) -> ListChannelsResponse;
    list_channel_children(ListRelatedChannelsRequest) -> ListChannelsResponse;
    update_channel(UpdateChannelRequest) -> Channel;
    enable_channel(EnableChannelRequest) -> Channel;
    disable_channel(DisableChannelRequest) -> Channel;
}

calls! {
    /// What things and users may do on channels, by `rollcall.things.v1.Policies`.
    ThingPolicies of PoliciesClient:
    connect(ConnectRequest) -> ConnectResponse;
    disconnect(DisconnectRequest) -> DisconnectResponse;
    update_policy(UpdatePolicyRequest) -> Policy;
    list_policies(ListPoliciesRequest) -> ListPoliciesResponse;
    authorize(AuthorizeRequest) -> AuthorizeResponse;
}
