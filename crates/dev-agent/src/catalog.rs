//! The bodies that register and deregister nodes and checks. Consul reads them strictly: an unknown
//! field is an error.

use crate::go::{self, Object, unknown_field};
use crate::state::{Check, Registration};
use serde_json::Value;

/// Decodes the body of `/v1/catalog/register`, without services.
///
/// # Errors
///
/// The text that Consul writes after `Request decode failed: `.
pub fn registration(body: &[u8]) -> Result<Registration, String> {
    let mut read = Registration::default();
    let mut strings =
        [("ID", &mut read.id), ("Node", &mut read.node), ("Address", &mut read.address), ("Datacenter", &mut read.datacenter)];
    let object = Object::read(body, "structs.RegisterRequest")?;
    object.read_into("RegisterRequest", &mut strings, |field, value| {
        match (field.to_ascii_lowercase().as_str(), value) {
            ("check" | "checks", Value::Null) => {}
            ("check", value) => read.checks.push(check(value)?),
            ("checks", Value::Array(values)) => {
                for value in values {
                    read.checks.push(check(value)?);
                }
            }
            ("checks", value) => return Err(go::mismatch(&value, "RegisterRequest.Checks", "structs.HealthChecks")),
            _ => return unknown_field(field),
        }
        Ok(())
    })?;
    Ok(read)
}

fn check(value: Value) -> Result<Check, String> {
    let Value::Object(fields) = value else {
        return Err(go::mismatch(&value, "RegisterRequest.Check", "structs.HealthCheck"));
    };
    let mut check = Check::default();
    let mut strings = [
        ("Node", &mut check.node),
        ("CheckID", &mut check.id),
        ("Name", &mut check.name),
        ("Status", &mut check.status),
        ("Notes", &mut check.notes),
        ("Output", &mut check.output),
    ];
    Object::from(fields).read_into("RegisterRequest.Check", &mut strings, |field, _| unknown_field(field))?;
    Ok(check)
}

/// The body of `/v1/catalog/deregister`: it removes `check`, or the whole node if `check` is empty.
#[derive(Default)]
pub struct Deregistration {
    pub node: String,
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
    let mut strings = [("Node", &mut read.node), ("CheckID", &mut read.check), ("Datacenter", &mut read.datacenter)];
    let object = Object::read(body, "structs.DeregisterRequest")?;
    object.read_into("DeregisterRequest", &mut strings, |field, _| unknown_field(field))?;
    Ok(read)
}

/// Decodes the body of `/v1/agent/check/register`, a TTL check of `own_node`.
///
/// # Errors
///
/// The whole text of Consul's answer.
pub fn agent_check(body: &[u8], own_node: &str) -> Result<Check, String> {
    let mut check = Check { node: own_node.into(), kind: "ttl".into(), ..Check::default() };
    (check.interval, check.timeout) = ("0s".into(), "0s".into());
    let mut ttl = 0;
    let mut strings =
        [("ID", &mut check.id), ("Name", &mut check.name), ("Status", &mut check.status), ("Notes", &mut check.notes)];
    let object = Object::read(body, "structs.CheckDefinition");
    let read = object.and_then(|object| {
        object.read_into(".Alias", &mut strings, |field, value| {
            match (field.to_ascii_lowercase().as_str(), value) {
                ("ttl", Value::String(text)) => ttl = go::duration(&text)?,
                ("ttl", value) => ttl = value.as_i64().unwrap_or(0),
                _ => return unknown_field(field),
            }
            Ok(())
        })
    });
    read.map_err(|error| format!("Request decode failed: {error}"))?;
    if check.name.is_empty() {
        return Err("Missing check name".into());
    }
    if !["", "passing", "warning", "critical"].contains(&check.status.as_str()) {
        return Err("Bad check status".into());
    }
    if ttl <= 0 {
        return Err("Invalid check: TTL must be > 0 for TTL checks".into());
    }
    if check.id.is_empty() {
        check.id = check.name.clone();
    }
    Ok(check)
}
