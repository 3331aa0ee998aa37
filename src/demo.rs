//! `rollcall up --demo`: something to try at once.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use rollcall_domain::things::{Actions, NewChannel, NewThing};
use rollcall_mqtt::Address;
use serde::{Deserialize, Serialize};

use crate::secrets::{self, Secrets};
use crate::server::Server;

/// A channel and two things that may use it.
#[derive(Serialize, Deserialize)]
struct Demo {
    channel: String,
    lamp: Member,
    sensor: Member,
}

#[derive(Serialize, Deserialize)]
struct Member {
    thing: String,
    key: String,
}

/// Makes the demo, or finds the one of an earlier start. Returns the lines to show; `data` is the data
/// folder of the server.
///
/// # Errors
/// The things cannot be made, or their keys not be kept.
pub(crate) async fn prepare(
    server: &Server,
    secrets: &Secrets,
    data: &Path,
) -> anyhow::Result<Vec<String>> {
    let demo = match secrets.demo()? {
        Some(content) => serde_json::from_slice(&content)
            .context("cannot read the demo: remove secrets/demo.json from the data folder")?,
        None => {
            let demo = make(server).await?;
            secrets.keep_demo(&serde_json::to_vec_pretty(&demo)?)?;
            demo
        }
    };
    let address = server
        .addresses
        .mqtt
        .iter()
        .find_map(|(name, addresses)| match addresses.first() {
            Some(Address::Tcp(address)) if &**name == "mqtt" => Some(*address),
            _ => None,
        })
        .context("the demo needs an address in mqtt.listen")?;
    let mut lines = lines(&demo, address);
    lines.push(format!(
        "{} --server {} --token-file '{}' events --follow",
        std::env::args().next().as_deref().unwrap_or("rollcall"),
        server.addresses.grpc,
        secrets::token_path(data).display(),
    ));
    lines.push(String::new());
    Ok(lines)
}

async fn make(server: &Server) -> anyhow::Result<Demo> {
    let new = |name: &str| NewThing {
        name: name.to_owned(),
        ..NewThing::default()
    };
    let parts = server.things.as_ref().zip(server.admin);
    let (things_service, admin) =
        parts.context("the demo needs users and things in one process")?;
    let created = things_service
        .create(admin, vec![new("demo lamp"), new("demo sensor")])
        .await?;
    let channel = NewChannel {
        name: "demo".to_owned(),
        ..NewChannel::default()
    };
    let channels = things_service.create_channels(admin, vec![channel]).await?;
    let things: Vec<ThingId> = created.iter().map(|created| created.thing.id).collect();
    let channels: Vec<ChannelId> = channels.iter().map(|channel| channel.id).collect();
    let actions = Actions {
        read: true,
        write: true,
    };
    things_service
        .connect(admin, &things, &channels, actions)
        .await?;
    let member = |n: usize| -> Member {
        let key: &Secret = &created[n].key;
        Member {
            thing: things[n].to_string(),
            key: key.expose().to_owned(),
        }
    };
    Ok(Demo {
        channel: channels[0].to_string(),
        lamp: member(0),
        sensor: member(1),
    })
}

fn lines(demo: &Demo, address: SocketAddr) -> Vec<String> {
    let host = if address.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        address.ip().to_string()
    };
    let port = address.port();
    let line = |program: &str, id: &str, member: &Member, topic: &str, more: &str| {
        format!(
            "{program} -h {host} -p {port} -i {id} -u {} -P {} -t 'channels/{}/messages/{topic}'{more}",
            member.thing, member.key, demo.channel
        )
    };
    vec![
        "Try it: listen in one terminal, publish in another, and watch who comes and goes in a third.".to_owned(),
        String::new(),
        line("mosquitto_sub", "lamp", &demo.lamp, "#", " -v"),
        line("mosquitto_pub", "sensor", &demo.sensor, "temperature", " -m 21.5"),
    ]
}
