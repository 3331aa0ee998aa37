//! `rollcall up --demo`: something to try at once.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use rollcall_domain::bootstrap::{Asker, Certificates, NewConfig, State};
use rollcall_domain::caller::Caller;
use rollcall_domain::groups::Subject;
use rollcall_domain::identity::{ChannelId, Secret, ThingId};
use rollcall_domain::things::{DEFAULT_ACTIONS, NewChannel, NewThing};
use rollcall_mqtt::Address;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::secrets::{self, Secrets};
use crate::server::Server;

/// A channel, two things that may use it, and a device that may and knows neither yet.
#[derive(Serialize, Deserialize)]
struct Demo {
    channel: String,
    lamp: Member,
    sensor: Member,
    /// `None` until it is added; earlier programs did not.
    device: Option<Device>,
}

#[derive(Serialize, Deserialize)]
struct Member {
    thing: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Device {
    external_id: String,
    external_key: String,
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
    let mut demo: Demo = match secrets.demo()? {
        Some(content) => serde_json::from_slice(&content)
            .context("cannot read the demo: remove secrets/demo.json from the data folder")?,
        None => {
            let demo = make(server).await?;
            secrets.keep_demo(&serde_json::to_vec_pretty(&demo)?)?;
            demo
        }
    };
    if demo.device.is_none() {
        let device = add_device(server, secrets, &demo.channel).await;
        let device = device.context(
            "cannot add a device to the demo: remove secrets/demo.json from the data folder",
        )?;
        demo.device = Some(device);
        secrets.keep_demo(&serde_json::to_vec_pretty(&demo)?)?;
    }
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
    let rest = server.addresses.rest.iter();
    let mut rest = rest.filter(|(key, _)| key == "http.bootstrap");
    if let (Some(device), Some((_, address))) = (&demo.device, rest.next()) {
        lines.push(
            "Be a device that knows its own id and key alone, and ask for all the rest.".to_owned(),
        );
        lines.push(String::new());
        lines.push(format!(
            "curl -H 'Authorization: Thing {}' http://{}:{}/things/bootstrap/{}",
            device.external_key,
            host(*address),
            address.port(),
            device.external_id,
        ));
        lines.push(String::new());
    }
    Ok(lines)
}

/// A device that may use the channel, with its own configuration.
async fn add_device(server: &Server, secrets: &Secrets, channel: &str) -> anyhow::Result<Device> {
    let parts = server.bootstrap.as_ref().zip(server.admin);
    let (service, admin) = parts.context("the demo needs users and bootstrap in one process")?;
    let asker = Asker {
        caller: Caller {
            user: admin,
            admin: true,
        },
        token: secrets.admin_token()?,
    };
    let (number, key) = (ThingId::generate().to_string(), Secret::generate());
    let external_id = format!("demo-{}", &number[..8]);
    let new = NewConfig {
        thing: None,
        external_id: external_id.clone(),
        external_key: key.clone(),
        name: "demo device".to_owned(),
        content: json!({ "publish_to": format!("channels/{channel}/messages/device") }).to_string(),
        certificates: Certificates::default(),
        channels: vec![channel.parse()?],
    };
    let thing = service.add(&asker, new).await?;
    service.change_state(&asker, thing, State::Active).await?;
    Ok(Device {
        external_id,
        external_key: key.expose().to_owned(),
    })
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
        device: None,
    })
}

/// Where to reach a listener from this machine.
fn host(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    }
}

fn lines(demo: &Demo, address: SocketAddr) -> Vec<String> {
    // mosquitto wants addresses as they are.
    let host = host(address);
    let host = host.trim_matches(['[', ']']);
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
