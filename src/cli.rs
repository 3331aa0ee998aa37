//! The command line: `up` runs a server, everything else talks to one.

mod aside;
mod channels;
mod check;
mod completions;
mod configs;
mod connections;
mod credentials;
mod events;
mod groups;
mod login;
mod output;
mod page;
mod presence;
mod reload;
mod replay;
mod serve;
mod things;
mod user_policies;
mod users;
mod watch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rollcall_domain::identity::Secret;
use rollcall_grpc::client::{self, Client};
use rollcall_tls::client::Settings as ClientTls;

use crate::config::{self, Config};
use crate::secrets;
use crate::server::Role;
use credentials::Credentials;
use output::Output;

/// An MQTT front that authenticates things and keeps a truthful roll of who is connected.
#[derive(Parser)]
#[command(version, propagate_version = true)]
pub struct Arguments {
    /// Configuration file; see configs/default.toml for every key
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder [default: ./data]
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where a running server serves gRPC: host:port, or https://host:port [default: what the configuration says]
    #[arg(long, global = true, value_name = "ADDRESS")]
    server: Option<String>,
    /// Who vouches for servers with https:// [default: grpc.client.ca; if it is empty, whom this machine trusts]
    #[arg(long, global = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name that their certificates have to be for [default: grpc.client.server_name; if it is empty, the host of the
    /// address]
    #[arg(long, global = true, value_name = "NAME")]
    tls_name: Option<String>,
    /// A certificate for servers that ask for one [default: grpc.client.certificate]
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key [default: grpc.client.key]
    #[arg(long, global = true, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// A file with the token to use [default: that of `rollcall login` at this server; if nobody is signed in there,
    /// secrets/admin.token in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: the MQTT front and all services
    Up(serve::Up),
    /// Run the MQTT front alone; the things service is elsewhere
    Mqtt(serve::Serve),
    /// Make and manage users; without a command, run the users service alone
    Users(Service<users::Users>),
    /// Make and manage things; without a command, run the things service alone
    Things(Service<things::Things>),
    /// Run the bootstrap service alone; the other services are elsewhere
    Bootstrap(serve::Serve),
    /// Sign in; the tokens are kept for the commands that follow
    Login(login::Login),
    /// Sign out: the tokens are good no longer
    Logout(login::Logout),
    /// Make and manage channels
    #[command(subcommand)]
    Channels(channels::Channels),
    /// Let a thing use a channel
    Connect(connections::Connect),
    /// Let a thing no longer use a channel
    Disconnect(connections::Disconnect),
    /// Make and manage groups of users
    #[command(subcommand)]
    Groups(groups::Groups),
    /// Manage what who may do
    #[command(subcommand)]
    Policies(Policies),
    /// Make and manage what devices are given that come with an external id and key alone
    #[command(subcommand)]
    Configs(configs::Configs),
    /// Show events as redis-cli would
    Events(events::Events),
    /// Show who is online
    Presence(presence::Presence),
    /// Check that a stream of presence keeps its promises: in order, complete, everything once
    CheckPresence(check::CheckPresence),
    /// End the sessions that a thing has on the server's instance, or one session there
    Kick(presence::Kick),
    /// Read the certificates of the server again
    Reload(reload::Reload),
    /// Print what a shell needs to complete these commands
    Completions(completions::Completions),
    /// Add up what the streams say of users, things and configurations, and compare it with the database
    Replay(replay::Replay),
}

/// Commands about what a service has. Without one, the service itself is run, and nothing else.
///
/// Parts of rollcall that run alone read the same configuration. Each keeps a database of its own in the data folder,
/// or shares a PostgreSQL with the others (storage.url). They find each other by users.authority, things.authority
/// and things.url; on one machine each needs a grpc.listen and http.listen of its own.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Service<C: Subcommand> {
    #[command(flatten)]
    serve: serve::Serve,
    #[command(subcommand)]
    command: Option<C>,
}

#[derive(Subcommand)]
enum Policies {
    /// On groups
    #[command(subcommand)]
    Users(user_policies::UserPolicies),
    /// On channels
    #[command(subcommand)]
    Things(connections::ThingPolicies),
}

/// Does what `arguments` say.
///
/// # Errors
/// What went wrong, in words for the user.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        config: file,
        data,
        server,
        tls_ca,
        tls_name,
        tls_certificate,
        tls_key,
        token_file,
        json,
        command,
    } = arguments;
    let mut flags = Vec::new();
    for (name, path) in [
        ("data", data),
        ("grpc.client.ca", tls_ca),
        ("grpc.client.certificate", tls_certificate),
        ("grpc.client.key", tls_key),
    ] {
        flags.extend(path.map(|path| (name, path.display().to_string())));
    }
    flags.extend(tls_name.map(|name| ("grpc.client.server_name", name)));
    if let Command::Up(serve::Up { serve, .. })
    | Command::Mqtt(serve)
    | Command::Users(Service { serve, .. })
    | Command::Things(Service { serve, .. })
    | Command::Bootstrap(serve) = &command
    {
        serve.add_flags(&mut flags);
    }
    let config = config::load(file.as_deref(), &flags)?;
    let output = Output { json };
    let session = Session {
        server,
        token_file,
        config: &config,
    };
    match command {
        Command::Up(up) => up.run(&config, output).await,
        Command::Mqtt(serve) => serve.run(Role::Mqtt, &config, output).await,
        Command::Users(Service { serve, command }) => match command {
            None => serve.run(Role::Users, &config, output).await,
            Some(users) if users.is_for_anybody() => {
                users
                    .run(&session.connect_as_anybody().await?, output)
                    .await
            }
            Some(users) => users.run(&session.connect().await?, output).await,
        },
        Command::Things(Service { serve, command }) => match command {
            None => serve.run(Role::Things, &config, output).await,
            Some(things) => things.run(&session.connect().await?, output).await,
        },
        Command::Bootstrap(serve) => serve.run(Role::Bootstrap, &config, output).await,
        Command::Login(login) => login.run(&session, output).await,
        Command::Logout(logout) => logout.run(&session, output).await,
        Command::Channels(channels) => channels.run(&session.connect().await?, output).await,
        Command::Connect(connect) => connect.run(&session.connect().await?, output).await,
        Command::Disconnect(disconnect) => disconnect.run(&session.connect().await?, output).await,
        Command::Groups(groups) => groups.run(&session.connect().await?, output).await,
        Command::Policies(Policies::Users(policies)) => {
            policies.run(&session.connect().await?, output).await
        }
        Command::Policies(Policies::Things(policies)) => {
            policies.run(&session.connect().await?, output).await
        }
        Command::Configs(configs) => configs.run(&session.connect().await?, output).await,
        Command::Events(events) => events.run(&session, output).await,
        Command::Presence(presence) => presence.run(&session, output).await,
        Command::Reload(reload) => reload.run(&session.connect().await?, output).await,
        Command::Completions(completions) => completions.run(),
        Command::Replay(replay) => replay.run(session.config, output).await,
        Command::CheckPresence(check) => check.run(session.config, output).await,
        Command::Kick(kick) => kick.run(&session.connect().await?, output).await,
    }
}

/// Where the server is and how to prove oneself to it.
struct Session<'a> {
    server: Option<String>,
    token_file: Option<PathBuf>,
    config: &'a Config,
}

impl Session<'_> {
    async fn connect(&self) -> anyhow::Result<Client> {
        let server = self.server();
        let token = self.token(&server).await?;
        Ok(Client::connect(&server, self.tls(), Some(&token)).await?)
    }

    /// For who may have no token: who registers, or has forgotten a password.
    async fn connect_as_anybody(&self) -> anyhow::Result<Client> {
        let server = self.server();
        let token = match self.token(&server).await {
            Err(error) if self.token_file.is_some() => return Err(error),
            token => token.ok(),
        };
        Ok(Client::connect(&server, self.tls(), token.as_ref()).await?)
    }

    fn server(&self) -> String {
        let grpc = &self.config.grpc;
        let mut here = grpc.listen;
        match here.ip() {
            IpAddr::V4(any) if any.is_unspecified() => here.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(any) if any.is_unspecified() => here.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        match &self.server {
            Some(server) => client::canonical(server).to_owned(),
            None if grpc.tls.is_on() => format!("https://{here}"),
            None => here.to_string(),
        }
    }

    fn tls(&self) -> &ClientTls {
        &self.config.grpc.client
    }

    /// Where users sign in: the server that is named, or the users service that it asks.
    fn users_server(&self) -> String {
        match (&self.server, self.users_authority()) {
            (None, Some(authority)) => authority,
            _ => self.server(),
        }
    }

    fn users_authority(&self) -> Option<String> {
        let authority = self.config.users.authority.as_str();
        (!authority.is_empty()).then(|| client::canonical(authority).to_owned())
    }

    async fn token(&self, server: &str) -> anyhow::Result<Secret> {
        if let Some(path) = &self.token_file {
            return Ok(secrets::token_from(path)?);
        }
        let mut servers = vec![server.to_owned()];
        servers.extend(self.users_authority());
        if let Some(mut credentials) = Credentials::find()?
            && let Some(token) = credentials.token(&servers, self.tls()).await?
        {
            return Ok(token);
        }
        Ok(secrets::token_from(&secrets::token_path(
            &self.config.data,
        ))?)
    }
}

/// Tells the user what went wrong.
pub fn complain(error: &anyhow::Error, json: bool) {
    // A reader that has gone away (`rollcall events | head`) is no error.
    if error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
    {
        return;
    }
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors tell their cause themselves.
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    if json {
        eprintln!("{}", serde_json::json!({ "error": message }));
    } else {
        eprintln!("rollcall: {message}");
    }
}
