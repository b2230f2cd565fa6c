//! The bodies that register and deregister nodes, services and checks. Consul reads them strictly: an
//! unknown field is an error.

use crate::go::{self, Object, unknown_field};
use crate::kv::Undecoded;
use crate::state::{Check, Registration, Service};
use serde_json::Value;

/// Decodes the body of `/v1/catalog/register`.
///
/// # Errors
///
/// The text that Consul writes after `Request decode failed: `, or what this agent lacks.
pub fn registration(body: &[u8]) -> Result<Registration, Undecoded> {
    let mut read = Registration::default();
    let mut token = String::new();
    let mut strings = [
        ("ID", &mut read.id),
        ("Node", &mut read.node),
        ("Address", &mut read.address),
        ("Datacenter", &mut read.datacenter),
        ("Token", &mut token),
    ];
    let object = Object::read(body, "structs.RegisterRequest")?;
    object.read_into::<Undecoded>("RegisterRequest", &mut strings, |field, value| {
        let path = |name: &str| format!("RegisterRequest.{name}");
        match (field.to_ascii_lowercase().as_str(), value) {
            ("taggedaddresses", value) => read.tagged_addresses = go::string_map(value, &path("TaggedAddresses"))?,
            ("nodemeta", value) => read.meta = go::string_map(value, &path("NodeMeta"))?,
            ("skipnodeupdate", value) => read.skip_node_update = go::boolean(&value, &path("SkipNodeUpdate"))?,
            ("service" | "check" | "checks", Value::Null) => {}
            ("service", value) => read.service = Some(service(value)?),
            ("check", value) => read.checks.push(check(value, "Check")?),
            ("checks", Value::Array(values)) => {
                for value in values {
                    read.checks.push(check(value, "Checks")?);
                }
            }
            ("checks", value) => return Err(go::mismatch(&value, &path("Checks"), "structs.HealthChecks").into()),
            (name @ ("createindex" | "modifyindex"), value) => raft_index(name, &value, "RegisterRequest")?,
            (name @ ("locality" | "peername"), value) => lacking(name, &value, "nodes")?,
            _ => return unknown_field(field),
        }
        Ok(())
    })?;
    Ok(read)
}

fn service(value: Value) -> Result<Service, Undecoded> {
    let Value::Object(fields) = value else {
        return Err(go::mismatch(&value, "RegisterRequest.Service", "structs.NodeService").into());
    };
    let (mut service, mut socket_path) = (Service::default(), String::new());
    let mut strings = [
        ("ID", &mut service.id),
        ("Service", &mut service.name),
        ("Address", &mut service.address),
        ("SocketPath", &mut socket_path),
    ];
    Object::from(fields).read_into::<Undecoded>("NodeService.Service", &mut strings, |field, value| {
        let path = |name: &str| format!("NodeService.Service.{name}");
        match (field.to_ascii_lowercase().as_str(), value) {
            ("tags", value) => service.tags = go::strings(value, &path("Tags"), "string")?.unwrap_or_default(),
            // No answer of this agent shows these.
            ("port", value) => drop(go::int(&value, &path("Port"))?),
            ("enabletagoverride", value) => drop(go::boolean(&value, &path("EnableTagOverride"))?),
            ("meta", value) => drop(go::string_map(value, &path("Meta"))?),
            ("weights" | "taggedaddresses", Value::Null | Value::Object(_)) => {}
            ("weights", value) => return Err(go::mismatch(&value, &path("Weights"), "structs.Weights").into()),
            ("taggedaddresses", value) => {
                let go_type = "map[string]structs.ServiceAddress";
                return Err(go::mismatch(&value, &path("TaggedAddresses"), go_type).into());
            }
            (name @ ("createindex" | "modifyindex"), value) => raft_index(name, &value, "NodeService.Service")?,
            (name @ ("kind" | "proxy" | "connect" | "locality" | "peername" | "ports"), value) => {
                lacking(name, &value, "services")?;
            }
            _ => return unknown_field(field),
        }
        Ok(())
    })?;
    if service.id.is_empty() {
        service.id = service.name.clone();
    }
    Ok(service)
}

/// Decodes a check in the field `list`.
fn check(value: Value, list: &str) -> Result<Check, Undecoded> {
    let Value::Object(fields) = value else {
        return Err(go::mismatch(&value, &format!("RegisterRequest.{list}"), "structs.HealthCheck").into());
    };
    let mut check = Check::default();
    let mut strings = [
        ("Node", &mut check.node),
        ("CheckID", &mut check.id),
        ("Name", &mut check.name),
        ("Status", &mut check.status),
        ("Notes", &mut check.notes),
        ("Output", &mut check.output),
        ("ServiceID", &mut check.service_id),
        ("ServiceName", &mut check.service_name),
        ("Type", &mut check.kind),
        ("Interval", &mut check.interval),
        ("Timeout", &mut check.timeout),
    ];
    let prefix = format!("HealthCheck.{list}");
    Object::from(fields).read_into::<Undecoded>(&prefix, &mut strings, |field, value| {
        let path = |name: &str| format!("{prefix}.{name}");
        match (field.to_ascii_lowercase().as_str(), value) {
            ("servicetags", value) => {
                check.service_tags = go::strings(value, &path("ServiceTags"), "string")?.unwrap_or_default();
            }
            ("exposedport", value) => check.exposed_port = go::int(&value, &path("ExposedPort"))?,
            ("definition", Value::Null) => {}
            ("definition", Value::Object(definition)) => {
                for (name, value) in definition {
                    lacking(&name, &value, "the definitions of checks")?;
                }
            }
            ("definition", value) => {
                let go_type = "struct { Interval interface {}; Timeout interface {}; \
                               DeregisterCriticalServiceAfter interface {}; TTL interface {}; *structs.Alias }";
                return Err(go::mismatch(&value, &path("Definition"), go_type).into());
            }
            (name @ ("createindex" | "modifyindex"), value) => raft_index(name, &value, &prefix)?,
            (name @ "peername", value) => lacking(name, &value, "checks")?,
            _ => return unknown_field(field),
        }
        Ok(())
    })?;
    if check.id.is_empty() {
        check.id = check.name.clone();
    }
    Ok(check)
}

/// Checks an index, which Consul reads and then sets itself.
fn raft_index(name: &str, value: &Value, path: &str) -> Result<(), String> {
    let name = if name == "createindex" { "CreateIndex" } else { "ModifyIndex" };
    go::uint64(value, &format!("{path}.RaftIndex.{name}")).map(drop)
}

/// Accepts a field that this agent lacks if it has no effect, as where Go's client sends all fields.
fn lacking(name: &str, value: &Value, of: &str) -> Result<(), Undecoded> {
    let is_zero = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    };
    if is_zero { Ok(()) } else { Err(Undecoded::Lacking(format!("the field {name} of {of}"))) }
}

/// The body of `/v1/catalog/deregister`: it removes `service`, else `check`, else the whole node.
#[derive(Default)]
pub struct Deregistration {
    pub node: String,
    pub service: String,
    pub check: String,
    pub datacenter: String,
}

/// Decodes the body of `/v1/catalog/deregister`.
///
/// # Errors
///
/// The text that Consul writes after `Request decode failed: `.
pub fn deregistration(body: &[u8]) -> Result<Deregistration, String> {
    let mut read = Deregistration::default();
    // Consul reads the address and ignores it.
    let (mut address, mut token) = (String::new(), String::new());
    let mut strings = [
        ("Node", &mut read.node),
        ("Address", &mut address),
        ("ServiceID", &mut read.service),
        ("CheckID", &mut read.check),
        ("Datacenter", &mut read.datacenter),
        ("Token", &mut token),
    ];
    let object = Object::read(body, "struct { Address string; *structs.Alias }")?;
    object.read_into::<String>(".Alias", &mut strings, |field, _| unknown_field(field))?;
    Ok(read)
}

/// The other fields of a check that an agent runs, in lower case.
const OTHER_CHECKS: &[&str] = &[
    "aliasnode",
    "aliasservice",
    "body",
    "deregistercriticalserviceafter",
    "disableredirects",
    "dockercontainerid",
    "failuresbeforecritical",
    "failuresbeforewarning",
    "grpc",
    "grpcusetls",
    "h2ping",
    "h2pingusetls",
    "header",
    "http",
    "interval",
    "method",
    "osservice",
    "outputmaxsize",
    "scriptargs",
    "serviceid",
    "shell",
    "successbeforepassing",
    "tcp",
    "tcpusetls",
    "timeout",
    "tlsservername",
    "tlsskipverify",
    "udp",
];

/// Decodes the body of `/v1/agent/check/register`, a TTL check of `own_node`.
///
/// # Errors
///
/// The whole text of Consul's answer, or what this agent lacks.
pub fn agent_check(body: &[u8], own_node: &str) -> Result<Check, Undecoded> {
    let mut check = Check { node: own_node.into(), kind: "ttl".into(), ..Check::default() };
    (check.interval, check.timeout) = ("0s".into(), "0s".into());
    let (mut ttl, mut token) = (0, String::new());
    let mut strings = [
        ("ID", &mut check.id),
        ("Name", &mut check.name),
        ("Status", &mut check.status),
        ("Notes", &mut check.notes),
        ("Token", &mut token),
    ];
    let object = Object::read(body, "structs.CheckDefinition").map_err(Undecoded::from);
    let read = object.and_then(|object| {
        object.read_into::<Undecoded>(".Alias", &mut strings, |field, value| {
            match (field.to_ascii_lowercase().as_str(), value) {
                ("ttl", Value::String(text)) => ttl = go::duration(&text)?,
                ("ttl", value) => ttl = value.as_i64().unwrap_or(0),
                (name, value) if OTHER_CHECKS.contains(&name) => lacking(name, &value, "an agent's checks")?,
                _ => return unknown_field(field),
            }
            Ok(())
        })
    });
    read.map_err(|error| match error {
        Undecoded::Body(text) => Undecoded::Body(format!("Request decode failed: {text}")),
        lacking => lacking,
    })?;
    let refused = |text: &str| Err(text.to_owned().into());
    if check.name.is_empty() {
        return refused("Missing check name");
    }
    if !["", "passing", "warning", "critical"].contains(&check.status.as_str()) {
        return refused("Bad check status");
    }
    if ttl <= 0 {
        return refused("Invalid check: TTL must be > 0 for TTL checks");
    }
    if check.id.is_empty() {
        check.id = check.name.clone();
    }
    Ok(check)
}
