//! `rollcall up --demo`: something to try at once.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use rollcall_domain::caller::Caller;
use rollcall_domain::groups::Subject;
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use rollcall_domain::things::{DEFAULT_ACTIONS, NewChannel, NewThing};
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
    let (service, admin) = parts.context("the demo needs users and things in one process")?;
    let caller = Caller {
        user: admin,
        admin: true,
    };
    let created = service
        .create(&caller, vec![new("demo lamp"), new("demo sensor")])
        .await?;
    // Named so that it may be made once more, if what was kept of an earlier one is gone.
    let channel = NewChannel {
        name: format!("demo {}", &created[0].thing.id.to_string()[..8]),
        ..NewChannel::default()
    };
    let channels = service.create_channels(&caller, vec![channel]).await?;
    let things: Vec<ThingId> = created.iter().map(|created| created.thing.id).collect();
    let subjects: Vec<Subject> = things.iter().copied().map(Subject::Thing).collect();
    let channels: Vec<ChannelId> = channels.iter().map(|channel| channel.id).collect();
    let actions = DEFAULT_ACTIONS.into_iter().collect();
    service
        .connect(&caller, &subjects, &channels, actions)
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
