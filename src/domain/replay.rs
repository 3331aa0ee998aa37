//! The state of users, things and bootstrap as their streams tell it, whoever wrote them.
//!
//! Everything stays text, as streams carry it: so what events say can be held against what a database has, written
//! in the same way, and nothing is lost by reading it.

mod bootstrap;
pub mod difference;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Stream;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    User,
    Group,
    UserPolicy,
    Thing,
    Channel,
    ThingPolicy,
    Config,
    /// What bootstrap remembers of a channel that configurations have.
    ChannelCopy,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Group,
        Self::UserPolicy,
        Self::Thing,
        Self::Channel,
        Self::ThingPolicy,
        Self::Config,
        Self::ChannelCopy,
    ];

    /// Many of them.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Group => "groups",
            Self::UserPolicy => "user-policies",
            Self::Thing => "things",
            Self::Channel => "channels",
            Self::ThingPolicy => "thing-policies",
            Self::Config => "configs",
            Self::ChannelCopy => "channel-copies",
        }
    }

    /// The stream that tells of them.
    #[must_use]
    pub const fn stream(self) -> Stream {
        match self {
            Self::User | Self::Group | Self::UserPolicy => Stream::Users,
            Self::Thing | Self::Channel | Self::ThingPolicy => Stream::Things,
            Self::Config | Self::ChannelCopy => Stream::Bootstrap,
        }
    }

    /// What events tell of one, named as they name it. Passwords, keys and roles are in no event.
    #[must_use]
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::User | Self::Thing => &[
                "name",
                "tags",
                "owner",
                "identity",
                "metadata",
                "status",
                "created_at",
                "updated_at",
                "updated_by",
            ],
            Self::Group | Self::Channel => &[
                "name",
                "description",
                "owner",
                "parent",
                "metadata",
                "status",
                "created_at",
                "updated_at",
                "updated_by",
            ],
            Self::UserPolicy | Self::ThingPolicy => &[
                "owner_id",
                "actions",
                "created_at",
                "updated_at",
                "updated_by",
            ],
            Self::Config => &[
                "owner",
                "external_id",
                "name",
                "content",
                "channels",
                "state",
                "client_cert",
                "client_key",
                "ca_cert",
            ],
            Self::ChannelCopy => &["name", "metadata"],
        }
    }
}

/// What is known of one: a column that is not here is not known, one that is empty has no value.
pub type Row = BTreeMap<&'static str, String>;

/// Everything, by kind and id. The id of a policy is subject and object, with a space between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    rows: BTreeMap<Kind, BTreeMap<String, Row>>,
}

impl State {
    pub fn insert(&mut self, kind: Kind, id: String, row: Row) {
        self.rows.entry(kind).or_default().insert(id, row);
    }

    /// All of a kind, in the order of their ids.
    pub fn rows(&self, kind: Kind) -> impl Iterator<Item = (&str, &Row)> {
        let rows = self.rows.get(&kind).into_iter().flatten();
        rows.map(|(id, row)| (id.as_str(), row))
    }

    #[must_use]
    pub fn get(&self, kind: Kind, id: &str) -> Option<&Row> {
        self.rows.get(&kind)?.get(id)
    }

    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.rows.get(&kind).map_or(0, BTreeMap::len)
    }

    fn of(&mut self, kind: Kind) -> &mut BTreeMap<String, Row> {
        self.rows.entry(kind).or_default()
    }
}

/// The id of a policy.
#[must_use]
pub fn pair(subject: &str, object: &str) -> String {
    format!("{subject} {object}")
}

/// The channels of a configuration, whatever their order.
#[must_use]
pub fn channels<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: BTreeSet<&str> = ids.into_iter().collect();
    ids.into_iter().collect::<Vec<_>>().join(", ")
}

/// An entry that does not fit to those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub stream: Stream,
    pub id: String,
    pub what: String,
}

/// Misfits that are named; later ones are counted.
const NAMED: usize = 100;

/// Streams on their way to a state.
#[derive(Default)]
pub struct Replay {
    state: State,
    /// Streams that have lost their beginning: what they tell of may have been made before it.
    partial: Vec<Stream>,
    entries: BTreeMap<&'static str, u64>,
    /// The latest `occurred_at`.
    at: BTreeMap<&'static str, u64>,
    /// Entries that are not later than one before them.
    late: u64,
    misfits: Vec<Misfit>,
    misfit_count: u64,
    /// How many configurations have a channel.
    uses: BTreeMap<String, u64>,
    /// Operations that mean nothing here, and how often they were met.
    unknown: BTreeMap<String, u64>,
}

/// The fields of an event.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    /// The value of a column; what no event is without, if it has none.
    fn column(&self, name: &str) -> String {
        match (name, self.get(name)) {
            ("metadata", None | Some("")) => "{}",
            // Mainflux writes this where there was no update.
            ("updated_at", Some("0001-01-01T00:00:00Z")) => "",
            (_, value) => value.unwrap_or_default(),
        }
        .to_owned()
    }

    fn id(&self, name: &str) -> Result<String, String> {
        let id = self.get(name).filter(|id| !id.is_empty());
        id.map(str::to_owned)
            .ok_or_else(|| format!("there is no {name}"))
    }
}

impl Replay {
    #[must_use]
    pub fn new(partial: Vec<Stream>) -> Self {
        Self {
            partial,
            ..Self::default()
        }
    }

    /// Adds the next entry of a stream; `id` names it in what is said about it.
    pub fn entry<'a>(
        &mut self,
        stream: Stream,
        id: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let name = stream.as_str();
        *self.entries.entry(name).or_insert(0) += 1;
        let fields = Fields(fields.collect());
        if let Some(at) = fields
            .get("occurred_at")
            .and_then(|at| at.parse::<u64>().ok())
        {
            let latest = self.at.entry(name).or_insert(0);
            self.late += u64::from(at <= *latest);
            *latest = at.max(*latest);
        }
        let operation = fields.get("operation").unwrap_or_default();
        let done = match stream {
            Stream::Users | Stream::Things => self.apply(stream, operation, &fields),
            Stream::Bootstrap => self.bootstrap(operation, &fields),
            // Presence is no state of these services.
            Stream::Mqtt => Ok(true),
        };
        match done {
            Ok(true) => {}
            Ok(false) => {
                let name = format!("{name} {operation}");
                *self.unknown.entry(name).or_insert(0) += 1;
            }
            Err(what) => {
                self.misfit_count += 1;
                if self.misfits.len() < NAMED {
                    let what = format!("{operation}: {what}");
                    let id = id.to_owned();
                    self.misfits.push(Misfit { stream, id, what });
                }
            }
        }
    }

    /// Users, groups, things, channels and policies change alike. False if the operation is not known.
    fn apply(
        &mut self,
        stream: Stream,
        operation: &str,
        fields: &Fields<'_>,
    ) -> Result<bool, String> {
        let Some((subject, verb)) = operation.split_once('.') else {
            return Err("there is no such operation".to_owned());
        };
        let kind = match (stream, subject) {
            (Stream::Users, "user") => Kind::User,
            (Stream::Users, "group") => Kind::Group,
            (Stream::Users, "policies") => Kind::UserPolicy,
            (Stream::Things, "thing") => Kind::Thing,
            (Stream::Things, "channel") => Kind::Channel,
            (Stream::Things, "policies") => Kind::ThingPolicy,
            _ => return Ok(false),
        };
        match (kind, verb) {
            (Kind::UserPolicy | Kind::ThingPolicy, "add") => self.add_policy(kind, fields)?,
            (Kind::UserPolicy | Kind::ThingPolicy, "update") => self.update_policy(kind, fields)?,
            (Kind::UserPolicy | Kind::ThingPolicy, "delete") => {
                let id = pair(&fields.id("subject")?, &fields.id("object")?);
                self.state.of(kind).remove(&id);
            }
            (_, "create") => self.create(kind, fields.id("id")?, fields)?,
            // Of Mainflux it has no fields.
            (Kind::User, "reset_secret") if fields.get("id").is_none() => {}
            (
                _,
                "update" | "update_tags" | "update_identity" | "update_secret" | "update_owner"
                | "reset_secret",
            ) => self.update(kind, operation, fields)?,
            (_, "remove") => {
                let columns = ["status", "updated_at", "updated_by"];
                let row = self.known(kind, &fields.id("id")?)?;
                row.extend(columns.map(|column| (column, fields.column(column))));
            }
            (
                _,
                "view"
                | "view_profile"
                | "list"
                | "list_by_group"
                | "list_by_user"
                | "list_by_channel"
                | "list_by_thing"
                | "identify"
                | "authorize"
                | "issue_token"
                | "refresh_token"
                | "generate_reset_token"
                | "send_password_reset",
            ) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn create(&mut self, kind: Kind, id: String, fields: &Fields<'_>) -> Result<(), String> {
        let columns = kind.columns().iter();
        let row: Row = columns
            .map(|column| (*column, fields.column(column)))
            .collect();
        match self.state.of(kind).insert(id.clone(), row) {
            None => Ok(()),
            Some(_) => Err(format!("{id} is made twice")),
        }
    }

    /// All but the owner, who changes when there is one in the event.
    fn update(&mut self, kind: Kind, operation: &str, fields: &Fields<'_>) -> Result<(), String> {
        let id = fields.id("id")?;
        let row = self.known(kind, &id)?;
        for column in kind.columns() {
            if *column != "owner" || fields.get("owner").is_some() {
                row.insert(column, fields.column(column));
            } else if operation == "user.update_owner" {
                // Mainflux keeps the new one to itself.
                row.remove("owner");
            }
        }
        Ok(())
    }

    fn add_policy(&mut self, kind: Kind, fields: &Fields<'_>) -> Result<(), String> {
        let id = pair(&fields.id("subject")?, &fields.id("object")?);
        let mut row: Row = kind
            .columns()
            .iter()
            .map(|column| (*column, fields.column(column)))
            .collect();
        // The users service of Mainflux says nothing of these.
        if fields.get("created_at").is_none() {
            row.retain(|column, _| *column == "actions");
        }
        self.state.of(kind).insert(id, row);
        Ok(())
    }

    /// Who changed it is in no event.
    fn update_policy(&mut self, kind: Kind, fields: &Fields<'_>) -> Result<(), String> {
        let id = pair(&fields.id("subject")?, &fields.id("object")?);
        let row = self.known(kind, &id)?;
        row.remove("updated_by");
        for column in ["owner_id", "actions", "created_at"] {
            if let Some(value) = fields.get(column) {
                row.insert(column, value.to_owned());
            }
        }
        match fields.get("updated_at") {
            Some(value) => row.insert("updated_at", value.to_owned()),
            None => row.remove("updated_at"),
        };
        Ok(())
    }

    /// One that was made before. In a stream that has lost its beginning, nothing more may be known of it.
    fn known(&mut self, kind: Kind, id: &str) -> Result<&mut Row, String> {
        let partial = self.is_partial(kind.stream());
        let rows = self.state.of(kind);
        if !partial && !rows.contains_key(id) {
            return Err(format!("{id} was never made"));
        }
        Ok(rows.entry(id.to_owned()).or_default())
    }

    fn is_partial(&self, stream: Stream) -> bool {
        self.partial.contains(&stream)
    }

    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    #[must_use]
    pub fn partial(&self) -> &[Stream] {
        &self.partial
    }

    /// How many entries of a stream there were.
    #[must_use]
    pub fn entries(&self, stream: Stream) -> u64 {
        self.entries.get(stream.as_str()).copied().unwrap_or(0)
    }

    /// How many entries are not later than one before them in their stream.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// The first misfits.
    #[must_use]
    pub fn misfits(&self) -> &[Misfit] {
        &self.misfits
    }

    #[must_use]
    pub const fn misfit_count(&self) -> u64 {
        self.misfit_count
    }

    /// Operations that mean nothing here, with their streams, and how often they were met.
    pub fn unknown(&self) -> impl Iterator<Item = (&str, u64)> {
        self.unknown.iter().map(|(name, count)| (&**name, *count))
    }
}
