//! Pushes the components and the WIT package of a release to an OCI registry, as [Wasm OCI
//! artifacts], which wasmCloud, wkg and others pull.
//!
//! [Wasm OCI artifacts]: https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/

mod artifact;
mod credentials;
mod destination;
mod release;

pub use artifact::Artifact;
pub use destination::{Destination, Published};
pub use release::Release;

use anyhow::Result;
use std::path::Path;

/// Pushes what the folder holds, and returns it with the registry's names.
///
/// # Errors
///
/// The folder is not one that `cargo xtask dist` made from a commit, or the registry refuses. Then
/// what was pushed before stays, and the same command continues.
pub fn publish(folder: &Path, destination: &Destination) -> Result<Vec<Published>> {
    let artifacts = Release::open(folder)?.artifacts()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(destination.push_all(&artifacts))
}
