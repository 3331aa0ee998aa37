//! Topics: what may be said, what may be asked for, and which channel they belong to.

use crate::identity::ChannelId;

/// The topic name of a PUBLISH: not empty, no wildcard, no NUL [MQTT5-4.7.1-1], [MQTT5-4.7.3-1], [MQTT5-4.7.3-2].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let wild = text.bytes().any(|b| matches!(b, b'+' | b'#' | 0));
        (!text.is_empty() && text.len() <= 65_535 && !wild).then_some(Self(text))
    }

    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The channel whose messages this topic carries, if it follows the grammar of channels.
    #[must_use]
    pub fn channel(self) -> Option<ChannelId> {
        channel(self.0)
    }
}

/// The topic filter of a SUBSCRIBE: `+` fills a whole level, `#` the last ones [MQTT5-4.7.1-1], [MQTT5-4.7.1-2].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
            return None;
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let valid = match level {
                "+" => true,
                "#" => levels.peek().is_none(),
                name => !name.contains(['+', '#']),
            };
            if !valid {
                return None;
            }
        }
        Some(Self(text))
    }

    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The one channel this filter looks into, if it follows the grammar of channels. A filter that
    /// could reach several channels (`channels/+/messages`, `#`) has none.
    #[must_use]
    pub fn channel(self) -> Option<ChannelId> {
        channel(self.0)
    }

    /// Whether a message on `topic` is for this filter. Wildcards at the first level do not reach
    /// topics that begin with `$` [MQTT5-4.7.2-1].
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        if topic.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.0.split('/');
        for level in self.0.split('/') {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

/// What a SUBSCRIBE names: topics, for itself or shared out among all who name the same: `$share/{name}/{topics}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionFilter<'a> {
    text: &'a str,
    /// The name that the members of a group have in common.
    share: Option<&'a str>,
    topics: TopicFilter<'a>,
}

impl<'a> SubscriptionFilter<'a> {
    /// A name has at least one character and no `/`, `+` or `#`; a filter follows it [MQTT5-4.8.2-1], [MQTT5-4.8.2-2].
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (share, topics) = match text.strip_prefix("$share/") {
            None => (None, text),
            Some(rest) => {
                let (name, topics) = rest.split_once('/')?;
                if name.is_empty() || name.contains(['+', '#']) {
                    return None;
                }
                (Some(name), topics)
            }
        };
        let topics = TopicFilter::parse(topics)?;
        Some(Self {
            text,
            share,
            topics,
        })
    }

    /// As it was sent.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.text
    }

    #[must_use]
    pub const fn share(self) -> Option<&'a str> {
        self.share
    }

    #[must_use]
    pub const fn topics(self) -> TopicFilter<'a> {
        self.topics
    }
}

/// `^/?channels/([\w-]+)/messages(/[^?]*)?(\?.*)?$`, the grammar that all clients of the platform use.
/// A channel id that is no UUID names no channel that exists, so it is refused like any other stranger.
fn channel(topic: &str) -> Option<ChannelId> {
    let rest = topic.strip_prefix('/').unwrap_or(topic);
    let rest = rest.strip_prefix("channels/")?;
    let (id, rest) = rest.split_once('/')?;
    let rest = rest.strip_prefix("messages")?;
    let query = match rest.split_once('?') {
        Some((_, query)) => query,
        None => "",
    };
    if !rest.is_empty() && !rest.starts_with(['/', '?']) || query.contains('\n') {
        return None;
    }
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_filters_follow_the_standard() {
        for (text, name, filter) in [
            ("a", true, true),
            ("/", true, true),
            ("a//b", true, true),
            ("sport/tennis/player1", true, true),
            ("+", false, true),
            ("#", false, true),
            ("a/+/b", false, true),
            ("a/#", false, true),
            ("a/#/b", false, false),
            ("a#", false, false),
            ("a+/b", false, false),
            ("a\0b", false, false),
            ("", false, false),
        ] {
            assert_eq!(TopicName::parse(text).is_some(), name, "name {text:?}");
            assert_eq!(
                TopicFilter::parse(text).is_some(),
                filter,
                "filter {text:?}"
            );
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "anything/at/all", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
        ] {
            let (filter, topic) = (TopicFilter::parse(filter), TopicName::parse(topic));
            let (filter, topic) = (filter.expect("filter"), topic.expect("topic"));
            assert_eq!(filter.matches(topic), expected, "{filter:?} {topic:?}");
        }
    }

    #[test]
    fn a_group_has_a_name_and_topics() {
        for (text, found) in [
            ("a/b", Some((None, "a/b"))),
            ("$share/g/a/+/#", Some((Some("g"), "a/+/#"))),
            ("$share/g//", Some((Some("g"), "/"))),
            ("$share", Some((None, "$share"))),
            ("$sharex/g/a", Some((None, "$sharex/g/a"))),
            ("$share/", None),
            ("$share/g", None),
            ("$share/g/", None),
            ("$share//a", None),
            ("$share/+/a", None),
            ("$share/g#/a", None),
            ("$share/g/a#", None),
        ] {
            let parsed = SubscriptionFilter::parse(text);
            let parsed = parsed.map(|it| (it.share(), it.topics().as_str()));
            assert_eq!(parsed, found, "{text:?}");
        }
    }

    #[test]
    fn a_channel_is_found_where_the_grammar_has_it() {
        let id = "76a58221-e319-492a-be3e-b3d15631e92a";
        for (topic, found) in [
            (format!("channels/{id}/messages"), true),
            (format!("/channels/{id}/messages"), true),
            (format!("channels/{id}/messages/"), true),
            (format!("channels/{id}/messages/#"), true),
            (format!("channels/{id}/messages/+/x"), true),
            (format!("channels/{id}/messages?a=b"), true),
            (format!("channels/{id}/messages/a?b?c"), true),
            (format!("channels/{id}/messages/a?b\n"), false),
            (format!("channels/{id}/messagesx"), false),
            (format!("channels/{id}/message"), false),
            (format!("channels/{id}"), false),
            (format!("//channels/{id}/messages"), false),
            (format!("channels/{}/messages", id.to_uppercase()), false),
            (format!("x/channels/{id}/messages"), false),
            ("channels/+/messages".into(), false),
            ("channels/lamp/messages".into(), false),
            ("#".into(), false),
        ] {
            assert_eq!(channel(&topic).is_some(), found, "{topic}");
        }
    }
}
