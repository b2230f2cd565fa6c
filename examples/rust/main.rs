//! Makes sure that there is a session, and says which.

use consul_session_host::{Host, Options, error_case, error_message};

#[tokio::main]
async fn main() -> wasmtime::Result<()> {
    let host = Host::new("dist/consul-session-plugin.wasm".as_ref())?;
    let port = std::env::args().nth(1).map_or(8500, |port| port.parse().expect("a port"));
    let options = Options { name: Some("session1".into()), delay: Some(20.0), port: Some(port), ..Options::default() };
    match host.apply(&options).await? {
        Ok(outcome) => {
            println!("{} {}", outcome.session_id.unwrap_or_default(), if outcome.changed { "changed" } else { "unchanged" })
        }
        Err(error) => {
            eprintln!("{}: {}", error_case(&error), error_message(&error));
            std::process::exit(1);
        }
    }
    Ok(())
}
