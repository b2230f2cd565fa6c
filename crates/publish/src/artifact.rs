//! One name of the registry: a layer with the file, a config, and a manifest with annotations.

use anyhow::{Context, Result, bail};
use oci_client::annotations::{
    ORG_OPENCONTAINERS_IMAGE_CREATED, ORG_OPENCONTAINERS_IMAGE_DESCRIPTION, ORG_OPENCONTAINERS_IMAGE_LICENSES,
    ORG_OPENCONTAINERS_IMAGE_REVISION, ORG_OPENCONTAINERS_IMAGE_SOURCE, ORG_OPENCONTAINERS_IMAGE_TITLE,
    ORG_OPENCONTAINERS_IMAGE_VERSION,
};
use oci_client::client::{Config, ImageLayer};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use wit_component::DecodedWasm;
use wit_parser::{PackageId, Resolve, WorldId};

/// Media type of the layer.
const WASM: &str = "application/wasm";
/// Media type of the config.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Where the files of a release come from.
#[derive(Clone)]
pub(crate) struct Origin {
    pub description: String,
    pub licenses: String,
    pub source: String,
    pub version: String,
    pub revision: String,
    pub created: String,
}

/// A file, ready to be pushed.
pub struct Artifact {
    /// The repository, below the registry's path.
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) layer: ImageLayer,
    pub(crate) config: Config,
    pub(crate) manifest: OciImageManifest,
}

/// The config of a [Wasm OCI artifact].
///
/// [Wasm OCI artifact]: https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: &'a str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [String; 1],
    component: Component,
}

/// The interfaces of a component, or what a WIT package defines.
#[derive(Serialize)]
struct Component {
    exports: BTreeSet<String>,
    imports: BTreeSet<String>,
}

impl Artifact {
    /// Makes an artifact of a component, tagged with the release's version.
    pub(crate) fn component(repository: &str, file: &str, bytes: Vec<u8>, origin: &Origin) -> Result<Artifact> {
        let DecodedWasm::Component(resolve, world) = wit_component::decode(&bytes)? else {
            bail!("{file} is a WIT package instead of a component")
        };
        Artifact::new(repository.to_owned(), file, bytes, world_of(&resolve, world), &origin.description, origin)
    }

    /// Makes an artifact of a WIT package where wkg looks for it below this prefix: in a repository
    /// of the package's name, tagged with the package's version.
    pub(crate) fn wit_package(prefix: &str, file: &str, bytes: Vec<u8>, origin: &Origin) -> Result<Artifact> {
        let DecodedWasm::WitPackage(resolve, package) = wit_component::decode(&bytes)? else {
            bail!("{file} is a component instead of a WIT package")
        };
        let name = &resolve.packages[package].name;
        let version = name.version.as_ref().with_context(|| format!("the package {name} has no version"))?.to_string();
        let repository = format!("{prefix}/{}/{}", name.namespace, name.name);
        let description = format!("The WIT package {name}: {}", origin.description);
        let origin = Origin { version, ..origin.clone() };
        Artifact::new(repository, file, bytes, definitions(&resolve, package), &description, &origin)
    }

    fn new(
        repository: String,
        file: &str,
        bytes: Vec<u8>,
        component: Component,
        description: &str,
        origin: &Origin,
    ) -> Result<Artifact> {
        // Tools that know nothing of Wasm call the file so.
        let title = BTreeMap::from([(ORG_OPENCONTAINERS_IMAGE_TITLE.to_owned(), file.to_owned())]);
        let layer = ImageLayer::new(bytes, WASM.to_owned(), Some(title));
        let config = WasmConfig {
            created: &origin.created,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [layer.sha256_digest()],
            component,
        };
        let config = Config::new(serde_json::to_vec(&config)?, WASM_CONFIG.to_owned(), None);
        let annotations = [
            (ORG_OPENCONTAINERS_IMAGE_TITLE, repository.as_str()),
            (ORG_OPENCONTAINERS_IMAGE_DESCRIPTION, description),
            (ORG_OPENCONTAINERS_IMAGE_LICENSES, &origin.licenses),
            (ORG_OPENCONTAINERS_IMAGE_SOURCE, &origin.source),
            (ORG_OPENCONTAINERS_IMAGE_VERSION, &origin.version),
            (ORG_OPENCONTAINERS_IMAGE_REVISION, &origin.revision),
            (ORG_OPENCONTAINERS_IMAGE_CREATED, &origin.created),
        ];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut manifest = OciImageManifest::build(std::slice::from_ref(&layer), &config, Some(annotations.into()));
        manifest.media_type = Some(OCI_IMAGE_MEDIA_TYPE.to_owned());
        Ok(Artifact { repository, tag: origin.version.clone(), layer, config, manifest })
    }
}

/// Returns the imports and exports of a world.
fn world_of(resolve: &Resolve, world: WorldId) -> Component {
    let world = &resolve.worlds[world];
    let names = |items: &wit_parser::IndexMap<_, _>| items.keys().map(|key| resolve.name_world_key(key)).collect();
    Component { exports: names(&world.exports), imports: names(&world.imports) }
}

/// Returns the interfaces and worlds of a package as exports, as wkg does.
fn definitions(resolve: &Resolve, package: PackageId) -> Component {
    let package = &resolve.packages[package];
    let interfaces = package.interfaces.values().filter_map(|id| resolve.id_of(*id));
    let worlds = package.worlds.keys().map(|world| package.name.interface_id(world));
    Component { exports: interfaces.chain(worlds).collect(), imports: BTreeSet::new() }
}
