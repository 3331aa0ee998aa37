//! Where Redis is: one server, several with sentinels, or a cluster; and how it is to be talked to.

use std::fmt;
use std::path::{Path, PathBuf};

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde::Deserialize;

const SENTINEL_PORT: u16 = 26_379;

/// The address of Redis, as `configs/default.toml` describes it at `redis.url`.
/// It may hold a password, so it does not print as it is.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without what comes before the `@`, and behind the `?`.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may have a ? of its own.
        let after_user = self.0.rfind('@').unwrap_or(0);
        let end = self.0[after_user..]
            .find('?')
            .map_or(self.0.len(), |at| after_user + at);
        let shown = &self.0[..end];
        match (shown.split_once("://"), shown.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://***@{host}"),
            _ => f.write_str(shown),
        }
    }
}

/// The address makes no sense.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} is no Redis address ({problem}): write redis://host:6379, rediss://host, redis+unix:///path/to/socket, \
     redis+sentinel://host,host/master or redis+cluster://host,host"
)]
pub struct BadUrl {
    url: Url,
    problem: String,
}

/// What an address says.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// Of these one at least answers: servers, or sentinels.
    pub(crate) nodes: Vec<ConnectionAddr>,
    /// User, password and database; the password may be in a file instead.
    pub(crate) settings: RedisConnectionInfo,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) sentinel_user: Option<String>,
    pub(crate) sentinel_password_file: Option<PathBuf>,
    pub(crate) tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    /// Sentinels know where the master of this name is.
    Sentinel(String),
    /// Any node knows which one has a key.
    Cluster,
}

/// What proves who is who. Files are read with each connection, so they may be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Who has signed the certificate of the server; the authorities of this machine otherwise.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
}

impl BadUrl {
    pub(crate) fn new(url: &Url, problem: String) -> Self {
        let url = url.clone();
        Self { url, problem }
    }
}

impl Place {
    pub(crate) fn find(url: &Url) -> Result<Self, BadUrl> {
        parse(&url.0).map_err(|problem| BadUrl::new(url, problem))
    }
}

fn parse(text: &str) -> Result<Place, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it names no scheme")?;
    let (base, many) = scheme.split_once('+').unwrap_or((scheme, ""));
    let is_tls = match base {
        "redis" | "valkey" | "unix" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(format!("{scheme} is unknown")),
    };
    let after_user = rest.rfind('@').unwrap_or(0);
    let (rest, query) = match rest[after_user..].find('?') {
        Some(at) => (&rest[..after_user + at], &rest[after_user + at + 1..]),
        None => (rest, ""),
    };
    let mut options = Options::default();
    let query = options.take(query)?;
    let (user, hosts) = match rest.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), rest),
    };
    let (hosts, path) = hosts.split_once('/').unwrap_or((hosts, ""));
    let (kind, database) = match many {
        "" | "unix" => (Kind::Single, path),
        "sentinel" => {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("it names no master behind the sentinels".to_owned());
            }
            (Kind::Sentinel(master.to_owned()), database)
        }
        "cluster" if matches!(path, "" | "0") => (Kind::Cluster, path),
        "cluster" => return Err("a cluster has no databases".to_owned()),
        _ => return Err(format!("{scheme} is unknown")),
    };
    let mut found = Vec::new();
    for host in hosts.split(',') {
        let one = match (many, &kind) {
            ("", _) | ("unix", _) if !hosts.contains(',') => {
                format!("{scheme}://{user}{host}/{database}{query}")
            }
            (_, Kind::Single) => {
                return Err("several servers are redis+sentinel or redis+cluster".to_owned());
            }
            (_, Kind::Sentinel(_)) if !has_port(host) => {
                format!("{base}://{user}{host}:{SENTINEL_PORT}/{database}{query}")
            }
            _ => format!("{base}://{user}{host}/{database}{query}"),
        };
        found.push(
            one.into_connection_info()
                .map_err(|error| error.to_string())?,
        );
    }
    let settings = found[0].redis_settings().clone();
    let is_password_twice = options.password_file.is_some() && settings.password().is_some();
    if is_password_twice {
        return Err("there is a password and a password_file".to_owned());
    }
    let has_sentinel_options =
        options.sentinel_user.is_some() || options.sentinel_password_file.is_some();
    if has_sentinel_options && !matches!(kind, Kind::Sentinel(_)) {
        return Err("it has no sentinels".to_owned());
    }
    let tls = &options.tls;
    if !is_tls && *tls != Tls::default() {
        return Err("ca_file, cert_file and key_file are for rediss".to_owned());
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        return Err("cert_file and key_file go together".to_owned());
    }
    Ok(Place {
        kind,
        nodes: found.iter().map(|info| info.addr().clone()).collect(),
        settings,
        tls: is_tls.then(|| options.tls.clone()),
        password_file: options.password_file,
        sentinel_user: options.sentinel_user,
        sentinel_password_file: options.sentinel_password_file,
    })
}

fn has_port(host: &str) -> bool {
    host.rsplit(']').next().is_some_and(|end| end.contains(':'))
}

/// What stands behind the `?` and is ours.
#[derive(Default)]
struct Options {
    password_file: Option<PathBuf>,
    sentinel_user: Option<String>,
    sentinel_password_file: Option<PathBuf>,
    tls: Tls,
}

impl Options {
    /// Takes what is known; the rest is left to the library.
    fn take(&mut self, query: &str) -> Result<String, String> {
        let mut left = String::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "password_file" => &mut self.password_file,
                "sentinel_password_file" => &mut self.sentinel_password_file,
                "ca_file" => &mut self.tls.ca_file,
                "cert_file" => &mut self.tls.cert_file,
                "key_file" => &mut self.tls.key_file,
                "sentinel_user" => {
                    self.sentinel_user = Some(value.to_owned());
                    continue;
                }
                "protocol" | "db" | "user" | "pass" => {
                    left.push(if left.is_empty() { '?' } else { '&' });
                    left.push_str(pair);
                    continue;
                }
                _ => return Err(format!("{name} is unknown")),
            };
            if !Path::new(value).is_absolute() {
                return Err(format!("{name} must be a whole path"));
            }
            *place = Some(value.into());
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_does_not_show_its_password() {
        for (url, shown) in [
            ("redis://:s3cret@db:6379/1", "redis://***@db:6379/1"),
            ("redis://me:p@ss@db", "redis://***@db"),
            ("redis://me:p?ss@db?protocol=resp3", "redis://***@db"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            (
                "redis+unix:///run/redis.sock?pass=s3cret",
                "redis+unix:///run/redis.sock",
            ),
            (
                "redis+sentinel://:s3cret@a,b/front",
                "redis+sentinel://***@a,b/front",
            ),
        ] {
            assert_eq!(Url::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", Url::new(url)), shown);
        }
    }

    fn nodes(place: &Place) -> Vec<String> {
        place.nodes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_names_one_server_sentinels_or_a_cluster() {
        let place = parse("redis://me:secret@db/3").expect("sound");
        assert_eq!((place.kind, place.tls), (Kind::Single, None));
        assert_eq!(place.settings.db(), 3);
        assert_eq!(place.settings.username(), Some("me"));
        assert_eq!(place.settings.password(), Some("secret"));

        let text = "rediss+sentinel://me@a,[::1],c:5/front/2?password_file=/p&ca_file=/ca&sentinel_password_file=/s";
        let place = parse(text).expect("sound");
        assert_eq!(nodes(&place), ["a:26379", "::1:26379", "c:5"]);
        assert_eq!(place.kind, Kind::Sentinel("front".to_owned()));
        assert_eq!(place.settings.db(), 2);
        assert_eq!(place.password_file, Some("/p".into()));
        assert_eq!(place.sentinel_password_file, Some("/s".into()));
        assert_eq!(place.tls.and_then(|tls| tls.ca_file), Some("/ca".into()));

        let place = parse("redis+cluster://a:1,b").expect("sound");
        assert_eq!(place.kind, Kind::Cluster);
        assert_eq!(nodes(&place), ["a:1", "b:6379"]);

        let place = parse("redis+unix:///run/redis.sock?db=1&password_file=/p").expect("sound");
        assert_eq!(nodes(&place), ["/run/redis.sock"]);
        assert_eq!(place.settings.db(), 1);
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, problem) in [
            ("db:6379", "no scheme"),
            ("http://db", "http is unknown"),
            ("redis+raft://db", "redis+raft is unknown"),
            ("redis://a,b", "several servers"),
            ("redis+sentinel://a,b", "names no master"),
            ("redis+cluster://a/1", "no databases"),
            ("redis://db?color=red", "color is unknown"),
            ("redis://db?ca_file=/ca", "are for rediss"),
            ("rediss://db?ca_file=ca.pem", "a whole path"),
            ("rediss://db?cert_file=/c", "go together"),
            ("redis://:p@db?password_file=/p", "a password and"),
            ("redis://db?sentinel_user=me", "no sentinels"),
            ("redis://db:port", "Redis URL"),
        ] {
            let error = Place::find(&Url::new(text)).err().expect(text).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
