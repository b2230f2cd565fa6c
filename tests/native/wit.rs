//! The WIT package and the core say the same.

use consul_session::error::Case;
use consul_session::options::{self, Behavior, OnMismatch, Scheme, State};
use std::path::Path;
use wit_parser::abi::AbiVariant;
use wit_parser::{Docs, Handle, Interface, PackageId, Resolve, Stability, Type, TypeDef, TypeDefKind};

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

/// The names of a record's fields, an enum's or a variant's cases.
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
fn the_record_options_has_the_options_of_the_table() {
    let (resolve, package) = package();
    let desired_state = interface(&resolve, package, "desired-state");
    let record: Vec<String> =
        names(kind(&resolve, desired_state, "options")).iter().map(|name| name.replace('-', "_")).collect();
    let table: Vec<&str> = options::TABLE.iter().map(|info| info.name).collect();
    assert_eq!(record, table);
}

#[test]
fn each_field_of_a_connection_and_of_a_query_is_an_option_or_an_argument() {
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
fn enums_have_the_words_of_the_page() {
    let (resolve, package) = package();
    let sessions = interface(&resolve, package, "sessions");
    let desired_state = interface(&resolve, package, "desired-state");
    assert_eq!(names(kind(&resolve, desired_state, "state")), State::NAMES);
    assert_eq!(names(kind(&resolve, desired_state, "on-mismatch")), OnMismatch::NAMES);
    assert_eq!(names(kind(&resolve, sessions, "behavior")), Behavior::NAMES);
    assert_eq!(names(kind(&resolve, sessions, "scheme")), Scheme::NAMES);
}

/// One of each case, in the order of the type. A new case does not compile here before it is in the list.
pub fn every_case() -> Vec<Case> {
    let all = vec![
        Case::InvalidOption { option: "id".into() },
        Case::Unsupported,
        Case::NotFound,
        Case::Mismatch { session_id: String::new(), differences: Vec::new() },
        Case::NodeRequired { nodes: Vec::new() },
        Case::Hidden,
        Case::UnknownNode,
        Case::UnknownCheck,
        Case::CriticalCheck,
        Case::UnknownDatacenter,
        Case::AccessDenied { status: 403 },
        Case::Unavailable { status: 500 },
        Case::Refused { status: 400 },
        Case::Unreachable,
        Case::DeniedByHost,
        Case::Tls,
        Case::Timeout,
        Case::InvalidResponse,
        Case::ResponseTooLarge,
        Case::OutcomeUnknown,
        Case::Other,
    ];
    for case in &all {
        match case {
            Case::InvalidOption { .. } | Case::Unsupported | Case::NotFound | Case::Mismatch { .. } => {}
            Case::NodeRequired { .. } | Case::Hidden | Case::UnknownNode | Case::UnknownCheck | Case::CriticalCheck => {}
            Case::UnknownDatacenter | Case::AccessDenied { .. } | Case::Unavailable { .. } | Case::Refused { .. } => {}
            Case::Unreachable | Case::DeniedByHost | Case::Tls | Case::Timeout | Case::InvalidResponse => {}
            Case::ResponseTooLarge | Case::OutcomeUnknown | Case::Other => {}
        }
    }
    all
}

#[test]
fn the_variant_error_has_the_cases_of_the_core() {
    let (resolve, package) = package();
    let sessions = interface(&resolve, package, "sessions");
    let core: Vec<&str> = every_case().iter().map(Case::name).collect();
    assert_eq!(names(kind(&resolve, sessions, "error")), core);
}

/// The plugin's types have to lie in memory as the host writes and reads them, which nothing checks when they are compiled.
#[test]
fn the_plugins_types_are_those_of_the_interfaces() {
    let source = concat!(
        include_str!("../../src/component/types.rs"),
        include_str!("../../src/session.rs"),
        include_str!("../../src/lock.rs")
    );
    let (resolve, package) = package();
    let (mut missing, mut count) = (Vec::new(), 0);
    // Functions with the same arguments share a type.
    let mut arguments: Vec<(String, &str)> = Vec::new();
    for interface in ["sessions", "desired-state", "locks"].map(|name| interface(&resolve, package, name)) {
        let types = interface.types.values().map(|&id| &resolve.types[id]).filter(|definition| !is_use(&resolve, definition));
        let functions = interface.functions.values().filter(|function| function.name != "apply-json");
        let items = types.filter_map(|definition| item(&resolve, definition)).chain(functions.map(|function| {
            let fields = function.params.iter().map(|param| (param.name.as_str(), &param.ty));
            let body = record(&resolve, "x", fields.clone());
            if let Some((_, same)) = arguments.iter().find(|(known, _)| *known == body) {
                return format!("\npub type {}Arguments = {}Arguments;\n", camel(&function.name), camel(same));
            }
            arguments.push((body, &function.name));
            record(&resolve, &format!("{}-arguments", function.name), fields)
        }));
        for item in items {
            count += 1;
            if !source.contains(&item) {
                missing.push(item);
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    // `Key` and Base64 are no types of an interface.
    assert_eq!(source.matches("\npub ").count(), count + 2, "there are others");
}

#[test]
fn the_error_codes_are_those_of_wasi_http() {
    let source = include_str!("../../src/component/wasi_http/error_code.rs");
    let (resolve, _) = package();
    let (_, types) = resolve.interfaces.iter().find(|(_, it)| it.types.contains_key("error-code")).unwrap();
    let TypeDefKind::Variant(codes) = kind(&resolve, types, "error-code") else { panic!("no variant") };
    let case = |name: &str, payload: Option<&Type>| {
        let payload = payload.map(|payload| format!("({})", rust(&resolve, payload))).unwrap_or_default();
        format!("    {}{payload} = \"{name}\",\n", camel(name))
    };
    let cases: String = codes.cases.iter().map(|it| case(&it.name, it.ty.as_ref())).collect();
    let payloads = ["DNS-error-payload", "TLS-alert-received-payload", "field-size-payload"];
    let payloads = payloads.map(|name| item(&resolve, &resolve.types[types.types[name]]).unwrap());
    for expected in [format!("\nerror_codes! {{\n{cases}}}\n")].iter().chain(&payloads) {
        assert!(source.contains(expected), "{expected}");
    }
}

/// What a function takes `wit-component` compares when the component is built; what the host writes for an answer, nothing does.
#[test]
fn the_imports_answer_as_their_interfaces_say() {
    let source = include_str!("../../src/component/wasi_http/imports.rs");
    let (resolve, _) = package();
    let interface = |name: &str| resolve.interfaces.iter().find(|(_, it)| it.name.as_deref() == Some(name)).unwrap().1;
    let mut missing = Vec::new();

    let mut functions = 0;
    for block in source.split("#[link(wasm_import_module = \"wasi:").skip(1).filter(|block| !block.starts_with("$")) {
        let (_, name) = block.split('@').next().unwrap().split_once('/').unwrap();
        for declaration in block.split("#[link_name = \"").skip(1) {
            functions += 1;
            let (function, declaration) = declaration.split_once("\"]").unwrap();
            let function = &interface(name).functions[function];
            let of = function.result.as_ref().unwrap();
            let answer = match &resolve.types.iter().find(|(id, _)| *of == Type::Id(*id)).map(|(_, it)| &it.kind) {
                _ if resolve.wasm_signature(AbiVariant::GuestImport, function).retptr => {
                    format!("answer: *mut {}", rust(&resolve, of))
                }
                Some(TypeDefKind::Handle(_)) => format!("-> {};", rust(&resolve, of)),
                _ => "-> u32;".into(),
            };
            let declaration = &declaration[..=declaration.find(';').unwrap()];
            let ends = [format!("{answer});"), format!("{answer},\n    );")];
            if !declaration.ends_with(&answer) && !ends.iter().any(|end| declaration.ends_with(end)) {
                missing.push(format!("{}: {answer}", function.name));
            }
        }
    }

    for (name, item_name) in
        [("types", "field-value"), ("types", "headers"), ("types", "header-error"), ("streams", "stream-error")]
    {
        let item = item(&resolve, &resolve.types[interface(name).types[item_name]]).unwrap();
        // Rust has no `C` for an enum without payloads.
        let item = if item_name == "header-error" { item.replace("(C, u8)", "(u8)") } else { item };
        if !source.contains(&item) {
            missing.push(item);
        }
    }

    let mut cases = 0;
    for variant in ["method", "scheme"] {
        for (place, case) in names(kind(&resolve, interface("types"), variant)).into_iter().enumerate() {
            let name = format!("pub const {}_{}: u32 = ", variant.to_uppercase(), case.to_uppercase());
            cases += usize::from(source.contains(&format!("{name}{place};\n")));
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(functions > 20, "only {functions} functions were looked at");
    assert_eq!(cases, source.matches("pub const ").count());
}

/// A type of WIT in Rust; `None` for an enum that has the words of an option.
fn item(resolve: &Resolve, definition: &TypeDef) -> Option<String> {
    let name = definition.name.as_deref().unwrap();
    Some(match &definition.kind {
        TypeDefKind::Record(it) => record(resolve, name, it.fields.iter().map(|field| (field.name.as_str(), &field.ty))),
        TypeDefKind::Variant(variant) => {
            let payload = |it: &Type| format!("({})", rust(resolve, it));
            let case = |it: &wit_parser::Case| {
                format!("    {}{},\n", camel(&it.name), it.ty.as_ref().map(payload).unwrap_or_default())
            };
            let cases: String = variant.cases.iter().map(case).collect();
            format!("\n#[repr(C, u8)]\npub enum {} {{\n{cases}}}\n", camel(name))
        }
        TypeDefKind::Enum(_) if ["behavior", "on-mismatch", "scheme", "state"].contains(&name) => return None,
        TypeDefKind::Enum(it) => {
            let cases: String = it.cases.iter().map(|case| format!("    {},\n", camel(&case.name))).collect();
            format!("\n#[repr(u8)]\npub enum {} {{\n{cases}}}\n", camel(name))
        }
        TypeDefKind::Type(of) => format!("\npub type {} = {};\n", camel(name), rust(resolve, of)),
        TypeDefKind::List(of) => format!("\npub type {} = List<{}>;\n", camel(name), rust(resolve, of)),
        other => panic!("{name}: {other:?}"),
    })
}

fn record<'a>(resolve: &Resolve, name: &str, fields: impl Iterator<Item = (&'a str, &'a Type)>) -> String {
    let fields: String =
        fields.map(|(name, of)| format!("    pub {}: {},\n", name.replace('-', "_"), rust(resolve, of))).collect();
    format!("\n#[repr(C)]\npub struct {} {{\n{fields}}}\n", camel(name))
}

fn rust(resolve: &Resolve, of: &Type) -> String {
    match of {
        Type::Bool => "bool".into(),
        Type::U8 => "u8".into(),
        Type::U16 => "u16".into(),
        Type::U32 => "u32".into(),
        Type::U64 => "u64".into(),
        Type::S64 => "i64".into(),
        Type::F64 => "f64".into(),
        Type::String => "Text".into(),
        Type::Id(id) => match (&resolve.types[*id].name, &resolve.types[*id].kind) {
            (Some(name), _) => camel(name),
            (None, TypeDefKind::Option(of)) => format!("Maybe<{}>", rust(resolve, of)),
            (None, TypeDefKind::List(of)) => format!("List<{}>", rust(resolve, of)),
            (None, TypeDefKind::Handle(Handle::Own(of))) => rust(resolve, &Type::Id(*of)),
            (None, TypeDefKind::Result(of)) => {
                let part = |of: &Option<Type>| of.as_ref().map_or("()".into(), |of| rust(resolve, of));
                format!("Answer<{}, {}>", part(&of.ok), part(&of.err))
            }
            (None, other) => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// `create-options` as `CreateOptions`.
fn camel(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..].to_lowercase()).collect()
}

#[test]
fn every_item_is_described_and_says_since_when() {
    let (resolve, package) = package();
    let mut lacking = Vec::new();
    let mut count = 0;
    let mut check = |name: String, docs: &Docs, stability: Option<&Stability>| {
        count += 1;
        if docs.contents.as_deref().unwrap_or_default().trim().is_empty() {
            lacking.push(format!("{name}: no description"));
        }
        if !matches!(stability, None | Some(Stability::Stable { .. })) {
            lacking.push(format!("{name}: no @since"));
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
    assert_eq!(lacking, [""; 0]);
    assert!(count > 100, "only {count} items were looked at");
}

/// Whether this is only `use` of another interface's type.
fn is_use(resolve: &Resolve, definition: &TypeDef) -> bool {
    matches!(definition.kind, TypeDefKind::Type(Type::Id(other)) if resolve.types[other].owner != definition.owner)
}
