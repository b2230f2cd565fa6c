//! The exported functions of the component, with generated values.

use crate::component::{Component, reply};
use arbitrary::{Result, Unstructured};
use consul_session_host::{
    Behavior, Connection, Consistency, Contents, CreateOptions, OnMismatch, Options, Query, Scheme, State,
};

/// Calls one of the exported functions with arguments from the bytes, half of them plausible. Its
/// requests get `[]`. It never traps.
pub fn wit_values(data: &[u8]) {
    let replies = ["[]", "[]", "true", "[]", "[]", "[]"].map(reply);
    let component = Component::with(replies);
    // Bytes that end early choose nothing more.
    let _ = call(&component, &mut Unstructured::new(data));
}

fn call(component: &Component, u: &mut Unstructured) -> Result<()> {
    let number = u.int_in_range(0..=13)?;
    let connection = optional(u, |u| connection(component, u))?;
    let connection = connection.as_ref();
    match number {
        0 => {
            let options = options(component, u)?;
            component.call(|host| async move { host.apply(&options).await }).map(drop)
        }
        1 => {
            let json = text(u)?;
            component.call(|host| async move { host.apply_json(&json).await }).map(drop)
        }
        2 => {
            let options = CreateOptions {
                name: optional(u, text)?,
                node: optional(u, text)?,
                lock_delay: optional(u, seconds)?,
                behavior: optional(u, behavior)?,
                ttl: optional(u, seconds)?,
                node_checks: optional(u, texts)?,
                service_checks: optional(u, texts)?,
            };
            component.call(|host| async move { host.create(&options, connection).await }).map(drop)
        }
        3 => {
            let id = text(u)?;
            component.call(|host| async move { host.destroy(&id, connection).await }).map(drop)
        }
        4 => {
            let id = text(u)?;
            component.call(|host| async move { host.renew(&id, connection).await }).map(drop)
        }
        5 => {
            let (id, query) = (text(u)?, optional(u, query)?);
            component.call(|host| async move { host.info(&id, query, connection).await }).map(drop)
        }
        6 => {
            let (node, query) = (text(u)?, optional(u, query)?);
            component.call(|host| async move { host.node(&node, query, connection).await }).map(drop)
        }
        7 => {
            let query = optional(u, query)?;
            component.call(|host| async move { host.list_sessions(query, connection).await }).map(drop)
        }
        8 | 9 => {
            let (key, id, contents) = (text(u)?, text(u)?, optional(u, contents)?);
            let contents = contents.as_ref();
            match number {
                8 => component.call(|host| async move { host.acquire(&key, &id, contents, connection).await }).map(drop),
                _ => component.call(|host| async move { host.release(&key, &id, contents, connection).await }).map(drop),
            }
        }
        10 => {
            let (key, query) = (text(u)?, optional(u, query)?);
            component.call(|host| async move { host.holder(&key, query, connection).await }).map(drop)
        }
        11 => {
            let (prefix, id, limit, value) = (text(u)?, text(u)?, u.arbitrary()?, u.arbitrary::<Option<Vec<u8>>>()?);
            let value = value.as_deref();
            component.call(|host| async move { host.acquire_slot(&prefix, &id, limit, value, connection).await }).map(drop)
        }
        12 => {
            let (prefix, id) = (text(u)?, text(u)?);
            component.call(|host| async move { host.release_slot(&prefix, &id, connection).await }).map(drop)
        }
        _ => {
            let (prefix, query) = (text(u)?, optional(u, query)?);
            component.call(|host| async move { host.slot_holders(&prefix, query, connection).await }).map(drop)
        }
    };
    Ok(())
}

fn optional<T>(u: &mut Unstructured, make: impl FnOnce(&mut Unstructured) -> Result<T>) -> Result<Option<T>> {
    if u.arbitrary()? { make(u).map(Some) } else { Ok(None) }
}

fn text(u: &mut Unstructured) -> Result<String> {
    const PLAUSIBLE: [&str; 8] = [
        "adf4238a-882b-9ddc-4a9d-000000000000",
        "web",
        "n1",
        "service/leader",
        "",
        "a/../b",
        "bücher\u{0}",
        r#"{"state": "list"}"#,
    ];
    if u.arbitrary()? { u.choose(&PLAUSIBLE).map(|text| (*text).to_owned()) } else { u.arbitrary() }
}

fn texts(u: &mut Unstructured) -> Result<Vec<String>> {
    let count = u.int_in_range(0..=3)?;
    (0..count).map(|_| text(u)).collect()
}

fn seconds(u: &mut Unstructured) -> Result<f64> {
    if u.arbitrary()? { u.choose(&[0.0, 15.0, 0.5, -1.0, 86_400.0, f64::NAN, f64::INFINITY]).copied() } else { u.arbitrary() }
}

fn behavior(u: &mut Unstructured) -> Result<Behavior> {
    u.choose(&[Behavior::Release, Behavior::Delete]).copied()
}

fn scheme(u: &mut Unstructured) -> Result<Scheme> {
    // Mostly the one that the server speaks.
    u.choose(&[Scheme::Http, Scheme::Http, Scheme::Http, Scheme::Https]).copied()
}

fn contents(u: &mut Unstructured) -> Result<Contents> {
    Ok(Contents { value: u.arbitrary()?, flags: u.arbitrary()? })
}

fn query(u: &mut Unstructured) -> Result<Query> {
    let consistency =
        |u: &mut Unstructured| u.choose(&[Consistency::Default, Consistency::Stale, Consistency::Consistent]).copied();
    Ok(Query { consistency: optional(u, consistency)?, index: u.arbitrary()?, wait: optional(u, seconds)? })
}

/// Returns a host and a port, mostly those of the server.
fn address(component: &Component, u: &mut Unstructured) -> Result<(Option<String>, Option<u16>)> {
    match u.int_in_range(0..=7)? {
        0 => Ok((optional(u, text)?, u.arbitrary()?)),
        _ => Ok((Some("127.0.0.1".into()), Some(component.port()))),
    }
}

/// Returns a timeout: a short one, so that each call ends soon, or one that is not valid.
fn timeout(u: &mut Unstructured) -> Result<Option<f64>> {
    u.choose(&[0.2, 0.05, 0.001, 0.0, -1.0, f64::NAN, 1e300]).copied().map(Some)
}

fn connection(component: &Component, u: &mut Unstructured) -> Result<Connection> {
    let (host, port) = address(component, u)?;
    Ok(Connection {
        host,
        port,
        scheme: optional(u, scheme)?,
        validate_certs: u.arbitrary()?,
        token: optional(u, text)?,
        datacenter: optional(u, text)?,
        namespace: optional(u, text)?,
        partition: optional(u, text)?,
        timeout: timeout(u)?,
    })
}

fn options(component: &Component, u: &mut Unstructured) -> Result<Options> {
    let (host, port) = address(component, u)?;
    let state =
        |u: &mut Unstructured| u.choose(&[State::Present, State::Absent, State::Info, State::Node, State::List]).copied();
    let on_mismatch = |u: &mut Unstructured| u.choose(&[OnMismatch::Fail, OnMismatch::Replace]).copied();
    Ok(Options {
        state: optional(u, state)?,
        id: optional(u, text)?,
        name: optional(u, text)?,
        node: optional(u, text)?,
        datacenter: optional(u, text)?,
        checks: optional(u, texts)?,
        node_checks: optional(u, texts)?,
        service_checks: optional(u, texts)?,
        behavior: optional(u, behavior)?,
        delay: optional(u, seconds)?,
        ttl: optional(u, seconds)?,
        token: optional(u, text)?,
        host,
        port,
        scheme: optional(u, scheme)?,
        validate_certs: u.arbitrary()?,
        timeout: timeout(u)?,
        namespace: optional(u, text)?,
        partition: optional(u, text)?,
        on_mismatch: optional(u, on_mismatch)?,
        dry_run: u.arbitrary()?,
    })
}
