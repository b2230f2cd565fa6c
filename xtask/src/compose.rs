//! `cargo xtask compose`: two components made one.

use crate::{build, root};
use anyhow::Result;
use std::path::Path;
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, plug};

/// Plugs the plugin into `examples/leader-election`, which imports its interfaces, and makes `dist/leader-election.wasm`.
pub fn run(plugin: &Path) -> Result<()> {
    let guest = build::component("leader-election", "")?;
    let mut graph = CompositionGraph::new();
    let plugin = Package::from_file("plugin", None, plugin, graph.types_mut())?;
    let plugin = graph.register_package(plugin)?;
    let guest = Package::from_bytes("guest", None, guest, graph.types_mut())?;
    let guest = graph.register_package(guest)?;
    plug(&mut graph, vec![plugin], guest)?;
    build::write(&root().join("dist").join("leader-election.wasm"), &graph.encode(EncodeOptions::default())?)
}
