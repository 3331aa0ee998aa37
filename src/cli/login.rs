//! `rollcall login` and `rollcall logout`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use rollcall_domain::identity::Secret;
use rollcall_grpc::client::{self, tokens::Tokens};
use serde_json::json;

use super::Session;
use super::credentials::Credentials;
use super::output::Output;

#[derive(Args)]
pub(super) struct Login {
    /// Who signs in: an e-mail address, as a rule [default: asks]
    identity: Option<String>,
    /// Read the password from this file [default: asks; without a terminal, the first line of the input]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Login {
    pub(super) async fn run(self, session: &Session<'_>, output: Output) -> anyhow::Result<()> {
        let server = session.users_server();
        if client::is_in_clear(&server) {
            eprintln!(
                "rollcall: the password goes in clear to another machine: write https:// if it speaks TLS"
            );
        }
        let mut tokens = Tokens::connect(&server, session.tls()).await?;
        let identity = match self.identity {
            Some(identity) => identity,
            None => ask("Identity: ")?,
        };
        let password = match &self.password_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None if io::stdin().is_terminal() => rpassword::prompt_password("Password: ")?,
            None => line()?,
        };
        let password = Secret::new(password.trim_end_matches(['\r', '\n']));
        let pair = tokens.issue(identity.clone(), &password).await?;
        Credentials::make()?.add(&server, identity.clone(), pair)?;
        let value = json!({ "server": server, "identity": identity });
        Ok(output.say(&value, &format!("{identity} is signed in at {server}"))?)
    }
}

#[derive(Args)]
pub(super) struct Logout {}

impl Logout {
    pub(super) async fn run(self, session: &Session<'_>, output: Output) -> anyhow::Result<()> {
        let server = session.users_server();
        let ended = match Credentials::find()? {
            Some(mut credentials) => credentials.end(&server, session.tls()).await?,
            None => None,
        };
        let identity = ended.with_context(|| format!("nobody is signed in at {server}"))?;
        let value = json!({ "server": server, "identity": identity });
        Ok(output.say(&value, &format!("{identity} is signed out at {server}"))?)
    }
}

fn ask(what: &str) -> anyhow::Result<String> {
    anyhow::ensure!(io::stdin().is_terminal(), "name who signs in");
    eprint!("{what}");
    io::stderr().flush()?;
    Ok(line()?.trim().to_owned())
}

fn line() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text)?;
    Ok(text)
}
