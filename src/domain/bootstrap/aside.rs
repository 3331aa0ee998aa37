//! Entries of the things stream that made no sense when they were heard: what they were, and what becomes of them. They
//! are other people's, so only administrators see them.

use crate::caller::Caller;
use crate::event::{Field, Fields};
use crate::identity::Timestamp;
use crate::listing::{Listing, Page};
use crate::refusal::Refusal;

use super::model::{Asker, Effect, Heard};
use super::news::{News, occurred, understand};
use super::{Bootstrap, Told};

/// So many entries are kept aside; later ones push out the oldest.
pub const MAX_SET_ASIDE: usize = 1_000;
/// Bytes of the fields of one. Of a larger one only the reason is kept.
const MAX_ENTRY: usize = 16 * 1024;
/// Entries of one look.
const MAX_LOOK: u64 = 100;

/// An entry that was kept aside.
#[derive(Clone, Debug, PartialEq)]
pub struct SetAside {
    /// Where it comes from, and its id there.
    pub source: String,
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
    pub fields: Fields,
    /// When it was set aside.
    pub at: Timestamp,
}

impl Bootstrap {
    /// What was set aside, in the order that it was.
    ///
    /// # Errors
    /// [`Refusal::Denied`] to all but administrators; [`Refusal::Invalid`] for a page that is too large.
    pub async fn set_aside(
        &self,
        caller: &Caller,
        page: Page,
    ) -> Result<Listing<SetAside>, Refusal> {
        for_admins(caller)?;
        if page.limit > MAX_LOOK {
            return Err(Refusal::invalid("limit", "at most 100"));
        }
        if i64::try_from(page.offset).is_err() {
            return Err(Refusal::invalid("offset", "less than 2^63"));
        }
        Ok(self.store.set_aside(page).await?)
    }

    /// Hears an entry again: a later version may understand it. What is younger than the entry stays. If it makes
    /// sense it is no longer set aside.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`]; [`Refusal::Invalid`] if it still makes no sense.
    pub async fn retry(
        &self,
        asker: &Asker,
        source: Option<&str>,
        id: &str,
    ) -> Result<Told, Refusal> {
        for_admins(&asker.caller)?;
        let entry = self.one_set_aside(source, id).await?;
        let news = match understand(&entry.fields) {
            Ok(None) => None,
            Ok(Some(news)) => {
                let at = occurred(&entry.fields);
                Some((news, at.map_err(senseless)?))
            }
            Err(reason) => return Err(senseless(reason)),
        };
        let (told, effect) = match news {
            None => (Told::NoNews, Effect::Nothing),
            Some((News::OwnerChanged(thing, _), _)) => {
                // It may have had others since.
                let owner = self.things.thing(asker, thing).await?.owner;
                self.move_to(thing, owner).await?;
                (Told::News, Effect::Nothing)
            }
            Some((news, at)) => (Told::News, self.effect(news, at).await?),
        };
        self.take_up(entry, effect).await?;
        Ok(told)
    }

    /// Forgets an entry.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Denied`].
    pub async fn drop_set_aside(
        &self,
        caller: &Caller,
        source: Option<&str>,
        id: &str,
    ) -> Result<(), Refusal> {
        for_admins(caller)?;
        let entry = self.one_set_aside(source, id).await?;
        self.take_up(entry, Effect::Nothing).await
    }

    async fn one_set_aside(&self, source: Option<&str>, id: &str) -> Result<SetAside, Refusal> {
        let mut found = self.store.set_aside_as(id).await?;
        found.retain(|it| source.is_none_or(|source| it.source == source));
        let entry = found.pop();
        match found.is_empty() {
            true => entry.ok_or(Refusal::NotFound("entry that was set aside")),
            false => Err(Refusal::invalid(
                "source",
                "several have an entry of that id",
            )),
        }
    }

    async fn take_up(&self, entry: SetAside, effect: Effect) -> Result<(), Refusal> {
        let heard = Heard {
            source: entry.source,
            after: None,
            id: entry.id,
            effect,
        };
        match self.store.take_up(&heard).await? {
            true => Ok(()),
            // Somebody was faster.
            false => Err(Refusal::NotFound("entry that was set aside")),
        }
    }
}

/// What is kept of an entry that makes no sense, for `reason`.
pub(super) fn aside(reason: &str, fields: &[Field]) -> Effect {
    let bytes: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    match bytes <= MAX_ENTRY {
        true => Effect::SetAside {
            reason: reason.to_owned(),
            fields: fields.to_vec(),
        },
        false => Effect::SetAside {
            reason: format!("{reason}; its {bytes} bytes are too many to be kept"),
            fields: Vec::new(),
        },
    }
}

fn for_admins(caller: &Caller) -> Result<(), Refusal> {
    match caller.admin {
        true => Ok(()),
        false => Err(Refusal::Denied),
    }
}

fn senseless(reason: String) -> Refusal {
    Refusal::invalid("id", format!("the entry makes no sense: {reason}"))
}
