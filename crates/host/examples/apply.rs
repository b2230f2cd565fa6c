//! Ensures that a session exists, and prints its id and whether it was created.

use consul_session_host::{Host, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(8500), |port| port.parse())?;
    let host = Host::builder().allow(format!("localhost:{port}").parse()?).build("dist/consul-session-plugin.wasm")?;
    let options = Options { name: Some("session1".into()), delay: Some(20.0), port: Some(port), ..Options::default() };
    match host.apply(&options).await {
        Ok(outcome) => {
            let change = if outcome.changed { "changed" } else { "unchanged" };
            println!("{} {change}", outcome.session_id.unwrap_or_default());
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
    Ok(())
}
