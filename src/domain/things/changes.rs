//! Making things, and changing them.

use uuid::Uuid;

use crate::access::Revoked;
use crate::caller::Caller;
use crate::entity::{Metadata, Status, Update, check_metadata, check_name, check_tags};
use crate::identity::{Secret, ThingId, Timestamp, UserId};
use crate::policies::Action;
use crate::refusal::Refusal;
use crate::vault::KeptKey;

use super::{Created, KEY_LENGTHS, NewThing, Thing, ThingChange, Things, check_batch, events};

impl Things {
    /// Makes things, all or none. They are the caller's; an administrator may name another owner.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]; [`Refusal::Taken`] if a given id or key is another thing's; [`Refusal::Denied`].
    pub async fn create(
        &self,
        caller: &Caller,
        new: Vec<NewThing>,
    ) -> Result<Vec<Created>, Refusal> {
        check_batch("things", new.len())?;
        let created = new.into_iter().map(|new| checked(caller, new));
        let created: Vec<Created> = created.collect::<Result<_, _>>()?;
        let events = created
            .iter()
            .map(|it| events::thing("thing.create", &it.thing))
            .collect();
        let rows: Vec<(Thing, KeptKey)> = created
            .iter()
            .map(|it| (it.thing.clone(), self.keys.keep(it.thing.id, &it.key)))
            .collect();
        self.stores.things.add_things(&rows, events).await?;
        Ok(created)
    }

    /// Gives a thing another name, other metadata, or both.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::Invalid`].
    pub async fn update(
        &self,
        caller: &Caller,
        id: ThingId,
        name: Option<String>,
        metadata: Option<Metadata>,
    ) -> Result<Thing, Refusal> {
        name.iter().try_for_each(|name| check_name("name", name))?;
        metadata.iter().try_for_each(check_metadata)?;
        let change = ThingChange::About { name, metadata };
        self.change(caller, id, "thing.update", change).await
    }

    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::Invalid`].
    pub async fn update_tags(
        &self,
        caller: &Caller,
        id: ThingId,
        tags: Vec<String>,
    ) -> Result<Thing, Refusal> {
        check_tags(&tags)?;
        let change = ThingChange::Tags(tags);
        self.change(caller, id, "thing.update_tags", change).await
    }

    /// Gives a thing to another user. Its sessions go on: it may do what it could.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn update_owner(
        &self,
        caller: &Caller,
        id: ThingId,
        owner: UserId,
    ) -> Result<Thing, Refusal> {
        let change = ThingChange::Owner(owner);
        self.change(caller, id, "thing.update_owner", change).await
    }

    /// Gives a thing another key: `key`, or a generated one. Its sessions end.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`], [`Refusal::Invalid`], [`Refusal::Taken`].
    pub async fn update_key(
        &self,
        caller: &Caller,
        id: ThingId,
        key: Option<Secret>,
    ) -> Result<Created, Refusal> {
        let key = checked_key(key)?;
        let change = ThingChange::Key(self.keys.keep(id, &key));
        let thing = self
            .change(caller, id, "thing.update_secret", change)
            .await?;
        self.revocations.revoked(&[Revoked::Key(id)]);
        Ok(Created { thing, key })
    }

    /// Enables or disables a thing. The sessions of a disabled thing end.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`]; [`Refusal::Already`] in that state.
    pub async fn set_status(
        &self,
        caller: &Caller,
        id: ThingId,
        status: Status,
    ) -> Result<Thing, Refusal> {
        self.thing_for(caller, id, Action::ClientDelete).await?;
        let (change, update) = (ThingChange::Status(status), Update::now(caller.user));
        let tell = |thing: &Thing| events::thing_removed(thing);
        let changed = self
            .stores
            .things
            .change_thing(id, &change, update, &tell)
            .await?;
        let thing = changed.ok_or(Refusal::Already(match status {
            Status::Enabled => "the thing is already enabled",
            Status::Disabled => "the thing is already disabled",
        }))?;
        if status == Status::Disabled {
            self.revocations.revoked(&[Revoked::Thing(id)]);
        }
        Ok(thing)
    }

    async fn change(
        &self,
        caller: &Caller,
        id: ThingId,
        operation: &'static str,
        change: ThingChange,
    ) -> Result<Thing, Refusal> {
        self.thing_for(caller, id, Action::ClientUpdate).await?;
        let tell = |thing: &Thing| events::thing(operation, thing);
        let update = Update::now(caller.user);
        let changed = self
            .stores
            .things
            .change_thing(id, &change, update, &tell)
            .await?;
        changed.ok_or(Refusal::NotFound("thing"))
    }
}

fn checked(caller: &Caller, new: NewThing) -> Result<Created, Refusal> {
    let owner = new.owner.unwrap_or(caller.user);
    if owner != caller.user && !caller.admin {
        return Err(Refusal::Denied);
    }
    check_name("name", &new.name)?;
    check_name("credentials.identity", &new.identity)?;
    check_tags(&new.tags)?;
    check_metadata(&new.metadata)?;
    let key = checked_key(new.key)?;
    let thing = Thing {
        id: new.id.unwrap_or_else(ThingId::generate),
        owner,
        name: new.name,
        tags: new.tags,
        identity: new.identity,
        metadata: new.metadata,
        status: new.status,
        created_at: Timestamp::now(),
        update: None,
    };
    Ok(Created { thing, key })
}

/// Generated keys have the form of those of the platform, whose bootstrap service keeps 36 signs of a key.
fn checked_key(key: Option<Secret>) -> Result<Secret, Refusal> {
    let Some(key) = key else {
        return Ok(Secret::new(Uuid::new_v4().to_string()));
    };
    let text = key.expose();
    if !KEY_LENGTHS.contains(&text.len()) || text.contains(char::is_control) {
        let reason = "a key has 8 to 1024 bytes and no control characters";
        return Err(Refusal::invalid("credentials.secret", reason));
    }
    Ok(key)
}
