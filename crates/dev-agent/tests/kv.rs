//! The dev agent compared with a real Consul: both give the same answers to the same requests about
//! keys, nodes and checks.

use anyhow::{Context, Result, ensure};
use consul_session_dev_agent::DevAgent;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;
use test_support::api::Api;
use test_support::block_on;
use test_support::consul::{Consul, Kind};

/// Requests about keys in order: a method and a path, and a body. `{a}`, `{b}`, … are the ids of
/// the sessions created so far, and `{index}` is the index of the last answer that has one.
const KEYS: &[(&str, &str)] = &[
    ("PUT /v1/session/create", r#"{"LockDelay":"1s"}"#),
    ("PUT /v1/session/create", r#"{"LockDelay":"0s","Behavior":"delete"}"#),
    // A key that does not exist.
    ("GET /v1/kv/k", ""),
    ("GET /v1/kv/k?index=1&wait=10ms", ""),
    ("DELETE /v1/kv/k", ""),
    // A single key.
    ("PUT /v1/kv/k", "hello"),
    ("GET /v1/kv/k", ""),
    ("GET /v1/kv/k?index={index}&wait=10ms", ""),
    ("GET /v1/kv/other", ""),
    ("PUT /v1/kv/k", "hello"),
    ("GET /v1/kv/k", ""),
    ("PUT /v1/kv/k?flags=7", "hello"),
    ("GET /v1/kv/k", ""),
    ("PUT /v1/kv/k?flags=7", ""),
    ("GET /v1/kv/k", ""),
    // Acquire and release without transactions.
    ("PUT /v1/kv/k?acquire={a}&flags=18446744073709551615", "mine"),
    ("GET /v1/kv/k", ""),
    ("PUT /v1/kv/k?acquire={b}", "mine"),
    ("PUT /v1/kv/k?release={b}", "mine"),
    ("PUT /v1/kv/k", "not mine"),
    ("GET /v1/kv/k", ""),
    ("PUT /v1/kv/k?release={a}", "free"),
    ("GET /v1/kv/k", ""),
    ("PUT /v1/kv/k?release={a}", "free"),
    ("PUT /v1/kv/k?acquire=nope", ""),
    ("PUT /v1/kv/k?acquire=", ""),
    ("PUT /v1/kv/k?release=", ""),
    ("PUT /v1/kv/k?acquire=x&release=y", ""),
    ("PUT /v1/kv/k?flags=x", ""),
    ("PUT /v1/kv/k?flags=", ""),
    ("PUT /v1/kv/k?flags=%2B1", ""),
    ("PUT /v1/kv/k?flags=18446744073709551616", ""),
    ("PUT /v1/kv/k?acquire={a}&cas=0&dc=dc1&x=a+b%2F~", ""),
    ("PUT /v1/kv/k?index=x", ""),
    // Check and set.
    ("PUT /v1/kv/c?cas=7", "no such key"),
    ("PUT /v1/kv/c?cas=0&flags=3", "new"),
    ("PUT /v1/kv/c?cas=0", "not new"),
    ("GET /v1/kv/c", ""),
    ("PUT /v1/kv/c?cas=1", "another index"),
    ("PUT /v1/kv/c?cas={index}", "changed"),
    ("PUT /v1/kv/c?cas={index}", "changed again"),
    ("GET /v1/kv/c", ""),
    ("PUT /v1/kv/c?cas={index}", "changed"),
    ("GET /v1/kv/c", ""),
    ("PUT /v1/kv/c?acquire={a}", "held"),
    ("GET /v1/kv/c", ""),
    ("PUT /v1/kv/c?cas={index}", "without the lock"),
    ("GET /v1/kv/c", ""),
    ("PUT /v1/kv/c?cas=x", ""),
    ("PUT /v1/kv/c?cas=", ""),
    ("DELETE /v1/kv/c?cas=0", ""),
    ("DELETE /v1/kv/c?cas=1", ""),
    ("DELETE /v1/kv/c?cas=x", ""),
    ("DELETE /v1/kv/c?cas=1&recurse", ""),
    ("GET /v1/kv/c", ""),
    ("DELETE /v1/kv/c?cas={index}", ""),
    ("DELETE /v1/kv/c?cas={index}", ""),
    ("DELETE /v1/kv/c?cas=0", ""),
    ("GET /v1/kv/c", ""),
    // All keys with a prefix.
    ("GET /v1/kv/r?recurse", ""),
    ("GET /v1/kv/r?recurse&index=1&wait=10ms", ""),
    ("PUT /v1/kv/r/b", "2"),
    ("PUT /v1/kv/r/a", "1"),
    ("PUT /v1/kv/r/a/c", "3"),
    ("PUT /v1/kv/ra", "4"),
    ("PUT /v1/kv/s", "5"),
    ("GET /v1/kv/r?recurse", ""),
    ("GET /v1/kv/r/?recurse&raw", ""),
    ("GET /v1/kv/r/?recurse=false", ""),
    ("GET /v1/kv/r/?recurse&index={index}&wait=10ms", ""),
    ("GET /v1/kv/?recurse", ""),
    ("GET /v1/kv/r/a?recurse&stale&consistent", ""),
    ("GET /v1/kv/r/a?recurse&dc=nope", ""),
    ("DELETE /v1/kv/r/b", ""),
    ("GET /v1/kv/r/?recurse", ""),
    ("GET /v1/kv/r/b?recurse", ""),
    ("GET /v1/kv/r/a?recurse", ""),
    ("GET /v1/kv/nope?recurse", ""),
    ("DELETE /v1/kv/r/a?recurse", ""),
    ("GET /v1/kv/r/a?recurse", ""),
    ("GET /v1/kv/r/a/c?recurse", ""),
    ("GET /v1/kv/r/?recurse", ""),
    ("GET /v1/kv/r?recurse", ""),
    ("DELETE /v1/kv/nope?recurse", ""),
    ("GET /v1/kv/nope?recurse", ""),
    ("PUT /v1/kv/ra?keys&recurse", "4"),
    ("DELETE /v1/kv/?cas=1", ""),
    ("DELETE /v1/kv/", ""),
    // Transactions of one operation.
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"t/l","Value":"aGk=","Flags":18446744073709551615,"Session":"{a}"}}]"#),
    ("GET /v1/kv/t%2Fl", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"t/l","Value":"aGk=","Flags":18446744073709551615,"Session":"{a}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"t/l","Value":"aGkh","Flags":1,"Session":"{a}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"t/l","Session":"{b}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"t/l","Session":"{b}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"nope","Session":"{b}"}}]"#),
    ("GET /v1/kv/t/l", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"t/l","Value":"aGkh","Flags":1,"Session":"{a}"}}]"#),
    ("GET /v1/kv/t/l", ""),
    ("PUT /v1/txn", r#"[{"kv":{"verb":"lock","KEY":"t/l","Value":"","session":"{b}","Flags":null,"Index":0}}]"#),
    ("GET /v1/kv/t/l", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"t/l","Session":"{b}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"t/l","Session":"nope"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"t/l","Session":""}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"t/l"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"","Session":"{a}"}}]"#),
    // Transactions of several operations: all or nothing.
    (
        "PUT /v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"m","Value":"aGk="}},{"KV":{"Verb":"lock","Key":"m","Value":"aGk=","Session":"{a}"}},
            {"KV":{"Verb":"check-session","Key":"m","Session":"{a}"}},{"KV":{"Verb":"get","Key":"m"}}]"#,
    ),
    (
        "PUT /v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"n","Value":"aGk="}},{"KV":{"Verb":"lock","Key":"m","Session":"{b}"}},
            {"KV":{"Verb":"lock","Key":"n","Session":"x"}},{"KV":{"Verb":"check-session","Key":"m","Session":"{b}"}},
            {"KV":{"Verb":"check-session","Key":"o","Session":"{b}"}},{"KV":{"Verb":"get","Key":"o"}}]"#,
    ),
    ("GET /v1/kv/n", ""),
    (
        "PUT /v1/txn",
        r#"[{"KV":{"Verb":"cas","Key":"x/1","Value":"aGk=","Index":0}},{"KV":{"Verb":"set","Key":"x/2"}},
            {"KV":{"Verb":"delete","Key":"x/2"}},{"KV":{"Verb":"delete-cas","Key":"x/3","Index":5}}]"#,
    ),
    ("GET /v1/kv/x?recurse", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"cas","Key":"x/1"}},{"KV":{"Verb":"delete-cas","Key":"x/1","Index":1}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"cas","Key":"x/1","Index":{index}}},{"KV":{"Verb":"set","Key":"x/2"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"delete-tree","Key":"x/"}}]"#),
    ("GET /v1/kv/x?recurse", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"delete","Key":""}}]"#),
    // Invalid transactions.
    ("PUT /v1/txn", ""),
    ("PUT /v1/txn", "{}"),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock""#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":5}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"k","Value":3}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"k","Flags":"x"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"k","Flags":-1}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"cas","Key":"k","Index":"x"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"k","Value":"%%"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"k","Nope":1}}]"#),
    // Invalid requests.
    ("GET /v1/kv/", ""),
    ("PUT /v1/kv/", ""),
    ("GET /v1/kv/k?index=x", ""),
    ("GET /v1/kv/k?stale&consistent", ""),
    ("GET /v1/kv/k?dc=nope", ""),
    ("PUT /v1/kv/k?dc=nope", ""),
    ("PUT /v1/txn?dc=nope", r#"[{"KV":{"Verb":"set","Key":"k"}}]"#),
    ("PUT /v1/kv/k?ns=x", ""),
    ("POST /v1/kv/k", ""),
    ("OPTIONS /v1/kv/k", ""),
    ("GET /v1/txn", ""),
    ("OPTIONS /v1/txn", ""),
    // The end of a session releases or deletes its keys, and starts its lock delay if it has one.
    ("PUT /v1/kv/d?acquire={b}", "x"),
    ("PUT /v1/session/destroy/{a}", ""),
    ("PUT /v1/session/destroy/{b}", ""),
    ("GET /v1/kv/m", ""),
    ("GET /v1/kv/d", ""),
    ("GET /v1/kv/d?recurse", ""),
    ("PUT /v1/session/create", r#"{"LockDelay":"-5s"}"#),
    ("PUT /v1/kv/m?acquire={c}", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"m","Session":"{c}"}}]"#),
    // Consul checks the lock delay before everything else.
    (
        "PUT /v1/txn",
        r#"[{"KV":{"Verb":"lock","Key":"q","Session":"nope"}},{"KV":{"Verb":"lock","Key":"m","Session":"nope"}},
            {"KV":{"Verb":"lock","Key":"m","Session":""}}]"#,
    ),
    ("PUT /v1/kv/m", "anyone can write"),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"d","Session":"{c}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"d","Session":"{c}"}}]"#),
    ("WAIT", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"m","Session":"{c}"}}]"#),
    // No delay follows a release, nor the end of a session with a negative delay.
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"m","Session":"{c}"}}]"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"m","Session":"{c}"}}]"#),
    ("PUT /v1/session/destroy/{c}", ""),
    ("PUT /v1/session/create", r#"{"LockDelay":"0s"}"#),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"m","Session":"{d}"}}]"#),
    // A deleted key is free, and its lock index starts again.
    ("DELETE /v1/kv/m", ""),
    ("GET /v1/kv/m", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"lock","Key":"m","Session":"{d}"}}]"#),
    // Everything is deleted, held or not.
    ("DELETE /v1/kv/?recurse", ""),
    ("GET /v1/kv/?recurse", ""),
    ("GET /v1/kv/r?recurse", ""),
    ("GET /v1/kv/nope?recurse", ""),
];

/// Requests as [`KEYS`], about nodes, services and checks. The own nodes of the agents differ.
const CATALOG: &[(&str, &str)] = &[
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1.1.1.1"}"#),
    ("GET /v1/catalog/nodes", ""),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1.1.1.1"}"#),
    ("GET /v1/catalog/nodes", ""),
    // Everything that Go's client sends.
    (
        "PUT /v1/catalog/register",
        r#"{"ID":"e0155642-135d-4739-9853-a1ee6c9f945b","Node":"n2","Address":"::1","TaggedAddresses":null,"NodeMeta":null,
            "Datacenter":"dc1","Service":{"ID":"web1","Service":"web","Tags":["a"],"Meta":null,"Port":80,"Address":"",
            "Weights":{"Passing":0,"Warning":0},"EnableTagOverride":false},"Check":null,"Checks":[{"Node":"n2","CheckID":"c",
            "Name":"C","Status":"passing","Notes":"n","Output":"o","ServiceID":"web1","ServiceName":"","ServiceTags":null,
            "Type":"","ExposedPort":0,"Definition":{"Interval":"0s","Timeout":"0s","DeregisterCriticalServiceAfter":"0s",
            "HTTP":"","Header":null,"Method":"","Body":"","TLSServerName":"","TLSSkipVerify":false,"TCP":"","UDP":"",
            "IntervalDuration":0},"CreateIndex":0,"ModifyIndex":0}],"SkipNodeUpdate":false}"#,
    ),
    ("GET /v1/catalog/nodes", ""),
    ("GET /v1/health/node/n2", ""),
    // A node is left as it is, or replaced.
    ("PUT /v1/catalog/register", r#"{"Node":"n1","SkipNodeUpdate":true,"NodeMeta":{"a":"b"},"Address":"2"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n3","SkipNodeUpdate":true}"#),
    ("GET /v1/catalog/nodes", ""),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","NodeMeta":{"a":null},"TaggedAddresses":{"lan":"x"},"Address":"2"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n2","NodeMeta":{},"Address":"::1"}"#),
    ("GET /v1/catalog/nodes", ""),
    // Checks, and their services.
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"2","Check":{"CheckID":"c","ServiceID":"web"}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n4","Address":"2","Check":{"CheckID":"c","ServiceID":"web"}}"#),
    ("GET /v1/catalog/nodes", ""),
    (
        "PUT /v1/catalog/register",
        r#"{"Node":"n4","Address":"2","Service":{"Service":"a"},"Check":{"Name":"c","ServiceID":"A"}}"#,
    ),
    (
        "PUT /v1/catalog/register",
        r#"{"Node":"n1","SkipNodeUpdate":true,"Service":{"Service":"web","Tags":["a","b"],"Meta":{"m":"n"}},
            "Check":{"CheckID":"c","ServiceID":"web","Status":"passing","ServiceName":"no","ServiceTags":["no"]}}"#,
    ),
    ("GET /v1/health/node/n1", ""),
    ("GET /v1/catalog/nodes", ""),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","SkipNodeUpdate":true,"Service":{"Service":"web","Tags":["c"]}}"#),
    ("GET /v1/health/node/n1", ""),
    ("GET /v1/catalog/nodes", ""),
    (
        "PUT /v1/catalog/register",
        r#"{"Node":"n1","SkipNodeUpdate":true,"Checks":[{"CheckID":"c","ServiceID":"web","Status":"passing"},
            {"Name":"D","Status":"warning","ServiceName":"x","ServiceTags":["y"],"Type":"t","Interval":"i","Timeout":"j",
            "ExposedPort":-5,"CreateIndex":7}]}"#,
    ),
    ("GET /v1/health/node/n1", ""),
    ("GET /v1/health/node/n1?index={index}&wait=10ms", ""),
    ("GET /v1/health/node/nope", ""),
    (
        "PUT /v1/catalog/register",
        r#"{"Node":"n1","SkipNodeUpdate":true,"Check":{"Name":"D","Status":"warning","ServiceName":"x","ServiceTags":["y"],
            "Type":"t","Interval":"i","Timeout":"j","ExposedPort":-5}}"#,
    ),
    ("GET /v1/health/node/n1", ""),
    // Sessions end with their checks, and these with their services.
    ("PUT /v1/session/create", r#"{"Node":"n1","NodeChecks":["D"]}"#),
    ("PUT /v1/session/create", r#"{"Node":"n1","NodeChecks":[],"ServiceChecks":[{"ID":"c"}]}"#),
    ("PUT /v1/catalog/deregister", r#"{"Node":"n1","ServiceID":"nope","Address":"ignored"}"#),
    ("PUT /v1/catalog/deregister", r#"{"Node":"n1","ServiceID":"web","CheckID":"D"}"#),
    ("GET /v1/session/node/n1", ""),
    ("GET /v1/health/node/n1", ""),
    ("GET /v1/catalog/nodes", ""),
    ("PUT /v1/catalog/deregister", r#"{"Node":"n1","CheckID":"D"}"#),
    ("GET /v1/session/node/n1", ""),
    ("GET /v1/health/node/n1", ""),
    ("GET /v1/catalog/nodes?index=1&wait=10ms", ""),
    // Invalid bodies.
    ("PUT /v1/catalog/register?dc=nope", "{}"),
    ("PUT /v1/catalog/register", r#"{"Datacenter":"nope"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","ID":"x","Address":"1"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","ID":"e0155642-135d-4739-9853-a1ee6c9f945g","Address":"1"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","ID":"e0155642-135d-4739-9853+a1ee6c9f945b","Address":"1"}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"ID":"x"}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Service":"x","Address":"0.0.0.0"}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Service":5}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Port":"x"}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Port":1.5}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Tags":"x"}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Meta":["x"]}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"EnableTagOverride":1}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Weights":1}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"TaggedAddresses":1}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"CreateIndex":-1}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":{"Nope":1}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Service":5}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","SkipNodeUpdate":5}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","TaggedAddresses":5}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","NodeMeta":{"a":5}}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","ModifyIndex":-5}"#),
    ("PUT /v1/catalog/register", r#"{"Node":5}"#),
    ("PUT /v1/catalog/register", r#"{"Nope":5}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"Nope":5}}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"Name":5}}"#),
    ("PUT /v1/catalog/register", r#"{"Checks":[{"Name":5}]}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"Definition":5}}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"ServiceTags":5}}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"ServiceTags":[5]}}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"ExposedPort":"5"}}"#),
    ("PUT /v1/catalog/register", r#"{"Check":{"CreateIndex":-5}}"#),
    ("PUT /v1/catalog/register", r#"{"Check":5}"#),
    ("PUT /v1/catalog/register", r#"{"Checks":[5]}"#),
    ("PUT /v1/catalog/register", r#"{"Checks":5}"#),
    ("PUT /v1/catalog/register", r#"{"Node":"n1","Address":"1","Check":{"Node":"n2","CheckID":"c"}}"#),
    ("PUT /v1/catalog/deregister", r#"{"Datacenter":"nope"}"#),
    ("PUT /v1/catalog/deregister", r#"{}"#),
    ("PUT /v1/catalog/deregister", r#"{"ServiceID":5}"#),
    ("PUT /v1/catalog/deregister", r#"{"Nope":5}"#),
    ("PUT /v1/catalog/deregister", "[]"),
    ("PUT /v1/catalog/deregister", "{Node}"),
    ("PUT /v1/catalog/deregister", r#"{"Node"'5'}"#),
    ("PUT /v1/catalog/deregister", r#"{"Node":"n1""x"}"#),
    ("PUT /v1/catalog/deregister", r#"{"Node":["n1""x"]}"#),
    ("PUT /v1/catalog/deregister", r#"{"Node":x}"#),
    ("GET /v1/catalog/nodes?ns=x", ""),
    ("GET /v1/catalog/nodes?partition=x", ""),
    // The end of the nodes.
    ("PUT /v1/catalog/deregister", r#"{"Node":"n3"}"#),
    ("GET /v1/catalog/nodes", ""),
    ("GET /v1/health/node/n2", ""),
    ("PUT /v1/catalog/deregister", r#"{"Node":"N2"}"#),
    ("GET /v1/catalog/nodes", ""),
    ("GET /v1/health/node/n2", ""),
];

/// Requests as [`KEYS`], about keys that are odd as paths.
const ODD_KEYS: &[(&str, &str)] = &[
    ("PUT /v1/kv/a%2F%2Fb", "1"),
    ("GET /v1/kv/a%2F%2Fb", ""),
    ("GET /v1/kv/a/b", ""),
    ("PUT /v1/kv/a/%2e%2e/b", "2"),
    ("GET /v1/kv/a/%2e%2e/b", ""),
    ("GET /v1/kv/b", ""),
    ("PUT /v1/kv/%20c", "3"),
    ("GET /v1/kv/%20c", ""),
    ("PUT /v1/kv/d%2520d", "4"),
    ("GET /v1/kv/d%2520d", ""),
    ("PUT /v1/txn", r#"[{"KV":{"Verb":"set","Key":"e/./e"}}]"#),
    ("GET /v1/kv/e/%2e/e", ""),
];

fn start_dev_agent() -> Result<DevAgent> {
    Ok(block_on(DevAgent::start((Ipv4Addr::LOCALHOST, 0).into()))?)
}

#[test]
fn key_requests_get_the_answers_of_consul() -> Result<()> {
    let (consul, dev) = (Consul::start(Kind::Plain)?, start_dev_agent()?);
    compare(&consul, &dev, KEYS)
}

#[test]
fn catalog_requests_get_the_answers_of_consul() -> Result<()> {
    let (consul, dev) = (Consul::start(Kind::Plain)?, start_dev_agent()?);
    compare(&consul, &dev, CATALOG)
}

/// Consul 1.22 cleans or refuses such keys in `/v1/kv`, and not in `/v1/txn`.
#[test]
fn odd_keys_are_taken_as_by_consul_1_20() -> Result<()> {
    let is_1_20 = |binary: &PathBuf| Consul::version(binary).is_ok_and(|version| version.starts_with("1.20."));
    let binary = Consul::older_binary().or_else(Consul::binary).filter(is_1_20).context("no Consul 1.20")?;
    compare(&Consul::start_program(binary, Kind::Plain)?, &start_dev_agent()?, ODD_KEYS)
}

fn compare(consul: &Consul, dev: &DevAgent, requests: &[(&str, &str)]) -> Result<()> {
    let (expected, found) = (answers(consul.http(), requests)?, answers(dev.addr(), requests)?);
    for ((expected, found), (request, body)) in expected.iter().zip(&found).zip(requests) {
        ensure!(expected == found, "{request} {body}\nConsul:\n{expected}\nthe dev agent:\n{found}");
    }
    Ok(())
}

/// Returns the answer to each of the requests, without what differs between agents: the letter of a
/// session replaces its id, and the rank of an index replaces the index.
fn answers(agent: SocketAddr, requests: &[(&str, &str)]) -> Result<Vec<String>> {
    let (mut sessions, mut answers, mut last_index) = (Vec::<String>::new(), Vec::new(), String::new());
    for (request, body) in requests {
        if *request == "WAIT" {
            std::thread::sleep(Duration::from_millis(1100));
            answers.push(String::new());
            continue;
        }
        let fill = |text: &str| {
            let ids = letters().zip(&sessions).fold(text.to_owned(), |text, (letter, id)| text.replace(&letter, id));
            ids.replace("{index}", &last_index)
        };
        let answer = without_own_node(&raw(agent, &fill(request), &fill(body))?);
        if request.ends_with("/create") {
            let id = answer.split('"').find(|part| part.len() == 36).with_context(|| answer.clone())?;
            sessions.push(id.to_owned());
        }
        if let Some(index) = answer.lines().find_map(|line| line.strip_prefix(INDEX)) {
            last_index = index.to_owned();
        }
        answers.push(letters().zip(&sessions).fold(answer, |text, (letter, id)| text.replace(id, &letter)));
    }
    let indexes: BTreeSet<u64> = answers.iter().flat_map(|answer| answer.lines().filter_map(index)).collect();
    let rank = |line: &str| match index(line) {
        Some(index) => line.replace(&index.to_string(), &format!("#{}", indexes.range(..index).count())),
        None => line.to_owned(),
    };
    Ok(answers.iter().map(|answer| answer.lines().map(|line| rank(line) + "\n").collect()).collect())
}

/// Removes the agent's own node, the first, from the catalog's nodes.
fn without_own_node(answer: &str) -> String {
    const ELEMENT: &str = "\n    {\n";
    let names = ["agent-node", "dev-agent"].map(|name| format!("        \"Node\": \"{name}\",\n"));
    let is_own = |element: &&str| names.iter().any(|name| element.contains(name)) && element.contains("TaggedAddresses");
    answer.split(ELEMENT).filter(|element| !is_own(element)).collect::<Vec<_>>().join(ELEMENT)
}

fn letters() -> impl Iterator<Item = String> {
    ('a'..='z').map(|letter| format!("{{{letter}}}"))
}

const INDEX: &str = "x-consul-index: ";

/// Parses Raft's index in a line of an answer.
fn index(line: &str) -> Option<u64> {
    let line = line.trim();
    let fields = [INDEX, "\"CreateIndex\": ", "\"ModifyIndex\": "];
    fields.into_iter().find_map(|field| line.strip_prefix(field)?.trim_end_matches(',').parse().ok())
}

/// Returns the status, the sorted headers that describe the answer, and the body. Without the
/// charset of JSON, which Consul 1.22 names in more answers than 1.20 and the dev agent.
fn raw(agent: SocketAddr, request: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(agent)?;
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("{request} {body}"))?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| text.clone())?;
    let (status, headers) = head.split_once("\r\n").with_context(|| text.clone())?;
    let is_relevant = |line: &&str| ["allow", "content-type", "vary", "x-consul-"].iter().any(|name| line.starts_with(name));
    let headers: Vec<String> = headers
        .split("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            format!("{}: {value}", name.to_ascii_lowercase())
        })
        .collect();
    let headers: BTreeSet<&str> = headers.iter().map(String::as_str).filter(is_relevant).collect();
    let lines: String = headers.into_iter().map(|line| format!("{line}\n")).collect();
    let lines = lines.replace("application/json; charset=utf-8", "application/json");
    Ok(format!("{status}\n{lines}\n{body}"))
}

#[test]
fn blocking_reads_of_keys_wait_as_at_consul() -> Result<()> {
    let (consul, dev) = (Consul::start(Kind::Plain)?, start_dev_agent()?);
    for agent in [consul.http(), dev.addr()] {
        blocks_at(agent).with_context(|| format!("at {agent}"))?;
    }
    Ok(())
}

fn blocks_at(agent: SocketAddr) -> Result<()> {
    let api = Api::new(agent, Kind::Plain);
    let read = |path: String| std::thread::spawn(move || raw(agent, &format!("GET /v1/kv/{path}"), ""));
    let index = |key: &str| -> Result<u64> {
        raw(agent, &format!("GET /v1/kv/{key}"), "")?.lines().find_map(index).context("no index")
    };
    let session = api.put("/v1/session/create", Some(&json!({"LockDelay": "0s"})))?;
    let id = session["ID"].as_str().context("no id")?;
    api.put(&format!("/v1/kv/held?acquire={id}"), None)?;

    let held = read(format!("held?index={}&wait=60s", index("held")?));
    let missing = read(format!("missing?index={}&wait=60s", index("missing")?));
    let tree = read(format!("he?recurse&index={}&wait=60s", index("he?recurse")?));
    // Nothing shows that they wait already. A read that came after the change of the other key
    // would be answered at once.
    std::thread::sleep(Duration::from_millis(500));
    api.put("/v1/kv/other", None)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!held.is_finished() && !missing.is_finished() && !tree.is_finished(), "another key woke them");
    // The end of a session changes its keys.
    api.put(&format!("/v1/session/destroy/{id}"), None)?;
    let answer = held.join().expect("no panic")?;
    ensure!(answer.contains("\"LockIndex\": 1") && !answer.contains("\"Session\""), "{answer}");
    let answer = tree.join().expect("no panic")?;
    ensure!(answer.contains("\"Key\": \"held\"") && !answer.contains("\"Session\""), "{answer}");
    ensure!(!missing.is_finished());
    let tree = read(format!("he?recurse&index={}&wait=60s", index("he?recurse")?));
    api.send("DELETE", "/v1/kv/hel?recurse", None)?;
    ensure!(tree.join().expect("no panic")?.starts_with("HTTP/1.1 404 "));
    api.put("/v1/kv/missing", None)?;
    ensure!(missing.join().expect("no panic")?.starts_with("HTTP/1.1 200 "));
    let deleted = read(format!("missing?index={}&wait=60s", index("missing")?));
    api.send("DELETE", "/v1/kv/missing", None)?;
    ensure!(deleted.join().expect("no panic")?.starts_with("HTTP/1.1 404 "));
    Ok(())
}

#[test]
fn blocking_reads_of_the_catalog_wait_as_at_consul() -> Result<()> {
    let (consul, dev) = (Consul::start(Kind::Plain)?, start_dev_agent()?);
    for agent in [consul.http(), dev.addr()] {
        let api = Api::new(agent, Kind::Plain);
        let register = |address: &str, status: &str| {
            let check = json!({"CheckID": "c", "Status": status});
            api.put("/v1/catalog/register", Some(&json!({"Node": "n1", "Address": address, "Check": check})))
        };
        register("1.1.1.1", "passing")?;
        let wait = |path: &'static str| -> Result<_> {
            let index = raw(agent, &format!("GET {path}"), "")?.lines().find_map(index).context("no index")?;
            let request = format!("GET {path}?index={index}&wait=60s");
            Ok(std::thread::spawn(move || raw(agent, &request, "")))
        };
        let (nodes, checks) = (wait("/v1/catalog/nodes")?, wait("/v1/health/node/n1")?);
        register("1.1.1.1", "warning")?;
        let answer = checks.join().expect("no panic")?;
        ensure!(answer.contains("\"Status\": \"warning\""), "at {agent}: {answer}");
        ensure!(!nodes.is_finished(), "at {agent}: a check woke the reader of nodes");
        register("1.1.1.2", "warning")?;
        let answer = nodes.join().expect("no panic")?;
        ensure!(answer.contains("\"Address\": \"1.1.1.2\""), "at {agent}: {answer}");
    }
    Ok(())
}

#[test]
fn notes_are_the_output_of_a_check_as_at_consul() -> Result<()> {
    let (consul, dev) = (Consul::start(Kind::Plain)?, start_dev_agent()?);
    for agent in [consul.http(), dev.addr()] {
        let api = Api::new(agent, Kind::Plain);
        api.put("/v1/agent/check/register", Some(&json!({"Name": "own", "TTL": "1h"})))?;
        for (request, output) in [("pass/own?note=all+is%20well", "all is well"), ("warn/own", ""), ("fail/own?note=x", "x")] {
            api.put(&format!("/v1/agent/check/{request}"), None)?;
            let checks = api.get("/v1/agent/checks")?;
            ensure!(checks["own"]["Output"] == output, "at {agent}: {request}: {checks}");
        }
    }
    Ok(())
}
