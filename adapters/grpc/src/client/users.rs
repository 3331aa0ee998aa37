//! Calls of `rollcall.users.v1` about users, their tokens and passwords.

use super::{Client, ClientError, MAX_MESSAGE};
use crate::users_api as api;
use crate::users_api::passwords_client::PasswordsClient;
use crate::users_api::users_client::UsersClient;

impl Client {
    #[must_use]
    pub const fn users(&self) -> Users<'_> {
        Users(self)
    }

    #[must_use]
    pub const fn passwords(&self) -> Passwords<'_> {
        Passwords(self)
    }
}

calls! {
    /// Users, by `rollcall.users.v1.Users`.
    Users of UsersClient:
    create_user(CreateUserRequest) -> User;
    view_user(ViewUserRequest) -> User;
    view_profile(ViewProfileRequest) -> User;
    list_users(ListUsersRequest) -> ListUsersResponse;
    update_user(UpdateUserRequest) -> User;
    update_user_tags(UpdateUserTagsRequest) -> User;
    update_user_identity(UpdateUserIdentityRequest) -> User;
    update_user_owner(UpdateUserOwnerRequest) -> User;
    update_secret(UpdateSecretRequest) -> User;
    enable_user(EnableUserRequest) -> User;
    disable_user(DisableUserRequest) -> User;
}

calls! {
    /// Ways in again for who has forgotten a password, by `rollcall.users.v1.Passwords`.
    Passwords of PasswordsClient:
    request_reset(RequestResetRequest) -> RequestResetResponse;
    reset(ResetRequest) -> ResetResponse;
}
