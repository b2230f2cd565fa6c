//! Every option with every form of its values, and the defaults.

use consul_session::Options;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{self, DELAY, Kind, OnMismatch, Resolved, Scheme, TABLE, WAIT};
use serde_json::{Value, json};

/// Generates the functions that return an option's value by its name. Options with a default come
/// first.
macro_rules! fields {
    ($($with:ident)*; $($without:ident)*) => {
        fn stored(options: &Options, name: &str) -> String {
            match name {
                $(stringify!($with) => options.$with.as_ref().map_or("none".into(), |value| format!("{value:?}")),)*
                $(stringify!($without) => options.$without.as_ref().map_or("none".into(), |value| format!("{value:?}")),)*
                _ => panic!("no such option: {name}"),
            }
        }

        fn resolved(options: &Resolved, name: &str) -> String {
            match name {
                $(stringify!($with) => format!("{:?}", options.$with),)*
                $(stringify!($without) => options.$without.as_ref().map_or("none".into(), |value| format!("{value:?}")),)*
                _ => panic!("no such option: {name}"),
            }
        }
    };
}

fields! {
    state behavior delay host port scheme validate_certs timeout on_mismatch dry_run;
    id name node datacenter checks node_checks service_checks ttl token namespace partition
}

const FIELDS: [&str; 21] = [
    "state",
    "id",
    "name",
    "node",
    "datacenter",
    "checks",
    "node_checks",
    "service_checks",
    "behavior",
    "delay",
    "ttl",
    "token",
    "host",
    "port",
    "scheme",
    "validate_certs",
    "timeout",
    "namespace",
    "partition",
    "on_mismatch",
    "dry_run",
];

const UUID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

fn read(name: &str, value: &Value) -> Result<Options, Error> {
    Options::from_json(&json!({name: value}).to_string())
}

#[track_caller]
fn accepts(name: &str, value: Value, expected: &str) {
    let options = read(name, &value).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
    assert_eq!(stored(&options, name), expected, "{name}={value}");
    for other in FIELDS.iter().filter(|other| **other != name) {
        assert_eq!(stored(&options, other), "none", "{other}, after {name}={value}");
    }
}

#[track_caller]
fn accepts_all<const N: usize>(name: &str, forms: [(Value, &str); N]) {
    for (value, expected) in forms {
        accepts(name, value, expected);
    }
}

/// Asserts that the value is rejected with the option's name, the value, this reason and the
/// accepted values.
#[track_caller]
fn rejects(name: &str, value: &Value, reason: &str) {
    let error = read(name, value).expect_err(&format!("{name}={value} is rejected"));
    assert_eq!(error.kind, ErrorKind::InvalidOption { option: name.into() });
    let kind = options::info(name).unwrap().kind;
    // As written, without the quotes of JSON.
    let shown = value.as_str().map_or(value.to_string(), |text| format!("`{text}`"));
    for part in [&format!("`{name}`"), &shown, reason, &format!("(expected {kind})")] {
        let secret = kind == Kind::Secret && *part == shown;
        assert!(secret || error.message.contains(part), "{name}={value}: {part:?} is missing: {error}");
    }
}

#[track_caller]
fn rejects_all(name: &str, reason: &str, values: &[Value]) {
    values.iter().for_each(|value| rejects(name, value, reason));
}

#[test]
fn these_tests_cover_every_option() {
    assert_eq!(TABLE.iter().map(|info| info.name).collect::<Vec<_>>(), FIELDS);
}

#[test]
fn null_counts_as_not_given() {
    for name in FIELDS {
        assert_eq!(read(name, &Value::Null), Ok(Options::default()), "{name}");
    }
}

#[test]
fn choices_accept_only_their_values() {
    accepts_all(
        "state",
        [
            (json!("present"), "Present"),
            (json!("absent"), "Absent"),
            (json!("info"), "Info"),
            (json!("node"), "Node"),
            (json!("list"), "List"),
        ],
    );
    accepts_all("behavior", [(json!("release"), "Release"), (json!("delete"), "Delete")]);
    accepts_all("scheme", [(json!("http"), "Http"), (json!("https"), "Https")]);
    accepts_all("on_mismatch", [(json!("fail"), "Fail"), (json!("replace"), "Replace")]);
    for (name, near) in [("state", "Present"), ("behavior", "released"), ("scheme", "ftp"), ("on_mismatch", "replace ")] {
        rejects_all(name, "unknown", &[json!(near), json!(""), json!(1), json!(true), json!(["present"]), json!({})]);
    }
    rejects("state", &json!("remove"), "(expected present, absent, info, node, list)");
}

#[test]
fn ids_accept_only_uuids() {
    accepts("id", json!(UUID), &format!("SessionId({UUID:?})"));
    accepts("id", json!(UUID.to_uppercase()), &format!("SessionId({UUID:?})"));
    accepts("id", json!(format!(" {UUID}\n")), &format!("SessionId({UUID:?})"));
    rejects_all(
        "id",
        "not a session id",
        &[
            json!(""),
            json!("web"),
            json!("*"),
            json!(&UUID[1..]),
            json!(format!("{UUID}0")),
            json!(UUID.replace('-', "")),
            json!(UUID.replace('a', "g")),
            json!(format!("{{{}}}", &UUID[1..35])),
            json!("adf4238a/882b/9ddc/4a9d/5b6758e4159e"),
            json!("adf4238a-882b-9ddc-4a9d-5b6758e4159/"),
            json!("adf4238a-882b-9ddc-4a9d-5b6758e415é"),
            json!(17),
            json!(true),
            json!([UUID]),
        ],
    );
}

#[test]
fn texts_accept_strings_and_integers() {
    for name in ["name", "node", "datacenter", "namespace", "partition"] {
        accepts_all(
            name,
            [
                (json!("web"), r#""web""#),
                (json!(" two words "), r#"" two words ""#),
                (json!("a/b?c#d&e=f%20ä\n\"🦀"), r#""a/b?c#d&e=f%20ä\n\"🦀""#),
                (json!("true"), r#""true""#),
                // YAML turns a name of digits into a number.
                (json!(2024), r#""2024""#),
                (json!(-7), r#""-7""#),
            ],
        );
        rejects(name, &json!(""), "empty; leave the option out instead");
        rejects_all(name, "not a string", &[json!(true), json!(1.5), json!(["web"]), json!({"a": 1})]);
    }
}

#[test]
fn nodes_must_be_possible_in_a_path() {
    for node in ["n1", "n1.example.com", "a/b", "..a", "...", "a b"] {
        accepts("node", json!(node), &format!("{node:?}"));
    }
    let refused = [".", "..", "/", "a/", "/a", "a//b", "a/./b", "../kv/secret"].map(Value::from);
    rejects_all("node", "not possible in the path of a URL", &refused);
    // A name is never part of a path.
    accepts("name", json!("../kv/secret"), r#""../kv/secret""#);
}

#[test]
fn lists_accept_arrays_and_comma_separated_strings() {
    for name in ["checks", "node_checks", "service_checks"] {
        accepts_all(
            name,
            [
                (json!([]), "[]"),
                (json!(""), "[]"),
                (json!(" "), "[]"),
                (json!("a"), r#"["a"]"#),
                (json!("a,b"), r#"["a", "b"]"#),
                (json!(" a , service:web "), r#"["a", "service:web"]"#),
                (json!(["a", "b"]), r#"["a", "b"]"#),
                (json!(["a,b"]), r#"["a,b"]"#),
                (json!(["a", "a"]), r#"["a", "a"]"#),
                (json!([1, "b"]), r#"["1", "b"]"#),
                (json!(7), r#"["7"]"#),
            ],
        );
        rejects_all(
            name,
            "a list with an empty element",
            &[json!("a,,b"), json!(","), json!("a,"), json!([""]), json!(["a", ""])],
        );
        rejects_all(name, "not a string", &[json!([true]), json!([null]), json!([["a"]]), json!([1.5])]);
        rejects_all(name, "not a list of strings", &[json!(true), json!(0.5), json!({"a": "b"})]);
    }
}

#[test]
fn durations_accept_seconds_and_units_in_range() {
    const S: i64 = 1_000_000_000;
    let nanoseconds = |milliseconds: i64| format!("{}", milliseconds * 1_000_000);
    for (value, milliseconds) in [
        (json!(20), 20_000),
        (json!("20"), 20_000),
        (json!(" 20 "), 20_000),
        (json!(20.0), 20_000),
        (json!("20s"), 20_000),
        (json!("0.5m"), 30_000),
        (json!("10.5"), 10_500),
        (json!(10.001), 10_001),
        (json!("10s500ms"), 10_500),
        (json!("60000ms"), 60_000),
        (json!("60000000us"), 60_000),
        (json!("60000000000ns"), 60_000),
        (json!("+15s"), 15_000),
    ] {
        for name in ["delay", "ttl", "timeout"] {
            accepts(name, value.clone(), &nanoseconds(milliseconds));
        }
    }
    for (name, least, most) in [("delay", 0, 60 * S), ("ttl", 10 * S, 86_400 * S), ("timeout", 1_000_000, 86_400 * S)] {
        accepts(name, json!(format!("{least}ns")), &least.to_string());
        accepts(name, json!(format!("{most}ns")), &most.to_string());
        let beyond =
            [format!("{}ms", least / 1_000_000 - 1), format!("{}ms", most / 1_000_000 + 1), "-20s".into(), "2562047h".into()];
        rejects_all(name, "out of range", &beyond.map(Value::from));
        rejects_all(name, "out of range", &[json!(-1), json!(-0.5), json!(86_400.5), json!(1_000_000_000)]);
        rejects_all(name, "finer than a millisecond", &[json!("20.0005s"), json!("10.0001"), json!("11s1us"), json!("1m1ns")]);
        rejects(name, &json!(10.0005), "finer than a millisecond");
        rejects_all(
            name,
            "not a duration",
            &[
                json!(""),
                json!("soon"),
                json!("20 s"),
                json!("20S"),
                json!("1d"),
                json!("1e3"),
                json!("20,5"),
                json!("s"),
                json!("--20"),
                json!("NaN"),
                json!("inf"),
                json!("9223372037"),
                json!("2562048h"),
                json!(9_223_372_037_i64),
                json!(true),
                json!([20]),
                json!({}),
            ],
        );
    }
    // 0 is a valid delay, means no TTL, and is not a valid timeout.
    for name in ["delay", "ttl"] {
        accepts(name, json!(0.0), "0");
    }
    for zero in [json!(0), json!("0"), json!("0s"), json!("-0")] {
        accepts("delay", zero.clone(), "0");
        accepts("ttl", zero.clone(), "0");
        rejects("timeout", &zero, "out of range");
    }
    let accepted = "seconds or a duration: 20, 20s or 1m30s, 10s to 86400s, or 0 for none";
    rejects("ttl", &json!(9.999), accepted);
}

#[test]
fn non_finite_seconds_are_rejected() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        let error = options::seconds("delay", DELAY, number).unwrap_err();
        assert!(error.message.contains("not a duration (expected seconds or a duration"), "{error}");
    }
}

#[test]
fn booleans_accept_the_words_of_ansible() {
    for name in ["validate_certs", "dry_run"] {
        for word in ["yes", "y", "true", "t", "on", "1", "1.0"] {
            for word in [word.to_owned(), word.to_uppercase(), format!(" {word} ")] {
                accepts(name, json!(word), "true");
            }
        }
        for word in ["no", "n", "false", "f", "off", "0", "0.0", "No"] {
            accepts(name, json!(word), "false");
        }
        accepts_all(name, [(json!(true), "true"), (json!(false), "false"), (json!(1), "true"), (json!(0), "false")]);
        rejects_all(
            name,
            "neither yes nor no",
            &[json!(""), json!("maybe"), json!("yesno"), json!("2"), json!(2), json!(-1), json!(0.5), json!([true]), json!({})],
        );
    }
}

#[test]
fn ports_accept_1_to_65535() {
    for port in [1, 80, 8501, 65_535] {
        accepts("port", json!(port), &port.to_string());
        accepts("port", json!(format!(" {port} ")), &port.to_string());
    }
    rejects_all(
        "port",
        "not a port",
        &[
            json!(0),
            json!(65_536),
            json!(-1),
            json!(8500.5),
            json!(""),
            json!("http"),
            json!("0"),
            json!("65536"),
            json!("8500/tcp"),
            json!(":8500"),
            json!("0x50"),
            json!(true),
            json!([8500]),
        ],
    );
}

#[test]
fn hosts_accept_names_and_addresses_without_port() {
    for host in ["localhost", "consul.service.consul", "Consul-1.example.com.", "a_b", "10.0.0.1", "1", "xn--bcher-kva.example"]
    {
        accepts("host", json!(host), &format!("Host({host:?})"));
        accepts("host", json!(format!(" {host}\n")), &format!("Host({host:?})"));
    }
    for host in ["::1", "[::1]", "2001:DB8::a", "[::ffff:10.0.0.1]"] {
        let inner = host.trim_matches(['[', ']']);
        accepts("host", json!(host), &format!("Host(\"[{inner}]\")"));
    }
    rejects_all(
        "host",
        "not a host; give the port as `port`",
        &[json!("localhost:8500"), json!("[::1]:8500"), json!("10.0.0.1:80")],
    );
    rejects_all("host", "a URL; give `scheme`, `host` and `port`", &[json!("http://localhost"), json!("https://c:8501/v1")]);
    rejects_all(
        "host",
        "not a host",
        &[
            json!(""),
            json!(" "),
            json!("a b"),
            json!("a/b"),
            json!("a?b"),
            json!("a#b"),
            json!("a@b"),
            json!("a%41"),
            json!("a\\b"),
            json!("bücher.example"),
            json!("[localhost]"),
            json!("[10.0.0.1]"),
            json!("[]"),
            json!("[::1"),
            json!("::1]"),
            json!("fe80::1%eth0"),
            json!(":"),
            json!(127),
            json!(true),
            json!(["localhost"]),
        ],
    );
}

#[test]
fn tokens_accept_visible_ascii() {
    accepts_all(
        "token",
        [
            (json!(UUID), "Token(…)"),
            (json!("~!@#$%^&*(){}[]<>'\"\\"), "Token(…)"),
            (json!(12_345), "Token(…)"),
            // To Consul, an empty header is a missing header.
            (json!(""), "none"),
        ],
    );
    let token = |value| read("token", &value).unwrap().token.unwrap().secret().to_owned();
    assert_eq!((token(json!(UUID)), token(json!(12_345))), (UUID.into(), "12345".into()));
    rejects_all(
        "token",
        "a header cannot hold",
        &[json!("a b"), json!(" "), json!("a\r\nX-Evil: 1"), json!("tökén"), json!("a\0")],
    );
    rejects_all("token", "not a string", &[json!(true), json!(1.5), json!(["t"]), json!({})]);
}

#[test]
fn values_in_messages_are_one_short_line() {
    let error = read("delay", &json!("a\nb\tc")).unwrap_err();
    assert!(error.message.contains("`a\u{fffd}b\u{fffd}c`"), "{error}");
    let error = read("delay", &json!("x".repeat(10_000))).unwrap_err();
    assert!(error.message.contains(&format!("`{}…`", "x".repeat(80))), "{error}");
    assert!(error.message.len() < 300);
}

#[test]
fn defaults_are_those_of_the_table() {
    let all = Options::default().resolve();
    for name in FIELDS {
        let expected = match name {
            "state" => "Present",
            "behavior" => "Release",
            "delay" => "15000000000",
            "host" => r#"Host("localhost")"#,
            "port" => "8500",
            "scheme" => "Http",
            "validate_certs" => "true",
            "timeout" => "10000000000",
            "on_mismatch" => "Fail",
            "dry_run" => "false",
            _ => "none",
        };
        assert_eq!(resolved(&all, name), expected, "{name}");
        // The table has the same default.
        let mut written = Options::default();
        if let Some(default) = options::info(name).and_then(|info| info.default) {
            written.set(name, &default.into()).unwrap();
        }
        assert_eq!(stored(&written, name), expected, "{name}");
    }
}

#[test]
fn given_values_replace_defaults() {
    let given = json!({
        "state": "list", "behavior": "delete", "delay": 0, "host": "consul", "port": 1, "scheme": "https", "validate_certs": false,
        "timeout": 1, "on_mismatch": "replace", "dry_run": true, "ttl": 0, "checks": [],
    });
    let given = Options::from_json(&given.to_string()).unwrap();
    let all = given.clone().resolve();
    for name in FIELDS {
        assert_eq!(resolved(&all, name), stored(&given, name), "{name}");
    }
}

#[test]
fn unknown_options_are_rejected_with_the_nearest_name() {
    for (name, near) in [
        ("Name", "name"),
        ("naem", "name"),
        ("stat", "state"),
        ("validate-certs", "validate_certs"),
        ("valdiate_certs", "validate_certs"),
        ("chekcs", "checks"),
        ("behaviour", "behavior"),
        ("data_center", "datacenter"),
        ("dryrun", "dry_run"),
        ("tokn", "token"),
        ("TTL", "ttl"),
        ("prot", "port"),
        ("skeem", "scheme"),
    ] {
        let error = read(name, &json!("value-of-it")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidOption { option: name.into() });
        assert_eq!(error.message, format!("unknown option `{name}`: did you mean `{near}`?"));
    }
    let error = read("lock_wait_time", &json!(1)).unwrap_err();
    assert!(error.message.starts_with("unknown option `lock_wait_time`: known are state, id, name, node, "), "{error}");
    assert_eq!(options::nearest("", TABLE.iter().map(|info| info.name)), None);
}

#[test]
fn options_must_be_one_json_object() {
    for text in
        ["", "name=web", "{", "{\"name\": \"web\"", "{\"name\": }", "{\"name\": \"web\"} x", "<html>", "{'name': 'web'}"]
    {
        let error = Options::from_json(text).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidOption { option: "options".into() });
        assert!(error.message.starts_with("the options are not JSON: "), "{error}");
        assert!(error.message.ends_with("expected an object such as {\"name\": \"session1\"}"), "{error}");
    }
    for text in ["[]", "null", "\"web\"", "1", "true"] {
        let error = Options::from_json(text).unwrap_err();
        assert_eq!(error.message, "the options are not a JSON object; expected one such as {\"name\": \"session1\"}");
    }
    assert_eq!(Options::from_json(" {} "), Ok(Options::default()));
    // The last of duplicate keys counts, as in most JSON parsers.
    assert_eq!(Options::from_json(r#"{"name": "a", "name": "b"}"#).unwrap().name.as_deref(), Some("b"));
    assert_eq!(Options::from_json(r#"{"n\u0061me": "\u00e4"}"#).unwrap().name.as_deref(), Some("ä"));
}

#[test]
fn wait_of_a_blocking_query_is_validated_like_an_option() {
    assert_eq!(options::seconds("wait", WAIT, 0.5), Ok(500_000_000));
    assert_eq!(options::seconds("wait", WAIT, 600.0), Ok(600_000_000_000));
    for value in [0.0, 601.0, f64::NAN, 0.0005] {
        let error = options::seconds("wait", WAIT, value).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidOption { option: "wait".into() });
        assert!(error.message.contains("`wait`"), "{error}");
    }
}

/// As the WIT has them.
#[test]
fn typed_values_are_checked_and_returned() {
    let refused = |error: Error, reason: &str| {
        assert_eq!(error.kind, ErrorKind::InvalidOption { option: "x".into() });
        assert!(error.message.contains(reason), "{error}");
    };
    assert_eq!(options::text("x", "web".into()), Ok("web".into()));
    refused(options::text("x", String::new()).unwrap_err(), "empty");
    assert_eq!(options::node("x", "n1".into()), Ok("n1".into()));
    refused(options::node("x", "..".into()).unwrap_err(), "not possible in the path of a URL");
    assert_eq!(options::texts("x", vec!["a".into(), "b".into()]), Ok(vec!["a".into(), "b".into()]));
    refused(options::texts("x", vec!["a".into(), String::new()]).unwrap_err(), "a list with an empty element");
    assert_eq!(options::port("x", 8501), Ok(8501));
    refused(options::port("x", 0).unwrap_err(), "not a port");
    let token = options::token("x", UUID.into()).unwrap();
    assert_eq!(token.as_ref().map(|token| token.secret()), Some(UUID));
    assert_eq!(options::token("x", String::new()), Ok(None));
    refused(options::token("x", "a b".into()).unwrap_err(), "a header cannot hold");
    assert_eq!(options::host("x", "::1").unwrap().as_str(), "[::1]");
    refused(options::host("x", "a/b").unwrap_err(), "not a host");
    assert_eq!(options::session_id("x", UUID).unwrap().as_str(), UUID);
    refused(options::session_id("x", "web").unwrap_err(), "not a session id");
}

#[test]
fn names_of_choices_parse_as_the_same_value() {
    let Kind::Choice(names) = options::info("scheme").unwrap().kind else { panic!("not a choice") };
    for name in names {
        assert_eq!(name.parse::<Scheme>().map(Scheme::name), Ok(*name));
    }
    let Kind::Choice(names) = options::info("on_mismatch").unwrap().kind else { panic!("not a choice") };
    for name in names {
        assert_eq!(name.parse::<OnMismatch>().map(OnMismatch::name), Ok(*name));
    }
}

#[test]
fn every_option_has_a_help_text() {
    for info in TABLE {
        assert!(!info.help.trim().is_empty(), "{}", info.name);
        assert!(!info.kind.to_string().is_empty(), "{}", info.name);
        assert_eq!(options::info(info.name).map(|found| found.name), Some(info.name));
    }
    assert!(options::info("nmae").is_none());
}

#[test]
fn rows_are_equal_if_their_names_are() {
    for (row, other) in TABLE.iter().flat_map(|row| TABLE.iter().map(move |other| (row, other))) {
        assert_eq!(row == other, row.name == other.name, "{} and {}", row.name, other.name);
    }
}
