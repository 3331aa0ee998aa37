//! Configurations, and what is remembered of their channels.

use super::{Fields, Kind, Replay, Row, channels};

/// The ids of a list, in brackets or not.
fn ids(list: &str) -> impl Iterator<Item = &str> {
    let list = list.strip_prefix('[').unwrap_or(list);
    let list = list.strip_suffix(']').unwrap_or(list);
    list.split(',').map(str::trim).filter(|id| !id.is_empty())
}

impl Replay {
    /// False if the operation is not known.
    pub(super) fn bootstrap(
        &mut self,
        operation: &str,
        fields: &Fields<'_>,
    ) -> Result<bool, String> {
        match operation {
            "config.create" => {
                let id = fields.id("thing_id")?;
                let made = self.create(Kind::Config, id.clone(), fields);
                let list = fields.get("channels").unwrap_or_default();
                let row = self.state.of(Kind::Config).entry(id.clone());
                row.and_modify(|row| drop(row.remove("channels")));
                self.set_channels(&id, list);
                made?;
            }
            "config.update" => {
                let row = self.known(Kind::Config, &fields.id("thing_id")?)?;
                let columns = ["name", "content", "state"];
                row.extend(columns.map(|column| (column, fields.column(column))));
                if let Some(owner) = fields.get("owner") {
                    row.insert("owner", owner.to_owned());
                }
            }
            "cert.update" => {
                let row = self.known(Kind::Config, &fields.id("thing_key")?)?;
                let columns = ["client_cert", "client_key", "ca_cert"];
                row.extend(columns.map(|column| (column, fields.column(column))));
            }
            "thing.state_change" | "thing.change_state" => {
                let row = self.known(Kind::Config, &fields.id("thing_id")?)?;
                row.insert("state", fields.column("state"));
            }
            "thing.update_connections" => {
                let id = fields.id("thing_id")?;
                self.known(Kind::Config, &id)?;
                self.set_channels(&id, fields.get("channels").unwrap_or_default());
            }
            "config.remove" => {
                self.remove_config(&fields.id("thing_id")?);
            }
            "config.remove_handler" | "channel.remove_handler" => self.handle_removal(fields),
            "channel.update_handler" => {
                let id = fields.id("channel_id")?;
                let columns = ["name", "metadata"];
                let row: Row = columns.map(|it| (it, fields.column(it))).into();
                // Others may have it too late: nobody has it any longer.
                if let Some(known) = self.state.of(Kind::ChannelCopy).get_mut(&id) {
                    *known = row;
                } else if self.is_partial(Kind::ChannelCopy.stream()) {
                    self.state.of(Kind::ChannelCopy).insert(id, row);
                }
            }
            "thing.disconnect" => {
                let row = self.known(Kind::Config, &fields.id("thing_id")?)?;
                row.insert("state", "0".to_owned());
            }
            "config.view" | "config.list" | "thing.bootstrap" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `config_id` is that of a configuration; with `channel_id`, one that lost this channel. Mainflux puts the
    /// channel into `config_id`, and leaves it empty when nothing happened.
    fn handle_removal(&mut self, fields: &Fields<'_>) {
        let config = fields.get("config_id").unwrap_or_default();
        let known = self.state.get(Kind::Config, config).is_some();
        match fields.get("channel_id") {
            Some(channel) if known => self.take_channel(config, channel),
            None if known => self.remove_config(config),
            channel => {
                let channel = channel.unwrap_or(config);
                let rows = self.state.rows(Kind::Config);
                let having = rows.filter(|(_, row)| has(row, channel));
                let having: Vec<String> = having.map(|(id, _)| id.to_owned()).collect();
                for config in having {
                    self.take_channel(&config, channel);
                }
            }
        }
    }

    fn take_channel(&mut self, config: &str, channel: &str) {
        let row = self.state.get(Kind::Config, config);
        let list = row.and_then(|row| row.get("channels")).cloned();
        let list = list.unwrap_or_default();
        self.set_channels(config, &channels(ids(&list).filter(|id| *id != channel)));
    }

    fn remove_config(&mut self, id: &str) {
        self.set_channels(id, "");
        self.state.of(Kind::Config).remove(id);
    }

    /// What is remembered of a channel goes with the last configuration that has it.
    fn set_channels(&mut self, config: &str, list: &str) {
        let Some(row) = self.state.of(Kind::Config).get_mut(config) else {
            return;
        };
        let list = channels(ids(list));
        let before = row.insert("channels", list.clone()).unwrap_or_default();
        for id in ids(&list) {
            *self.uses.entry(id.to_owned()).or_insert(0) += 1;
            // How it was then is not told.
            let copies = self.state.of(Kind::ChannelCopy);
            copies.entry(id.to_owned()).or_default();
        }
        // Configurations that were made before the stream begins may have it too.
        let partial = self.is_partial(Kind::Config.stream());
        for id in ids(&before) {
            let uses = self.uses.entry(id.to_owned()).or_insert(0);
            *uses = uses.saturating_sub(1);
            if *uses == 0 && !partial {
                self.uses.remove(id);
                self.state.of(Kind::ChannelCopy).remove(id);
            }
        }
    }
}

fn has(row: &Row, channel: &str) -> bool {
    let list = row.get("channels").map_or("", |list| list);
    ids(list).any(|id| id == channel)
}
