//! `examples/wasmcloud` in wasmCloud's host, against a real Consul.

use anyhow::{Context, Result, ensure};
use consul_session_publish::{Destination, publish};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Barrier;
use test_support::consul::{Consul, Kind};
use test_support::registry::{Registry, release};
use test_support::unused_address;
use test_support::wash::{Plugin, Wash};

/// Starts the example on a new agent, whose authority alone the plugin may connect to.
fn start(plugin: &Plugin) -> Result<(Consul, Wash)> {
    let consul = Consul::start(Kind::Plain)?;
    let wash = Wash::start(plugin, &[&format!("http://localhost:{}", consul.http().port())])?;
    Ok((consul, wash))
}

/// Sends options, and returns the status and the JSON of the answer.
fn apply(wash: &Wash, options: &Value) -> Result<(u16, Value)> {
    let (status, text) = wash.apply(&options.to_string())?;
    Ok((status, serde_json::from_str(&text).context(text)?))
}

#[test]
fn authorities_outside_the_allow_list_are_denied_by_the_host() -> Result<()> {
    let (consul, wash) = start(&Plugin::File)?;
    let port = consul.http().port();
    let (status, outcome) = apply(&wash, &json!({"name": "web", "port": port}))?;
    assert_eq!((status, &outcome["changed"]), (200, &json!(true)), "{outcome}");
    let others = [
        json!({"host": "127.0.0.1", "port": port}),
        json!({"host": "localhost", "port": unused_address()?.port()}),
        json!({"scheme": "https", "port": port}),
        json!({"host": "consul.example", "port": port}),
    ];
    for options in others {
        let (status, error) = apply(&wash, &options)?;
        assert_eq!((status, &error["tag"]), (422, &json!("denied-by-host")), "{options}: {error}");
    }
    assert_eq!(consul.api().sessions()?.len(), 1);
    Ok(())
}

#[test]
fn racing_callers_get_one_session_and_one_change() -> Result<()> {
    const CALLERS: usize = 50;
    let (consul, wash) = start(&Plugin::File)?;
    let (options, barrier) = (json!({"name": "web", "port": consul.http().port()}), Barrier::new(CALLERS));
    let outcomes = std::thread::scope(|scope| {
        let call = || {
            barrier.wait();
            let (status, outcome) = apply(&wash, &options)?;
            ensure!(status == 200, "{outcome}");
            Ok(outcome)
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller that does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let ids: BTreeSet<&str> = outcomes.iter().filter_map(|outcome| outcome["session_id"].as_str()).collect();
    let changed = outcomes.iter().filter(|outcome| outcome["changed"] == true).count();
    assert_eq!((ids.len(), changed), (1, 1), "{outcomes:#?}");
    let sessions = consul.api().sessions()?;
    assert!(sessions.len() == 1 && ids.contains(sessions[0]["ID"].as_str().unwrap_or_default()), "{sessions:?}");
    Ok(())
}

#[test]
fn plugin_from_a_registry_is_linked() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    let published = publish(release.path(), &Destination::new(&registry.address().to_string(), true)?)?;
    let plugin = published.iter().find(|one| one.reference.contains("/consul-session/plugin:")).context("no plugin")?;
    // By the tag, and by the digest that `publish` prints.
    let (repository, _) = plugin.reference.rsplit_once(':').context("no tag")?;
    for image in [plugin.reference.clone(), format!("{repository}@{}", plugin.digest)] {
        let (consul, wash) = start(&Plugin::Image(image.clone()))?;
        let (status, outcome) = apply(&wash, &json!({"name": "web", "port": consul.http().port()}))?;
        assert_eq!((status, &outcome["changed"]), (200, &json!(true)), "{image}: {outcome}");
        assert_eq!(consul.api().sessions()?.len(), 1);
    }
    Ok(())
}
