//! Calls of `rollcall.users.v1` about groups, and policies on them.

use super::{Client, ClientError, MAX_MESSAGE};
use crate::users_api as api;
use crate::users_api::groups_client::GroupsClient;
use crate::users_api::policies_client::PoliciesClient;

impl Client {
    #[must_use]
    pub const fn groups(&self) -> Groups<'_> {
        Groups(self)
    }

    #[must_use]
    pub const fn user_policies(&self) -> UserPolicies<'_> {
        UserPolicies(self)
    }
}

calls! {
    /// Groups of users, by `rollcall.users.v1.Groups`.
    Groups of GroupsClient:
    create_group(CreateGroupRequest) -> Group;
    view_group(ViewGroupRequest) -> Group;
    update_group(UpdateGroupRequest) -> Group;
    list_groups(ListGroupsRequest) -> ListGroupsResponse;
    list_group_parents(ListRelatedGroupsRequest) -> ListGroupsResponse;
    list_group_children(ListRelatedGroupsRequest) -> ListGroupsResponse;
    list_members(ListMembersRequest) -> ListMembersResponse;
    list_memberships(ListMembershipsRequest) -> ListGroupsResponse;
    enable_group(EnableGroupRequest) -> Group;
    disable_group(DisableGroupRequest) -> Group;
}

calls! {
    /// What users may do on groups, by `rollcall.users.v1.Policies`.
    UserPolicies of PoliciesClient:
    add_policy(AddPolicyRequest) -> Policy;
    update_policy(UpdatePolicyRequest) -> Policy;
    delete_policy(DeletePolicyRequest) -> DeletePolicyResponse;
    list_policies(ListPoliciesRequest) -> ListPoliciesResponse;
    authorize(AuthorizeRequest) -> AuthorizeResponse;
}
