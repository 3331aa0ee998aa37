//! Users are made, looked at, changed, shut out and let in again.

use crate::caller::Caller;
use crate::entity::{self, Metadata, Status, Update};
use crate::event::Event;
use crate::identity::{Secret, Timestamp, UserId};
use crate::listing::{Listing, Page, Visibility};
use crate::policies::Action;
use crate::refusal::Refusal;

use super::live::Whose;
use super::model::{Change, NewUser, Scope, User, UserFilter};
use super::{Registration, Users, events};

impl Users {
    /// Makes a user. Whoever has a token owns the one he makes; administrators may name another owner, and are the
    /// only ones to make administrators.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::Taken`] for an identity that somebody has; [`Refusal::Unauthenticated`] or
    /// [`Refusal::Denied`] for what takes a token, or an administrator's.
    pub async fn create(&self, caller: Option<&Caller>, new: NewUser) -> Result<User, Refusal> {
        let admin = caller.is_some_and(|caller| caller.admin);
        let foreign = new.owner.is_some() && new.owner != caller.map(|caller| caller.user);
        let privileged = new.admin || foreign || self.settings.registration == Registration::Admin;
        match caller {
            Some(_) if privileged && !admin => return Err(Refusal::Denied),
            None if privileged => return Err(Refusal::Unauthenticated),
            _ => {}
        }
        entity::check_name("name", &new.name)?;
        entity::check_tags(&new.tags)?;
        entity::check_metadata(&new.metadata)?;
        check_identity(&new.identity)?;
        self.settings.password_rule.check("secret", &new.secret)?;
        if let (true, Some(owner)) = (foreign, new.owner) {
            self.check_owner(owner).await?;
        }
        let user = User {
            id: UserId::generate(),
            name: new.name,
            tags: new.tags,
            owner: new.owner.or(caller.map(|caller| caller.user)),
            identity: new.identity,
            metadata: new.metadata,
            status: new.status,
            admin: new.admin,
            created_at: Timestamp::now(),
            update: None,
        };
        let hash = self.hashing.hash(&new.secret).await?;
        let created = vec![events::created(&user)];
        self.store.add_user(&user, &hash, created).await?;
        Ok(user)
    }

    /// The first administrator; made with `identity` and `password` if there is none yet. Returns whether that
    /// was so.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::Taken`].
    pub async fn ensure_admin(
        &self,
        identity: &str,
        password: &Secret,
    ) -> Result<(UserId, bool), Refusal> {
        if let Some(admin) = self.store.admin().await? {
            return Ok((admin.id, false));
        }
        check_identity(identity)?;
        self.settings.password_rule.check("password", password)?;
        let mut metadata = Metadata::new();
        metadata.insert("role".into(), "admin".into());
        let user = User {
            id: UserId::generate(),
            name: "admin".into(),
            tags: Vec::new(),
            owner: None,
            identity: identity.into(),
            metadata,
            status: Status::Enabled,
            admin: true,
            created_at: Timestamp::now(),
            update: None,
        };
        let hash = self.hashing.hash(password).await?;
        let created = vec![events::created(&user)];
        self.store.add_user(&user, &hash, created).await?;
        Ok((user.id, true))
    }

    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn view(&self, caller: &Caller, id: UserId) -> Result<User, Refusal> {
        let user = self.reach(caller, id, Action::ClientList).await?;
        let viewed = events::viewed("user.view", &user);
        self.store.record(vec![viewed]).await;
        Ok(user)
    }

    /// The caller's own.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn view_profile(&self, caller: &Caller) -> Result<User, Refusal> {
        let user = self.myself(caller).await?;
        let viewed = events::viewed("user.view_profile", &user);
        self.store.record(vec![viewed]).await;
        Ok(user)
    }

    /// Users in the order they were made. Administrators see everybody unless they want to see less.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &UserFilter,
        page: Page,
    ) -> Result<Listing<User>, Refusal> {
        let page = page.check()?;
        filter.check()?;
        let scope = match caller.admin && filter.visibility == Visibility::All {
            true => Scope::Everybody,
            false => Scope::Of(caller.user, filter.visibility),
        };
        let listing = self.store.users(scope, filter, page).await?;
        let listed = events::listed(filter, page, listing.total);
        self.store.record(vec![listed]).await;
        Ok(listing)
    }

    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn update(
        &self,
        caller: &Caller,
        id: UserId,
        name: Option<String>,
        metadata: Option<Metadata>,
    ) -> Result<User, Refusal> {
        if let Some(name) = &name {
            entity::check_name("name", name)?;
        }
        if let Some(metadata) = &metadata {
            entity::check_metadata(metadata)?;
        }
        self.reach(caller, id, Action::ClientUpdate).await?;
        let change = Change::Details { name, metadata };
        self.change(caller, id, change, "user.update").await
    }

    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn update_tags(
        &self,
        caller: &Caller,
        id: UserId,
        tags: Vec<String>,
    ) -> Result<User, Refusal> {
        entity::check_tags(&tags)?;
        self.reach(caller, id, Action::ClientUpdate).await?;
        let change = Change::Tags(tags);
        self.change(caller, id, change, "user.update_tags").await
    }

    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::Taken`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn update_identity(
        &self,
        caller: &Caller,
        id: UserId,
        identity: String,
    ) -> Result<User, Refusal> {
        check_identity(&identity)?;
        self.reach(caller, id, Action::ClientUpdate).await?;
        let change = Change::Identity(identity);
        self.change(caller, id, change, "user.update_identity")
            .await
    }

    /// # Errors
    /// [`Refusal::Invalid`] for an owner that there is not, [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn update_owner(
        &self,
        caller: &Caller,
        id: UserId,
        owner: UserId,
    ) -> Result<User, Refusal> {
        self.reach(caller, id, Action::ClientUpdate).await?;
        self.check_owner(owner).await?;
        let change = Change::Owner(owner);
        self.change(caller, id, change, "user.update_owner").await
    }

    /// Gives the caller another password. All logins end, this one too.
    ///
    /// # Errors
    /// [`Refusal::WrongCredentials`] if `old` is not the password, [`Refusal::Invalid`], [`Refusal::Busy`].
    pub async fn update_secret(
        &self,
        caller: &Caller,
        old: &Secret,
        new: &Secret,
    ) -> Result<User, Refusal> {
        self.settings.password_rule.check("new_secret", new)?;
        let id = caller.user;
        let name = id.to_string();
        let attempt = self.guesses.attempt(&name)?;
        let hash = self.store.password(id).await?;
        let hash = hash.ok_or(Refusal::Unauthenticated)?;
        if !self.hashing.verify(old, &hash).await? {
            return Err(Refusal::WrongCredentials);
        }
        attempt.right();
        let change = Change::Password {
            hash: self.hashing.hash(new).await?,
            instead_of: hash,
        };
        let _ending = self.live.ending(Whose::User(id));
        let updated = |user: &User| events::updated("user.update_secret", user);
        let changed = self
            .store
            .change_user(id, &change, Update::now(id), &updated);
        // Somebody was quicker.
        changed.await?.ok_or(Refusal::WrongCredentials)
    }

    /// Shuts a user out, at once, or lets it in again.
    ///
    /// # Errors
    /// [`Refusal::Already`], [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn set_status(
        &self,
        caller: &Caller,
        id: UserId,
        status: Status,
    ) -> Result<User, Refusal> {
        self.reach(caller, id, Action::ClientDelete).await?;
        let _ending = self.live.ending(Whose::User(id));
        let (change, update) = (Change::Status(status), Update::now(caller.user));
        let changed = self
            .store
            .change_user(id, &change, update, &events::removed);
        changed.await?.ok_or(Refusal::Already(match status {
            Status::Enabled => "the user is already enabled",
            Status::Disabled => "the user is already disabled",
        }))
    }

    async fn change(
        &self,
        caller: &Caller,
        id: UserId,
        change: Change,
        operation: &'static str,
    ) -> Result<User, Refusal> {
        let updated = |user: &User| -> Event { events::updated(operation, user) };
        let update = Update::now(caller.user);
        let changed = self
            .store
            .change_user(id, &change, update, &updated)
            .await?;
        changed.ok_or(Refusal::NotFound("user"))
    }

    pub(super) async fn myself(&self, caller: &Caller) -> Result<User, Refusal> {
        let found = self.store.user(caller.user).await?;
        found.ok_or(Refusal::Unauthenticated)
    }

    async fn check_owner(&self, owner: UserId) -> Result<(), Refusal> {
        match self.store.user(owner).await? {
            Some(_) => Ok(()),
            None => Err(Refusal::invalid("owner", "no such user")),
        }
    }
}

fn check_identity(identity: &str) -> Result<(), Refusal> {
    entity::check_name("identity", identity)?;
    if identity.is_empty() || identity.contains(char::is_whitespace) {
        return Err(Refusal::invalid("identity", "not empty, no spaces"));
    }
    Ok(())
}
