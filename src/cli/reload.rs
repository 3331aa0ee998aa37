//! `rollcall reload`.

use clap::Args;
use rollcall_grpc::api;
use rollcall_grpc::client::Client;
use serde_json::json;

use super::output::Output;

#[derive(Args)]
pub(super) struct Reload {}

impl Reload {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let api::ReloadResponse { done } = client.reload().await?;
        let text = match done.len() {
            0 => "no listener has certificates".to_owned(),
            _ => format!("certificates are read again: {}", done.join(", ")),
        };
        Ok(output.say(&json!({ "reloaded": done }), &text)?)
    }
}
