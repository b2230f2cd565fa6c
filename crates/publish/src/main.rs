//! `cargo xtask publish`: pushes a release to an OCI registry.

use clap::Parser;
use consul_session_publish::{Destination, publish};
use std::path::PathBuf;
use std::process::ExitCode;

/// Pushes the components and the WIT package of a release to an OCI registry
#[derive(Parser)]
#[command(bin_name = "cargo xtask publish")]
struct Arguments {
    /// Registry: HOST[:PORT][/PATH], such as ghcr.io/OWNER
    #[arg(long, value_name = "REGISTRY")]
    to: String,
    /// By http instead of https
    #[arg(long)]
    insecure: bool,
    /// Folder that `cargo xtask dist` made
    #[arg(long, value_name = "FOLDER", default_value = "dist/release")]
    from: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { to, insecure, from } = Arguments::parse();
    let published = Destination::new(&to, insecure).and_then(|destination| publish(&from, &destination));
    match published {
        Ok(all) => {
            for one in all {
                println!("{one}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
