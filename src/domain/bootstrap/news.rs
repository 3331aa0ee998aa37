//! What the events of the things service change here. They are taken from the stream, so they may come late, and
//! after a loss of the stream once more: each is held against what is younger than it.

use std::time::UNIX_EPOCH;

use crate::entity::Metadata;
use crate::event::Field;
use crate::identity::{ChannelId, ThingId, Timestamp, UserId};
use crate::refusal::Refusal;

use super::aside::aside;
use super::model::{Change, ChannelCopy, Effect, Heard};
use super::{ATTEMPTS, Bootstrap, events};

/// An event of the things service that is news here.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    ThingDisabled(ThingId),
    ChannelDisabled(ChannelId),
    ChannelUpdated(ChannelCopy),
    Disconnected(ThingId, ChannelId),
    KeyChanged(ThingId),
    OwnerChanged(ThingId, UserId),
}

/// What an event of the things stream says; `None` if it is no news here. Services of the platform name some
/// operations and fields differently; all names are known.
///
/// # Errors
/// What is wrong with it.
pub fn understand(fields: &[Field]) -> Result<Option<News>, String> {
    let value = |name: &str| {
        let field = fields.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| &**value)
    };
    let operation = value("operation").ok_or("it has no operation")?;
    let thing = || parse::<ThingId>("id", value("id"));
    let news = match operation {
        "thing.remove" if value("status") == Some("disabled") => News::ThingDisabled(thing()?),
        "thing.update_secret" => News::KeyChanged(thing()?),
        "thing.update_owner" => match value("owner") {
            Some(owner) => News::OwnerChanged(thing()?, parse("owner", Some(owner))?),
            None => return Ok(None),
        },
        "channel.remove" if value("status") == Some("disabled") => {
            News::ChannelDisabled(parse("id", value("id"))?)
        }
        "channel.update" => News::ChannelUpdated(ChannelCopy {
            id: parse("id", value("id"))?,
            name: value("name").unwrap_or_default().to_owned(),
            metadata: metadata(value("metadata"))?,
            as_of: match value("updated_at") {
                Some(at) => moment(at)?,
                None => occurred_at(value("occurred_at"))?.to_the_microsecond(),
            },
        }),
        "policies.delete" | "policies.remove" | "policy.delete" | "policy.remove" => {
            let subject = value("subject").or(value("thing_id"));
            let object = value("object").or(value("channel_id")).or(value("chan_id"));
            News::Disconnected(parse("subject", subject)?, parse("object", object)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(news))
}

fn parse<T: std::str::FromStr>(name: &str, value: Option<&str>) -> Result<T, String> {
    let value = value.ok_or_else(|| format!("it has no {name}"))?;
    value.parse().map_err(|_| format!("its {name} is no id"))
}

fn metadata(text: Option<&str>) -> Result<Metadata, String> {
    match text {
        None | Some("" | "null") => Ok(Metadata::new()),
        Some(text) => {
            serde_json::from_str(text).map_err(|_| "its metadata is no JSON object".to_owned())
        }
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let at = humantime::parse_rfc3339(text).map_err(|_| "its updated_at is no moment")?;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Ok(Timestamp(nanoseconds).to_the_microsecond())
}

/// When it happened that is told.
pub(super) fn occurred(fields: &[Field]) -> Result<Timestamp, String> {
    let at = fields.iter().find(|(name, _)| name == "occurred_at");
    occurred_at(at.map(|(_, at)| &**at))
}

fn occurred_at(text: Option<&str>) -> Result<Timestamp, String> {
    let at = text.and_then(|at| at.parse().ok()).map(Timestamp);
    at.ok_or_else(|| "its occurred_at is no moment".to_owned())
}

impl Bootstrap {
    /// The entry of `source` up to which everything was heard.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn heard_last(&self, source: &str) -> Result<Option<String>, Refusal> {
        Ok(self.store.heard_last(source).await?)
    }

    /// Goes on behind `id` in `source`, if nothing was heard behind `after` meanwhile.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn hear_from(
        &self,
        source: &str,
        after: Option<&str>,
        id: &str,
    ) -> Result<(), Refusal> {
        let heard = Heard {
            source: source.to_owned(),
            after: after.map(str::to_owned),
            id: id.to_owned(),
            effect: Effect::Nothing,
        };
        self.store.hear(&heard).await?;
        Ok(())
    }

    /// Takes over what an entry of the things stream says, once: it moves the cursor of `source` from `after` to `id`
    /// in the same transaction. What cannot be understood is kept aside. `false` if somebody else has moved the
    /// cursor; nothing has happened then.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`]: to be tried again.
    pub async fn hear(
        &self,
        source: &str,
        after: Option<&str>,
        id: &str,
        fields: &[Field],
    ) -> Result<Told, Refusal> {
        let understood = understand(fields).and_then(|news| match news {
            Some(news) => Ok(Some((news, occurred(fields)?))),
            None => Ok(None),
        });
        let (told, effect) = match understood {
            Ok(None) => (Told::NoNews, Effect::Nothing),
            Ok(Some((news, at))) => (Told::News, self.effect(news, at).await?),
            Err(reason) => {
                let effect = aside(&reason, fields);
                (Told::SetAside(reason), effect)
            }
        };
        let heard = Heard {
            source: source.to_owned(),
            after: after.map(str::to_owned),
            id: id.to_owned(),
            effect,
        };
        match self.store.hear(&heard).await? {
            true => Ok(told),
            false => Ok(Told::ByOthers),
        }
    }

    /// What news do, in the transaction that moves the cursor. Keys and owners are changed at once: to do that again
    /// changes nothing.
    pub(super) async fn effect(&self, news: News, at: Timestamp) -> Result<Effect, Refusal> {
        Ok(match news {
            News::ThingDisabled(thing) => Effect::RemoveConfig { thing, at },
            News::ChannelDisabled(channel) => Effect::RemoveChannel { channel, at },
            News::ChannelUpdated(copy) => Effect::UpdateChannel(copy),
            News::Disconnected(thing, channel) => Effect::Deactivate { thing, channel, at },
            News::KeyChanged(thing) => {
                self.renew_key(thing).await?;
                Effect::Nothing
            }
            News::OwnerChanged(thing, owner) => {
                self.move_to(thing, owner).await?;
                Effect::Nothing
            }
        })
    }

    /// Forgets the key that a thing had, and keeps the one it has if that can be had.
    async fn renew_key(&self, thing: ThingId) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS {
            let Some(kept) = self.store.config(thing).await? else {
                return Ok(());
            };
            // Without an answer it is forgotten; who asks for it next asks the things service.
            let loan = self.safe.open_loan(&kept)?;
            let key = self.things.key_of(thing, loan.as_ref()).await;
            let key = key.ok().flatten();
            let key = key.map(|key| self.safe.keep_thing_key(thing, &key));
            let change = Change::ThingKey(key);
            let changed = self
                .store
                .change_config(thing, kept.revision, change, Vec::new());
            if changed.await? {
                return Ok(());
            }
        }
        Err(Refusal::Busy)
    }

    /// A configuration follows its thing to another owner, lest the earlier one goes on seeing its key.
    pub(super) async fn move_to(&self, thing: ThingId, owner: UserId) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS {
            let Some(kept) = self.store.config(thing).await? else {
                return Ok(());
            };
            if kept.owner == owner {
                return Ok(());
            }
            let revision = kept.revision;
            let config = self.safe.open_config(kept)?;
            let event = events::moved(&config, owner);
            if self
                .change(thing, revision, Change::Owner(owner), event)
                .await?
            {
                return Ok(());
            }
        }
        Err(Refusal::Busy)
    }
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    News,
    NoNews,
    /// It could not be understood, for this reason.
    SetAside(String),
    /// The cursor was not where it was thought to be.
    ByOthers,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12510af8-b6a7-410d-944c-9feded199d6d";
    const OTHER: &str = "8a85e2d5-e783-43ee-8bea-d6d0f8039e78";

    fn read(text: &str) -> Result<Option<News>, String> {
        let text = text.replace("ID", ID).replace("OTHER", OTHER);
        let fields: Vec<Field> = text
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned().into(), value.to_owned().into()))
            .collect();
        understand(&fields)
    }

    #[test]
    fn news_are_told_from_what_is_none_and_from_what_makes_no_sense() {
        let (thing, channel) = (ID.parse().expect("an id"), OTHER.parse().expect("an id"));
        let cut = Ok(Some(News::Disconnected(thing, channel)));
        for (text, expected) in [
            (
                "operation=thing.remove id=ID status=disabled",
                Ok(Some(News::ThingDisabled(thing))),
            ),
            ("operation=thing.remove id=ID status=enabled", Ok(None)),
            (
                "operation=channel.remove id=OTHER status=disabled",
                Ok(Some(News::ChannelDisabled(channel))),
            ),
            ("operation=channel.remove id=OTHER status=enabled", Ok(None)),
            (
                "operation=thing.update_secret id=ID",
                Ok(Some(News::KeyChanged(thing))),
            ),
            (
                "operation=thing.update_owner id=ID owner=OTHER",
                Ok(Some(News::OwnerChanged(
                    thing,
                    OTHER.parse().expect("an id"),
                ))),
            ),
            ("operation=thing.update_owner id=ID", Ok(None)),
            (
                "operation=policies.delete subject=ID object=OTHER",
                cut.clone(),
            ),
            ("operation=policy.delete thing_id=ID chan_id=OTHER", cut),
            ("operation=thing.view id=nonsense", Ok(None)),
            ("", Err("it has no operation".to_owned())),
            (
                "operation=thing.remove id=nonsense status=disabled",
                Err("its id is no id".to_owned()),
            ),
            (
                "operation=policies.delete subject=ID",
                Err("it has no object".to_owned()),
            ),
            (
                "operation=channel.update id=OTHER metadata=[] updated_at=2023-08-29T11:06:12Z",
                Err("its metadata is no JSON object".to_owned()),
            ),
            (
                "operation=channel.update id=OTHER updated_at=yesterday",
                Err("its updated_at is no moment".to_owned()),
            ),
            (
                "operation=channel.update id=OTHER",
                Err("its occurred_at is no moment".to_owned()),
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let updated = read(
            "operation=channel.update id=OTHER name=k metadata={\"a\":1} updated_at=2023-08-29T11:06:12.294444Z",
        );
        let Ok(Some(News::ChannelUpdated(copy))) = updated else {
            panic!("{updated:?}");
        };
        assert_eq!(copy.as_of.rfc3339(), "2023-08-29T11:06:12.294444Z");
        assert_eq!(copy.metadata["a"], 1);
    }
}
