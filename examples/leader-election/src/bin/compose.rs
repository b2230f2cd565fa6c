//! Composes a component with another that imports its exports: `compose PLUGIN GUEST RESULT`.
//!
//! `cargo xtask compose` runs it. It is a separate program so that only this task compiles
//! `wac-graph`.

use anyhow::{Context, Result};
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, plug};

fn main() -> Result<()> {
    let [plugin, guest, result]: [String; 3] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().ok().context("usage: compose PLUGIN GUEST RESULT")?;
    let mut graph = CompositionGraph::new();
    let plugin = Package::from_file("plugin", None, plugin, graph.types_mut())?;
    let plugin = graph.register_package(plugin)?;
    let guest = Package::from_file("guest", None, guest, graph.types_mut())?;
    let guest = graph.register_package(guest)?;
    plug(&mut graph, vec![plugin], guest)?;
    std::fs::write(&result, graph.encode(EncodeOptions::default())?).with_context(|| format!("{result} cannot be written"))
}
