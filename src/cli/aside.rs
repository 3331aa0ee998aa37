//! `rollcall configs set-aside`: events of things that bootstrap did not understand.

use clap::{Args, Subcommand};
use rollcall_domain::identity::Timestamp;
use rollcall_grpc::bootstrap_api as api;
use rollcall_grpc::client::Client;
use serde_json::{Map, Value, json};

use super::output::Output;

#[derive(Subcommand)]
pub(super) enum SetAside {
    /// List them in the order they were set aside
    List {
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// At most 100
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Hear one again, as after an update of rollcall
    Retry(One),
    /// Forget one
    Drop(One),
}

#[derive(Args)]
pub(super) struct One {
    /// Id of the entry
    id: String,
    /// Where it comes from, if several have an entry of that id
    #[arg(long)]
    source: Option<String>,
}

impl SetAside {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let aside = client.set_aside();
        match self {
            Self::List { offset, limit } => {
                let request = api::ListSetAsideRequest { offset, limit };
                let listing = aside.list_set_aside(request).await?;
                let entries: Vec<Value> = listing.entries.iter().map(value).collect();
                let value = json!({ "total": listing.total, "entries": entries });
                let rows: Vec<_> = listing.entries.iter().map(row).collect();
                output.table(&value, ["ID", "SOURCE", "SINCE", "REASON", "EVENT"], &rows)?;
            }
            Self::Retry(One { id, source }) => {
                let request = api::RetrySetAsideRequest { source, id };
                let news = aside.retry_set_aside(request).await?.news;
                let text = match news {
                    true => "it was heard",
                    false => "it was no news",
                };
                output.say(&json!({ "news": news }), text)?;
            }
            Self::Drop(One { id, source }) => {
                let request = api::DropSetAsideRequest { source, id };
                aside.drop_set_aside(request).await?;
                output.say(&json!({}), "done")?;
            }
        }
        Ok(())
    }
}

/// What is shown of an event in a table, in characters.
const MOST: usize = 120;

/// Whoever has written the event may have written anything: a terminal is to see signs.
fn row(entry: &api::SetAsideEntry) -> [String; 5] {
    let fields = entry.fields.iter();
    let fields: Vec<String> = fields
        .map(|it| format!("{}={}", it.name, it.value))
        .collect();
    let mut event: String = fields.join(" ").escape_debug().take(MOST + 1).collect();
    if let Some((cut, _)) = event.char_indices().nth(MOST) {
        event.truncate(cut);
        event.push('…');
    }
    [
        entry.id.clone(),
        entry.source.clone(),
        Timestamp(entry.at).rfc3339(),
        entry.reason.clone(),
        event,
    ]
}

fn value(entry: &api::SetAsideEntry) -> Value {
    let fields = entry.fields.iter();
    let fields: Map<String, Value> = fields
        .map(|it| (it.name.clone(), it.value.clone().into()))
        .collect();
    json!({
        "id": entry.id,
        "source": entry.source,
        "at": Timestamp(entry.at).rfc3339(),
        "reason": entry.reason,
        "fields": fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_others_is_shown_in_signs_and_not_at_any_length() {
        let field = |name: &str, value: String| api::Field {
            name: name.to_owned(),
            value,
        };
        let entry = api::SetAsideEntry {
            fields: vec![
                field("operation", "\u{1b}[2J".to_owned()),
                field("name", "é".repeat(200)),
            ],
            ..api::SetAsideEntry::default()
        };
        let [.., event] = row(&entry);
        assert!(event.starts_with("operation=\\u{1b}[2J name=é"), "{event}");
        assert_eq!(event.chars().count(), MOST + 1);
        assert_eq!(value(&entry)["fields"]["operation"], "\u{1b}[2J");
    }
}
