//! What is linked into the artifacts of a release: a bill of materials for each of them, and the
//! licences of all.
//!
//! Cargo decides what is linked: [`Workspace::linked`] reads `cargo tree`, which follows the features
//! and the target of the real build and leaves out what only builds or tests. Procedural macros run
//! in the compiler, so they are left out too. `Cargo.lock` has the digest of each crate, and the
//! crates' own folders have the texts of their licences.

mod licences;
mod linked;
mod sbom;

pub use licences::Licences;
pub use linked::{ARTIFACTS, Artifact, COMMAND, Linked, PLUGIN, PROGRAM, Package, Workspace};
pub use sbom::{file_name, sbom};
