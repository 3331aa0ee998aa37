//! A connection to the Redis that has a key and may be written.
//!
//! All that belongs to one stream is in one slot, and whoever works with it has a connection of his own. So a
//! connection goes to one server, that which has the slot; when it has it no longer it says so, and the next connection
//! is to the right one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::address::{BadUrl, Kind, Place, Tls, Url};

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Client {
    place: Place,
    /// Who is asked first, next time: so nobody who is silent is asked again and again.
    turn: Arc<AtomicUsize>,
}

/// How long things may take.
#[derive(Clone, Copy)]
struct Times {
    connect: Duration,
    response: Option<Duration>,
}

impl Client {
    pub(crate) fn open(url: &Url) -> Result<Self, BadUrl> {
        let client = Self {
            place: Place::find(url)?,
            turn: Arc::default(),
        };
        let failed = |error: RedisError| BadUrl::new(url, error.to_string());
        client.check_files().map_err(failed)?;
        Ok(client)
    }

    /// Files that are not there, or are of another kind, are better heard of at the start.
    fn check_files(&self) -> Result<(), RedisError> {
        let place = &self.place;
        self.settings()?;
        if let Some(file) = &place.sentinel_password_file {
            password(file)?;
        }
        if let Some(tls) = &place.tls {
            redis::Client::build_with_tls(place.nodes[0].clone(), certificates(tls)?)?;
        }
        Ok(())
    }

    /// A connection of its own to who has `key`; it does not reconnect by itself, since what was sent may or
    /// may not have arrived.
    pub(crate) async fn connect(
        &self,
        key: &str,
        connect: Duration,
        response: Option<Duration>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let times = Times { connect, response };
        let place = &self.place;
        let master = match &place.kind {
            Kind::Single => return self.reach(&place.nodes[0], self.settings()?, times).await,
            Kind::Sentinel(name) => self.ask_sentinels(name, times).await?,
            Kind::Cluster => self.ask_cluster(key, times).await?,
        };
        let mut redis = self.reach(&master, self.settings()?, times).await?;
        if matches!(place.kind, Kind::Sentinel(_)) {
            // Sentinels may not know yet that it is one no longer.
            let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut redis).await?;
            let is_master = role.first() == Some(&Value::BulkString(b"master".into()));
            if !is_master {
                let what = "what sentinels call the master is none";
                return Err((ErrorKind::Client, what).into());
            }
        }
        Ok(redis)
    }

    async fn ask_sentinels(&self, name: &str, times: Times) -> Result<ConnectionAddr, RedisError> {
        let place = &self.place;
        let mut settings = RedisConnectionInfo::default();
        if let Some(file) = &place.sentinel_password_file {
            settings = settings.set_password(password(file)?);
        }
        if let Some(user) = &place.sentinel_user {
            settings = settings.set_username(user);
        }
        let mut failure = RedisError::from((
            ErrorKind::MasterNameNotFoundBySentinel,
            "no sentinel knows a master of this name",
        ));
        for node in self.in_turn() {
            let asked = async {
                let mut sentinel = self.reach(node, settings.clone(), times).await?;
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
                ask.query_async::<Option<(String, u16)>>(&mut sentinel)
                    .await
            };
            match asked.await {
                Ok(Some((host, port))) => return Ok(self.address(host, port)),
                Ok(None) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask_cluster(&self, key: &str, times: Times) -> Result<ConnectionAddr, RedisError> {
        let mut failure = RedisError::from((
            ErrorKind::ClusterConnectionNotFound,
            "no node of the cluster knows who has the slot",
        ));
        for node in self.in_turn() {
            let asked = async {
                let mut redis = self.reach(node, self.settings()?, times).await?;
                let mut pipeline = redis::pipe();
                pipeline.cmd("CLUSTER").arg("KEYSLOT").arg(key);
                pipeline.cmd("CLUSTER").arg("SLOTS");
                // Of each range the first slot, the last one, the master, its replicas.
                let (slot, ranges): (u16, Vec<Vec<Value>>) =
                    pipeline.query_async(&mut redis).await?;
                for mut range in ranges {
                    range.truncate(3);
                    let (first, last, mut master): (u16, u16, Vec<Value>) =
                        redis::from_redis_value(Value::Array(range))?;
                    if (first..=last).contains(&slot) {
                        master.truncate(2);
                        let master: (Option<String>, u16) =
                            redis::from_redis_value(Value::Array(master))?;
                        return Ok(Some(master));
                    }
                }
                Ok::<_, RedisError>(None)
            };
            match asked.await {
                Ok(Some((host, port))) => {
                    // A node that does not know its own address is where it was asked.
                    let host = host.filter(|host| !host.is_empty());
                    return Ok(self.address(host.unwrap_or_else(|| host_of(node)), port));
                }
                Ok(None) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn in_turn(&self) -> impl Iterator<Item = &ConnectionAddr> {
        let nodes = &self.place.nodes;
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
        nodes[first..].iter().chain(&nodes[..first])
    }

    fn address(&self, host: String, port: u16) -> ConnectionAddr {
        match self.place.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        }
    }

    fn settings(&self) -> Result<RedisConnectionInfo, RedisError> {
        let settings = self.place.settings.clone();
        Ok(match &self.place.password_file {
            Some(file) => settings.set_password(password(file)?),
            None => settings,
        })
    }

    async fn reach(
        &self,
        node: &ConnectionAddr,
        settings: RedisConnectionInfo,
        times: Times,
    ) -> Result<MultiplexedConnection, RedisError> {
        let info = node.clone().into_connection_info()?;
        // A right less to be given: who may not say the name of a library fills the log of Redis with that.
        let info = info.set_redis_settings(settings.set_skip_set_lib_name());
        let client = match &self.place.tls {
            Some(tls) => redis::Client::build_with_tls(info, certificates(tls)?)?,
            None => redis::Client::open(info)?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(times.connect))
            .set_response_timeout(times.response);
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

fn host_of(node: &ConnectionAddr) -> String {
    match node {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    }
}

/// Small files, now and then: they are read in place.
fn read(file: &Path) -> Result<Vec<u8>, RedisError> {
    std::fs::read(file).map_err(|error| {
        let what = format!("{}: {error}", file.display());
        (ErrorKind::InvalidClientConfig, "cannot read", what).into()
    })
}

fn password(file: &Path) -> Result<String, RedisError> {
    let text = String::from_utf8(read(file)?).map_err(|_| {
        let what = file.display().to_string();
        RedisError::from((ErrorKind::InvalidClientConfig, "no text is in", what))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn certificates(tls: &Tls) -> Result<TlsCertificates, RedisError> {
    let root_cert = tls.ca_file.as_deref().map(read).transpose()?;
    let client_tls = match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: read(certificate)?,
            client_key: read(key)?,
        }),
        _ => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}
