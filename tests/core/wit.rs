//! The WIT package and the core agree.

use consul_session::error::ErrorKind;
use consul_session::options::{self, Behavior, OnMismatch, Scheme, State};
use std::path::Path;
use strum::VariantNames as _;
use wit_parser::{Docs, Interface, PackageId, Resolve, Stability, Type, TypeDef, TypeDefKind};

fn package() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit")).unwrap();
    (resolve, package)
}

fn interface<'a>(resolve: &'a Resolve, package: PackageId, name: &str) -> &'a Interface {
    &resolve.interfaces[resolve.packages[package].interfaces[name]]
}

fn kind<'a>(resolve: &'a Resolve, interface: &Interface, name: &str) -> &'a TypeDefKind {
    &resolve.types[interface.types[name]].kind
}

/// Returns the names of the fields of a record, or of the cases of an enum or a variant.
fn names(kind: &TypeDefKind) -> Vec<&str> {
    parts(kind).into_iter().map(|(name, _)| name).collect()
}

fn parts(kind: &TypeDefKind) -> Vec<(&str, &Docs)> {
    match kind {
        TypeDefKind::Record(record) => record.fields.iter().map(|field| (field.name.as_str(), &field.docs)).collect(),
        TypeDefKind::Enum(cases) => cases.cases.iter().map(|case| (case.name.as_str(), &case.docs)).collect(),
        TypeDefKind::Variant(variant) => variant.cases.iter().map(|case| (case.name.as_str(), &case.docs)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn record_options_has_the_options_of_the_table() {
    let (resolve, package) = package();
    let desired_state = interface(&resolve, package, "desired-state");
    let record: Vec<String> =
        names(kind(&resolve, desired_state, "options")).iter().map(|name| name.replace('-', "_")).collect();
    let table: Vec<&str> = options::TABLE.iter().map(|info| info.name).collect();
    assert_eq!(record, table);
}

#[test]
fn fields_of_connection_and_create_options_are_options() {
    let (resolve, package) = package();
    let sessions = interface(&resolve, package, "sessions");
    for field in names(kind(&resolve, sessions, "connection")) {
        assert!(options::info(&field.replace('-', "_")).is_some(), "{field}");
    }
    for field in names(kind(&resolve, sessions, "create-options")) {
        let option = if field == "lock-delay" { "delay".into() } else { field.replace('-', "_") };
        assert!(options::info(&option).is_some(), "{field}");
    }
}

#[test]
fn enums_have_the_values_of_the_options() {
    let (resolve, package) = package();
    let sessions = interface(&resolve, package, "sessions");
    let desired_state = interface(&resolve, package, "desired-state");
    assert_eq!(names(kind(&resolve, desired_state, "state")), State::VARIANTS);
    assert_eq!(names(kind(&resolve, desired_state, "on-mismatch")), OnMismatch::VARIANTS);
    assert_eq!(names(kind(&resolve, sessions, "behavior")), Behavior::VARIANTS);
    assert_eq!(names(kind(&resolve, sessions, "scheme")), Scheme::VARIANTS);
}

/// Returns one error kind of each case, in the order of the type. The `match` does not compile
/// without a new case, which must then be added to the list.
pub fn every_case() -> Vec<ErrorKind> {
    let all = vec![
        ErrorKind::InvalidOption { option: "id".into() },
        ErrorKind::Unsupported,
        ErrorKind::NotFound,
        ErrorKind::Mismatch { session_id: String::new(), differences: Vec::new() },
        ErrorKind::NodeRequired { nodes: Vec::new() },
        ErrorKind::Hidden,
        ErrorKind::UnknownNode,
        ErrorKind::UnknownCheck,
        ErrorKind::CriticalCheck,
        ErrorKind::UnknownDatacenter,
        ErrorKind::AccessDenied { status: 403 },
        ErrorKind::Unavailable { status: 500 },
        ErrorKind::Refused { status: 400 },
        ErrorKind::Unreachable,
        ErrorKind::DeniedByHost,
        ErrorKind::Tls,
        ErrorKind::Timeout,
        ErrorKind::InvalidResponse,
        ErrorKind::ResponseTooLarge,
        ErrorKind::OutcomeUnknown,
        ErrorKind::Other,
    ];
    for case in &all {
        match case {
            ErrorKind::InvalidOption { .. } | ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Mismatch { .. } => {}
            ErrorKind::NodeRequired { .. }
            | ErrorKind::Hidden
            | ErrorKind::UnknownNode
            | ErrorKind::UnknownCheck
            | ErrorKind::CriticalCheck => {}
            ErrorKind::UnknownDatacenter
            | ErrorKind::AccessDenied { .. }
            | ErrorKind::Unavailable { .. }
            | ErrorKind::Refused { .. } => {}
            ErrorKind::Unreachable
            | ErrorKind::DeniedByHost
            | ErrorKind::Tls
            | ErrorKind::Timeout
            | ErrorKind::InvalidResponse => {}
            ErrorKind::ResponseTooLarge | ErrorKind::OutcomeUnknown | ErrorKind::Other => {}
        }
    }
    all
}

#[test]
fn variant_error_has_the_cases_of_the_core() {
    let (resolve, package) = package();
    let sessions = interface(&resolve, package, "sessions");
    let core: Vec<&str> = every_case().iter().map(ErrorKind::name).collect();
    assert_eq!(names(kind(&resolve, sessions, "error")), core);
}

/// The transport lists the names of the codes, which are not available in Rust.
#[test]
fn transport_names_the_error_codes_of_wasi_http() {
    let source = include_str!("../../src/component/wasi_http.rs");
    let (resolve, _) = package();
    let (_, types) = resolve.interfaces.iter().find(|(_, it)| it.types.contains_key("error-code")).unwrap();
    let TypeDefKind::Variant(codes) = kind(&resolve, types, "error-code") else { panic!("not a variant") };
    for case in &codes.cases {
        let payload = if case.ty.is_some() { "(_)" } else { "" };
        let arm = format!("        ErrorCode::{}{payload} => \"{}\",\n", camel(&case.name), case.name);
        assert!(source.contains(&arm), "{arm}");
    }
}

/// Converts `create-options` to `CreateOptions`.
fn camel(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..].to_lowercase()).collect()
}

#[test]
fn every_item_has_a_description_and_a_since_attribute() {
    let (resolve, package) = package();
    let mut missing = Vec::new();
    let mut count = 0;
    let mut check = |name: String, docs: &Docs, stability: Option<&Stability>| {
        count += 1;
        if docs.contents.as_deref().unwrap_or_default().trim().is_empty() {
            missing.push(format!("{name}: no description"));
        }
        if !matches!(stability, None | Some(Stability::Stable { .. })) {
            missing.push(format!("{name}: no @since"));
        }
    };
    let ours = &resolve.packages[package];
    check("package".into(), &ours.docs, None);
    for (name, world) in &ours.worlds {
        let world = &resolve.worlds[*world];
        check(name.clone(), &world.docs, Some(&world.stability));
    }
    for (name, &id) in &ours.interfaces {
        let interface = &resolve.interfaces[id];
        check(name.clone(), &interface.docs, Some(&interface.stability));
        for (function_name, function) in &interface.functions {
            check(format!("{name}.{function_name}"), &function.docs, Some(&function.stability));
        }
        for (type_name, &type_id) in &interface.types {
            let definition = &resolve.types[type_id];
            if is_use(&resolve, definition) {
                continue;
            }
            let name = format!("{name}.{type_name}");
            check(name.clone(), &definition.docs, Some(&definition.stability));
            for (part, docs) in parts(&definition.kind) {
                check(format!("{name}.{part}"), docs, None);
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(count > 100, "only {count} items were checked");
}

/// Returns whether this is only a `use` of another interface's type.
fn is_use(resolve: &Resolve, definition: &TypeDef) -> bool {
    matches!(definition.kind, TypeDefKind::Type(Type::Id(other)) if resolve.types[other].owner != definition.owner)
}
