//! Policies: what a subject may do on an object. Subjects are users or things, objects groups or channels.

use std::fmt;

/// What a policy may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    GroupAdd,
    GroupDelete,
    GroupUpdate,
    GroupList,
    ClientDelete,
    ClientUpdate,
    ClientList,
    ClientShare,
    MessageWrite,
    MessageRead,
}

impl Action {
    pub const ALL: [Self; 10] = [
        Self::GroupAdd,
        Self::GroupDelete,
        Self::GroupUpdate,
        Self::GroupList,
        Self::ClientDelete,
        Self::ClientUpdate,
        Self::ClientList,
        Self::ClientShare,
        Self::MessageWrite,
        Self::MessageRead,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GroupAdd => "g_add",
            Self::GroupDelete => "g_delete",
            Self::GroupUpdate => "g_update",
            Self::GroupList => "g_list",
            Self::ClientDelete => "c_delete",
            Self::ClientUpdate => "c_update",
            Self::ClientList => "c_list",
            Self::ClientShare => "c_share",
            Self::MessageWrite => "m_write",
            Self::MessageRead => "m_read",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Any of these allows it: who may do something to the members of a group may see them, and the group; who
    /// may do something to a group may see it.
    #[must_use]
    pub const fn allowed_by(self) -> Actions {
        match self {
            Self::GroupList => Actions(Actions::ON_GROUPS.0 | Actions::ON_CLIENTS.0),
            Self::ClientList => Actions::ON_CLIENTS,
            _ => Actions(self.bit()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown action: choose from g_add, g_delete, g_update, g_list, c_delete, c_update, c_list, c_share, m_write, m_read"
)]
pub struct UnknownAction;

impl std::str::FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or(UnknownAction)
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(u16);

impl Actions {
    const ON_GROUPS: Self = Self(
        Action::GroupAdd.bit()
            | Action::GroupDelete.bit()
            | Action::GroupUpdate.bit()
            | Action::GroupList.bit(),
    );
    const ON_CLIENTS: Self = Self(
        Action::ClientDelete.bit()
            | Action::ClientUpdate.bit()
            | Action::ClientList.bit()
            | Action::ClientShare.bit(),
    );

    /// As storage keeps them: one bit each, in the order of [`Action::ALL`].
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Bits that are no action are dropped.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & ((1 << Action::ALL.len()) - 1))
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn includes(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    #[must_use]
    pub const fn includes_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether one of them allows `action`: itself, or one that implies it.
    #[must_use]
    pub const fn allow(self, action: Action) -> bool {
        self.0 & action.allowed_by().0 != 0
    }

    /// With all that they imply. Policies are kept and announced as they were asked for; this is what they mean.
    #[must_use]
    pub fn implied(self) -> Self {
        Action::ALL
            .into_iter()
            .filter(|action| self.allow(*action))
            .collect()
    }

    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | action.bit())
    }

    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL
            .into_iter()
            .filter(move |action| self.includes(*action))
    }

    /// The names, in the order of [`Action::ALL`].
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Action::as_str).collect()
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<T: IntoIterator<Item = Action>>(actions: T) -> Self {
        actions.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_actions_survives_storage() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
            let set = Actions::default().with(action).with(Action::MessageRead);
            assert_eq!(Actions::from_bits(set.bits()), set);
            assert!(set.includes(action));
            assert!(set.includes_all(Actions::default().with(action)));
        }
        let all: Actions = Action::ALL.into_iter().collect();
        assert_eq!(Actions::from_bits(u16::MAX), all);
        assert_eq!(all.names().len(), 10);
        assert!("m_fly".parse::<Action>().is_err());
    }

    #[test]
    fn who_may_change_may_see() {
        for (given, implied) in [
            ("g_add", "g_add g_list"),
            ("g_delete", "g_delete g_list"),
            ("g_update", "g_update g_list"),
            ("g_list", "g_list"),
            ("c_delete", "g_list c_delete c_list"),
            ("c_update", "g_list c_update c_list"),
            ("c_list", "g_list c_list"),
            ("c_share", "g_list c_list c_share"),
            ("m_write", "m_write"),
            ("m_read", "m_read"),
        ] {
            let action: Action = given.parse().expect("an action");
            let set = Actions::default().with(action);
            assert_eq!(set.implied().names().join(" "), implied, "{given}");
            assert_eq!(set.implied().implied(), set.implied());
        }
    }
}
