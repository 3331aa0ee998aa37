//! A place for an instance: its doors, its way to Redis, its network and disk, and who is there now.

use std::process::Command;
use std::sync::Mutex;

use tokio::runtime::Handle;

use crate::disk::Disk;
use crate::network::Network;
use crate::plan::LEASE;
use crate::proxy::Link;
use crate::world::World;

pub(crate) struct Slot {
    pub(crate) number: usize,
    tenant: Mutex<Tenant>,
    /// All names that instances had here.
    names: Mutex<Vec<String>>,
    /// Between clients and the instance.
    pub(crate) door: Link,
    /// Between the instance and Redis.
    pub(crate) line: Link,
    pub(crate) network: Option<Network>,
    database: String,
}

/// An instance, and what goes with it.
pub(crate) struct Tenant {
    pub(crate) world: World,
    pub(crate) name: String,
    pub(crate) disk: Option<Disk>,
}

/// What this machine cannot do.
#[derive(Default)]
pub(crate) struct Lacks(pub(crate) Vec<String>);

impl Slot {
    pub(crate) fn make(
        runtime: &Handle,
        number: usize,
        database: String,
        lacks: &mut Lacks,
    ) -> Self {
        // One is where the clients and Redis are, the others are elsewhere.
        let network = (number > 0).then(|| Network::make(number));
        let network = network.and_then(|made| {
            made.map_err(|error| lacks.0.push(format!("network namespaces: {error}")))
                .ok()
        });
        let here = network.as_ref().map_or([127, 0, 0, 1], |it| it.here);
        let name = format!("front-{number}");
        let mut slot = Self {
            number,
            tenant: Mutex::new(Tenant {
                world: World::prepared(&[]),
                name: name.clone(),
                disk: None,
            }),
            names: Mutex::new(vec![name.clone()]),
            door: Link::open(runtime, [127, 0, 0, 1]),
            line: Link::open(runtime, here),
            network,
            database,
        };
        let mut tenant = slot.prepare(name);
        match Disk::mount(&tenant.world.folder().join("data")) {
            Ok(disk) => tenant.disk = Some(disk),
            Err(error) if number == 0 => lacks.0.push(format!("a disk of its own: {error}")),
            Err(_) => {}
        }
        slot.tenant = Mutex::new(tenant);
        slot
    }

    /// An instance that has not started yet, and has nothing.
    fn prepare(&self, name: String) -> Tenant {
        let lease = format!("{}ms", LEASE.as_millis());
        let mut world = World::prepared(&[
            ("ROLLCALL_EVENTS__EXTENDED", "true"),
            ("ROLLCALL_INSTANCE", &name),
            ("ROLLCALL_LEASE__TTL", &lease),
            ("ROLLCALL_LOG__FILTER", "info"),
            ("ROLLCALL_STORAGE__URL", &self.database),
            ("ROLLCALL_STORAGE__CONNECT_TIMEOUT", "5s"),
            (
                "ROLLCALL_REDIS__URL",
                &format!("redis://{}", self.line.address()),
            ),
            ("ROLLCALL_REDIS__RETRY_MAX", "300ms"),
            ("ROLLCALL_REDIS__CONNECT_TIMEOUT", "1s"),
            ("ROLLCALL_REDIS__RESPONSE_TIMEOUT", "2s"),
            ("ROLLCALL_REDIS__DRAIN_TIMEOUT", "1s"),
            ("ROLLCALL_MQTT__PROXY_PROTOCOL", "true"),
            ("ROLLCALL_MQTT__PROXY_FROM", "127.0.0.0/8,10.200.0.0/16"),
            ("ROLLCALL_MQTT__CONNECT_TIMEOUT", "3s"),
            ("ROLLCALL_MQTT__DRAIN__DEADLINE", "2s"),
            ("ROLLCALL_MQTT__SYS__INTERVAL", "0s"),
        ]);
        for service in ["USERS", "THINGS", "BOOTSTRAP"] {
            world.set(&format!("ROLLCALL_HTTP__{service}"), "");
        }
        if let Some(network) = &self.network {
            world.run_by(&network.wrapper());
            let listen = format!("{}:0", std::net::Ipv4Addr::from(network.there));
            for part in ["MQTT", "GRPC", "HTTP"] {
                world.set(&format!("ROLLCALL_{part}__LISTEN"), &listen);
            }
        }
        Tenant {
            world,
            name,
            disk: None,
        }
    }

    /// Those who know the same things have the same secrets.
    pub(crate) fn share(from: &World, to: &World) {
        let data = to.folder().join("data");
        std::fs::create_dir_all(&data).expect("a folder");
        let mut copy = Command::new("cp");
        copy.arg("-r")
            .arg(from.folder().join("data/secrets"))
            .arg(data);
        assert!(copy.status().expect("cp").success());
    }

    /// An instance that has not started yet, with a folder of its own, but for what it shares with another.
    pub(crate) fn successor(&self, name: String, other: &Tenant) -> Tenant {
        let mut tenant = self.prepare(name);
        if other.disk.is_some() {
            tenant.disk = Disk::mount(&tenant.world.folder().join("data")).ok();
        }
        Self::share(&other.world, &tenant.world);
        tenant
    }

    pub(crate) fn names(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(|it| it.into_inner())
    }

    pub(crate) fn tenant(&self) -> std::sync::MutexGuard<'_, Tenant> {
        self.tenant.lock().unwrap_or_else(|it| it.into_inner())
    }

    /// Clients find nobody.
    pub(crate) fn shut(&self) {
        self.door.lead_to(None);
    }

    /// Clients find the instance that runs here.
    pub(crate) fn open(&self, tenant: &Tenant) {
        self.door.lead_to(Some(tenant.world.mqtt()));
    }
}
