//! What the stream of a things service, this one or another, says was taken away.

use crate::access::Revoked;
use crate::event::Field;
use crate::identity::Timestamp;

use super::Actions;

/// Reads an event of the things stream. `None` if it takes nothing away, or cannot be understood.
///
/// Services of the platform name some operations and fields differently; all names are known here.
#[must_use]
pub fn heard(fields: &[Field]) -> Option<Revoked> {
    let value = |name: &str| {
        let field = fields.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| &**value)
    };
    let any = |names: &[&str]| names.iter().find_map(|name| value(name));
    let is_disabled = || value("status") == Some("disabled");
    let grant = |left| {
        Some(Revoked::Grant {
            thing: any(&["subject", "thing_id"])?.parse().ok()?,
            channel: any(&["object", "channel_id", "chan_id"])?.parse().ok()?,
            left,
        })
    };
    match value("operation")? {
        "thing.remove" if is_disabled() => value("id")?.parse().ok().map(Revoked::Thing),
        "thing.update_secret" => value("id")?.parse().ok().map(Revoked::Key),
        "channel.remove" if is_disabled() => value("id")?.parse().ok().map(Revoked::Channel),
        "policies.delete" | "policies.remove" | "policy.delete" | "policy.remove" => {
            grant(Actions::NONE)
        }
        // To add a policy that is there replaces it, so it may take away.
        "policies.add" | "policies.update" | "policy.add" | "policy.update" => {
            let left = actions(value("actions").unwrap_or_default());
            grant(left).filter(|_| left != Actions::ALL)
        }
        _ => None,
    }
}

/// When an event of any stream happened.
#[must_use]
pub fn occurred_at(fields: &[Field]) -> Option<Timestamp> {
    let (_, at) = fields.iter().find(|(name, _)| name == "occurred_at")?;
    at.parse().ok().map(Timestamp)
}

/// `[m_write,m_read]`, with or without brackets and spaces. What is no action of things is nothing to them.
fn actions(text: &str) -> Actions {
    let words = text.trim_matches(['[', ']']).split(',');
    words.filter_map(|word| word.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ChannelId, ThingId};

    const THING: &str = "12510af8-b6a7-410d-944c-9feded199d6d";
    const CHANNEL: &str = "8a85e2d5-e783-43ee-8bea-d6d0f8039e78";

    fn read(text: &str) -> Option<Revoked> {
        let text = text.replace("THING", THING).replace("CHANNEL", CHANNEL);
        let fields: Vec<Field> = text
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned().into(), value.to_owned().into()))
            .collect();
        heard(&fields)
    }

    #[test]
    fn what_takes_something_away_is_understood_under_every_name() {
        let thing: ThingId = THING.parse().expect("an id");
        let channel: ChannelId = CHANNEL.parse().expect("an id");
        let grant = |left| {
            Some(Revoked::Grant {
                thing,
                channel,
                left,
            })
        };
        let write = Actions {
            read: false,
            write: true,
        };
        let read_only = Actions {
            read: true,
            write: false,
        };
        for (text, revoked) in [
            (
                "operation=thing.remove id=THING status=disabled",
                Some(Revoked::Thing(thing)),
            ),
            ("operation=thing.remove id=THING status=enabled", None),
            (
                "operation=thing.update_secret id=THING status=enabled",
                Some(Revoked::Key(thing)),
            ),
            (
                "operation=channel.remove id=CHANNEL status=disabled",
                Some(Revoked::Channel(channel)),
            ),
            ("operation=channel.remove id=CHANNEL status=enabled", None),
            (
                "operation=policies.delete subject=THING object=CHANNEL actions=[m_write,m_read]",
                grant(Actions::NONE),
            ),
            (
                "operation=policies.delete subject=THING object=CHANNEL",
                grant(Actions::NONE),
            ),
            (
                "operation=policies.remove subject=THING object=CHANNEL",
                grant(Actions::NONE),
            ),
            (
                "operation=policy.remove subject=THING object=CHANNEL",
                grant(Actions::NONE),
            ),
            (
                "operation=policy.delete thing_id=THING chan_id=CHANNEL",
                grant(Actions::NONE),
            ),
            (
                "operation=policies.update subject=THING object=CHANNEL actions=[m_write]",
                grant(write),
            ),
            (
                "operation=policies.add subject=THING object=CHANNEL actions=[m_read]",
                grant(read_only),
            ),
            (
                "operation=policy.update subject=THING object=CHANNEL actions=m_read",
                grant(read_only),
            ),
            (
                "operation=policies.update subject=THING object=CHANNEL actions=[g_list]",
                grant(Actions::NONE),
            ),
            (
                "operation=policies.update subject=THING object=CHANNEL actions=[m_write,m_read]",
                None,
            ),
            (
                "operation=policies.add subject=THING object=CHANNEL actions=[m_read,m_write]",
                None,
            ),
            (
                "operation=policies.delete subject=nobody object=CHANNEL",
                None,
            ),
            ("operation=policies.delete subject=THING", None),
            ("operation=thing.remove status=disabled", None),
            ("operation=thing.view id=THING", None),
            ("operation=weather id=THING status=disabled", None),
            ("id=THING status=disabled", None),
            ("", None),
        ] {
            assert_eq!(read(text), revoked, "{text}");
        }
    }
}
