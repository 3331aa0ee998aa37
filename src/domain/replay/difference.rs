//! Where streams and database do not say the same.

use std::fmt;

use super::{Kind, Replay, State};

/// One thing that streams and database say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    pub id: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// In the streams alone.
    NotInDatabase,
    /// In the database alone.
    NotInStreams,
    /// Another value of this column.
    Value {
        column: &'static str,
        streams: String,
        database: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.kind.as_str(), self.id)?;
        match &self.what {
            What::NotInDatabase => f.write_str("in the streams, not in the database"),
            What::NotInStreams => f.write_str("in the database, not in the streams"),
            What::Value {
                column,
                streams,
                database,
            } => write!(
                f,
                "{column} is {streams:?} in the streams, {database:?} in the database"
            ),
        }
    }
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    pub differences: Vec<Difference>,
    /// Of these kinds, how many the database has of which no event tells, since the stream has lost its beginning.
    pub untold: u64,
}

impl Replay {
    /// Compares what is known by the streams with what a database has. What one of them does not know is no difference.
    #[must_use]
    pub fn compare(&self, database: &State) -> Comparison {
        let mut comparison = Comparison::default();
        for kind in Kind::ALL {
            self.compare_kind(kind, database, &mut comparison);
        }
        comparison
    }

    fn compare_kind(&self, kind: Kind, database: &State, comparison: &mut Comparison) {
        let mut add = |id: &str, what| {
            let id = id.to_owned();
            let difference = Difference { kind, id, what };
            comparison.differences.push(difference);
        };
        for (id, row) in self.state().rows(kind) {
            let Some(kept) = database.get(kind, id) else {
                add(id, What::NotInDatabase);
                continue;
            };
            for (column, streams) in row {
                match kept.get(column) {
                    Some(value) if value != streams => {
                        let (streams, database) = (streams.clone(), value.clone());
                        let what = What::Value {
                            column,
                            streams,
                            database,
                        };
                        add(id, what);
                    }
                    _ => {}
                }
            }
        }
        for (id, _) in database.rows(kind) {
            if self.state().get(kind, id).is_some() {
                continue;
            }
            match self.is_partial(kind.stream()) {
                true => comparison.untold += 1,
                false => add(id, What::NotInStreams),
            }
        }
    }
}
