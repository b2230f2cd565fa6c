//! Bills of materials as CycloneDX.

use crate::licences::canonical;
use crate::linked::{Artifact, Id, Linked, Package, Rust, Workspace};
use anyhow::{Context, Result, ensure};
use cyclonedx_bom::models::component::Classification;
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::external_reference::{ExternalReference, ExternalReferenceType, ExternalReferences};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::tool::{Tool, Tools};
use cyclonedx_bom::prelude::{
    Bom, Component, Components, DateTime, Metadata, NormalizedString, Purl, SpecVersion, Uri, Validate,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

const VERSION: SpecVersion = SpecVersion::V1_5;

/// Returns the name of the file with an artifact's bill of materials.
pub fn file_name(artifact: &Artifact, version: &str) -> String {
    format!("{}-{version}.cdx.json", artifact.name)
}

/// Returns the bill of materials of an artifact as JSON, without anything that changes from run to
/// run. `file` finds the artifacts' files; `time` is that of the source, as RFC 3339.
pub fn sbom(
    workspace: &Workspace,
    artifact: &Artifact,
    file: impl Fn(&Artifact) -> Result<Vec<u8>>,
    time: &str,
) -> Result<Vec<u8>> {
    let mut parts = Parts::default();
    let linked = parts.add(workspace, artifact, &file)?;
    let root = parts.components.remove(artifact.file).context("an artifact without a component")?;
    let rust = rust(workspace.rust())?;
    let direct = parts.dependencies.entry(artifact.file.to_owned()).or_default();
    direct.extend(rust.bom_ref.clone());
    if let Some(contained) = artifact.contains {
        direct.insert(contained.file.to_owned());
        parts.add(workspace, contained, &file)?;
        parts.dependencies.entry(contained.file.to_owned()).or_default().extend(rust.bom_ref.clone());
    }
    let (_, version) = linked.root;
    let dependencies = parts
        .dependencies
        .into_iter()
        .map(|(dependency_ref, dependencies)| Dependency { dependency_ref, dependencies: dependencies.into_iter().collect() });
    let bom = Bom {
        // A new one for each run is what CycloneDX recommends; the same bytes are worth more.
        serial_number: None,
        metadata: Some(Metadata {
            timestamp: Some(DateTime::try_from(time.to_owned())?),
            tools: Some(Tools::List(vec![Tool::new("consul-session", env!("CARGO_PKG_NAME"), &version)])),
            component: Some(root),
            ..Metadata::default()
        }),
        components: Some(Components(parts.components.into_values().chain([rust]).collect())),
        dependencies: Some(Dependencies(dependencies.collect())),
        spec_version: VERSION,
        ..Bom::default()
    };
    let result = bom.validate_version(VERSION);
    ensure!(result.passed(), "the bill of materials of {} is not valid: {result:?}", artifact.file);
    let mut json = Vec::new();
    bom.output_as_json(&mut json, VERSION)?;
    json.push(b'\n');
    Ok(json)
}

/// What a bill of materials lists, by its reference there.
#[derive(Default)]
struct Parts {
    components: BTreeMap<String, Component>,
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl Parts {
    /// Adds the artifact and all that is linked into it.
    fn add(
        &mut self,
        workspace: &Workspace,
        artifact: &Artifact,
        file: impl Fn(&Artifact) -> Result<Vec<u8>>,
    ) -> Result<Linked> {
        let linked = workspace.linked(artifact)?;
        // The package that is built stands for its file: the plugin's may be linked into the program
        // as a library, too.
        let reference = |id: &Id| if *id == linked.root { artifact.file.to_owned() } else { purl(&linked.packages[id]) };
        for (id, package) in &linked.packages {
            let mut component = component(package)?;
            component.bom_ref = Some(reference(id));
            if *id == linked.root {
                component.component_type = Classification::Application;
                component.name = NormalizedString::new(artifact.file);
                component.hashes = Some(sha256(format!("{:x}", Sha256::digest(file(artifact)?))));
            }
            self.components.insert(reference(id), component);
            let direct = linked.dependencies.get(id).into_iter().flatten().map(reference);
            self.dependencies.entry(reference(id)).or_default().extend(direct);
        }
        Ok(linked)
    }
}

fn component(package: &Package) -> Result<Component> {
    let mut component = Component::new(Classification::Library, &package.name, &package.version, None);
    component.description = package.description.as_deref().map(|text| NormalizedString::new(&one_line(text)));
    component.licenses = Some(licence(&package.licence)?);
    component.purl = Some(purl(package).parse().ok().context("a package URL")?);
    component.hashes = package.sha256.clone().map(sha256);
    component.external_references = package.repository.as_deref().map(repository);
    Ok(component)
}

/// Returns the standard library, which no package names.
fn rust(rust: &Rust) -> Result<Component> {
    let url = format!("pkg:github/rust-lang/rust@{}", rust.version);
    let mut component = Component::new(Classification::Library, "std", &rust.version, Some(url.clone()));
    component.description = Some(NormalizedString::new("Rust's standard library"));
    component.licenses = Some(licence("MIT OR Apache-2.0")?);
    component.purl = Some(url.parse::<Purl>().ok().context("a package URL")?);
    component.external_references = Some(repository("https://github.com/rust-lang/rust"));
    Ok(component)
}

/// Returns the package URL. The packages of this repository are in no registry, so that theirs names
/// the repository.
fn purl(package: &Package) -> String {
    let Package { name, version, .. } = package;
    // `+`, as in `0.13.0+wasi-0.2.0`, would be a space.
    let plain = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
    match &package.repository {
        Some(repository) if package.is_ours() => format!("{plain}?vcs_url=git%2B{repository}%40v{version}"),
        _ => plain,
    }
}

fn licence(expression: &str) -> Result<Licenses> {
    Ok(Licenses(vec![LicenseChoice::expression(&canonical(expression)?)]))
}

fn sha256(digest: String) -> Hashes {
    Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(digest) }])
}

fn repository(address: &str) -> ExternalReferences {
    ExternalReferences(vec![ExternalReference::new(ExternalReferenceType::Vcs, Uri::new(address))])
}

/// Returns the words of a text in one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
