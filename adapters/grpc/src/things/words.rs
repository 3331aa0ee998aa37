//! Things and policies in the words of `rollcall.things.v1`.

use rollcall_domain::identity::Secret;
use rollcall_domain::things::{NewChannel, NewThing, Policy, Thing, ThingFilter};
use tonic::Status;

use crate::things_api as api;
use crate::words::{chosen, given, json, metadata, updated};

pub(super) fn key(text: String) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}

pub(super) fn filter(asked: api::ThingFilter) -> Result<ThingFilter, Status> {
    Ok(ThingFilter {
        status: chosen("status", &asked.status)?,
        name: asked.name,
        tag: asked.tag,
        owner: given("owner", asked.owner.as_deref().unwrap_or_default())?,
        metadata: metadata(&asked.metadata)?,
    })
}

pub(super) fn new_thing(new: api::NewThing) -> Result<NewThing, Status> {
    Ok(NewThing {
        id: given("id", &new.id)?,
        owner: given("owner", &new.owner)?,
        name: new.name,
        tags: new.tags,
        identity: new.identity,
        metadata: metadata(&new.metadata)?,
        status: chosen("status", &new.status)?,
        key: key(new.key),
    })
}

pub(super) fn new_channel(new: api::NewChannel) -> Result<NewChannel, Status> {
    Ok(NewChannel {
        id: given("id", &new.id)?,
        owner: given("owner", &new.owner)?,
        parent: given("parent", &new.parent)?,
        name: new.name,
        description: new.description,
        metadata: metadata(&new.metadata)?,
        status: chosen("status", &new.status)?,
    })
}

pub(super) fn thing(thing: Thing) -> api::Thing {
    shown(thing, None)
}

pub(super) fn shown(thing: Thing, key: Option<&Secret>) -> api::Thing {
    let (updated_at, updated_by) = updated(thing.update);
    api::Thing {
        id: thing.id.to_string(),
        owner: thing.owner.to_string(),
        name: thing.name,
        tags: thing.tags,
        identity: thing.identity,
        metadata: json(thing.metadata),
        status: thing.status.as_str().to_owned(),
        created_at: thing.created_at.0,
        updated_at,
        updated_by,
        key: key.map(|key| key.expose().to_owned()),
    }
}

pub(super) fn policy(policy: &Policy) -> api::Policy {
    let (updated_at, updated_by) = updated(policy.update);
    let actions = policy.actions.names().into_iter();
    api::Policy {
        subject: policy.subject.to_string(),
        object: policy.object.to_string(),
        actions: actions.map(ToOwned::to_owned).collect(),
        external: policy.subject.is_user(),
        owner: policy.owner.to_string(),
        created_at: policy.created_at.0,
        updated_at,
        updated_by,
    }
}
