//! The token is only in its own field of a request. It is in no URL, body, message, debug text or
//! JSON, even if Consul, a proxy or the host echoes it.

use crate::script::{Script, apply, call, create, destroy, get, id, post, put, session};
use consul_session::apply::Plan;
use consul_session::consul::{Client, Connection, Query, Scope};
use consul_session::error::{Error, ErrorKind, from_status};
use consul_session::options::SessionId;
use consul_session::transport::{Request, Response, Transport, from_error_code};
use consul_session::{Options, Outcome};
use serde_json::{Value, json};

const TOKEN: &str = "b1gs33cr3t-9f0c-4e2c-9b0b-0e7b6f7f0b0a";

/// Asserts that the text contains neither the token nor eight characters of it.
#[track_caller]
fn is_clean(text: &str) {
    for length in [TOKEN.len(), 8] {
        for start in 0..=TOKEN.len() - length {
            assert!(!text.contains(&TOKEN[start..start + length]), "{text}");
        }
    }
}

#[track_caller]
fn error_is_clean(error: &Error) {
    is_clean(&error.message);
    is_clean(&format!("{error} {error:?} {error:#?}"));
    is_clean(&error.to_json());
}

#[track_caller]
fn result_is_clean(result: &Result<Outcome, Error>) {
    match result {
        Ok(outcome) => {
            is_clean(&format!("{outcome:?}"));
            is_clean(&outcome.to_json());
        }
        Err(error) => error_is_clean(error),
    }
}

#[test]
fn token_is_in_no_url_body_or_debug_text() {
    struct Recorder(Vec<Request>);

    impl Transport for Recorder {
        fn send(&mut self, request: &Request) -> Result<Response, Error> {
            self.0.push(request.clone());
            Err(Error::new(ErrorKind::AccessDenied { status: 403 }, "no"))
        }
    }

    let options = json!({
        "token": TOKEN, "name": "web", "node": "n1", "datacenter": "dc1", "namespace": "ns1", "partition": "p1",
    });
    let options = Options::from_json(&options.to_string()).unwrap();
    let connection = Connection::new(&options.clone().resolve());
    let plan = Plan::new(options.clone()).unwrap();
    is_clean(&format!("{options:?} {options:#?} {connection:?} {plan:?} {plan:#?}"));
    let mut recorder = Recorder(Vec::new());
    let _ = plan.run(&mut recorder);
    let mut client = Client { connection: &connection, transport: &mut recorder };
    let session_id = SessionId::parse(&id(1)).unwrap();
    let _ = client.renew(&session_id);
    let _ = client.destroy(&session_id);
    let _ = client.own_node();
    let _ = client.may_read("n1");
    let _ = client.sessions(&Scope::All, &Query::default());
    assert_eq!(recorder.0.len(), 6);
    for request in &recorder.0 {
        is_clean(&format!("{request:?} {}", String::from_utf8_lossy(&request.body)));
        assert_eq!(request.token.as_ref().unwrap().secret(), TOKEN);
    }
}

#[test]
fn rejected_token_is_not_in_the_error() {
    for token in [format!("{TOKEN} "), format!("{TOKEN}\n"), format!("ä{TOKEN}")] {
        error_is_clean(&Options::from_json(&json!({"token": token}).to_string()).unwrap_err());
    }
    error_is_clean(&Options::from_json(&json!({"token": [TOKEN]}).to_string()).unwrap_err());
    error_is_clean(&Options::from_json(&json!({"token": {"value": TOKEN}}).to_string()).unwrap_err());
    // A typo in the name, and invalid JSON.
    error_is_clean(&Options::from_json(&json!({"tokem": TOKEN}).to_string()).unwrap_err());
    error_is_clean(&Options::from_json(&json!({"secret_thing": TOKEN}).to_string()).unwrap_err());
    error_is_clean(&Options::from_json(&format!("{{\"token\": {TOKEN}}}")).unwrap_err());
    error_is_clean(&Options::from_json(&format!("token={TOKEN}")).unwrap_err());
}

/// Returns texts with the token at every place, including where a quotation of the answer is cut
/// off.
fn echoes() -> Vec<String> {
    let mut texts = vec![TOKEN.to_owned(), format!("{TOKEN}{TOKEN} {TOKEN}"), format!("<html>{TOKEN}</html>")];
    texts.extend([format!("ACL not found: {TOKEN}"), format!("rpc error making call: token {TOKEN} has no 'session:write'")]);
    texts.extend((155..205).map(|length| format!("{}{TOKEN}", "x".repeat(length))));
    texts.extend((190..200).step_by(3).map(|length| format!("{}{TOKEN}", "ä".repeat(length))));
    texts.extend((740..800).step_by(20).map(|length| format!("{}{TOKEN}", " ".repeat(length))));
    texts
}

fn with_token(more: Value) -> Value {
    let mut options = json!({"token": TOKEN});
    more.as_object().unwrap().iter().for_each(|(key, value)| options[key] = value.clone());
    options
}

#[test]
fn errors_redact_a_token_echoed_by_consul() {
    for text in echoes() {
        for status in [200, 301, 403, 500] {
            let result = apply(with_token(json!({"state": "list"})), [get("/v1/session/list").says(status, &text)]);
            result_is_clean(&result);
            let unnamed = put("/v1/session/create").body(r#"{"LockDelay":"15s","Behavior":"release"}"#);
            result_is_clean(&apply(with_token(json!({})), [unnamed.says(status, &text)]));
            let script = Script::new([put(&format!("/v1/session/renew/{}", id(1))).says(status, &text)]).token(TOKEN);
            let renewed = call(with_token(json!({})), script, |client| client.renew(&SessionId::parse(&id(1)).unwrap()));
            error_is_clean(&renewed.unwrap_err());
        }
    }
}

#[test]
fn notes_and_remedies_redact_the_token() {
    for text in echoes() {
        let unnamed = put("/v1/session/create").body(r#"{"LockDelay":"15s","Behavior":"release"}"#);
        let requests =
            [unnamed.gives(json!({"ID": id(1)})), get(&format!("/v1/session/info/{}?consistent", id(1))).says(500, &text)];
        result_is_clean(&apply(with_token(json!({})), requests));

        let one = || json!([session(1, json!({}))]);
        let requests = [
            get("/v1/session/list?consistent").gives(json!([])),
            create("web").says(200, &text),
            get("/v1/session/list?consistent").gives(one()),
            get("/v1/agent/self").gives(json!({"Config": {"NodeName": "n1"}})),
        ];
        result_is_clean(&apply(with_token(json!({"name": "web"})), requests));

        let requests =
            [get("/v1/session/node/n1?consistent").gives(one()), destroy(1).says(200, &text), destroy(1).says(500, &text)];
        result_is_clean(&apply(with_token(json!({"name": "web", "node": "n1", "state": "absent"})), requests));
    }
}

#[test]
fn errors_redact_a_token_echoed_by_the_host() {
    struct Broken(String);

    impl Transport for Broken {
        fn send(&mut self, request: &Request) -> Result<Response, Error> {
            Err(from_error_code("internal-error", Some(&self.0), &request.authority))
        }
    }

    let plan = Plan::new(Options::from_json(&with_token(json!({"state": "list"})).to_string()).unwrap()).unwrap();
    for text in echoes() {
        result_is_clean(&plan.run(&mut Broken(text)));
    }
}

#[test]
fn authorize_errors_redact_the_token() {
    let node = get("/v1/session/node/n1?consistent").gives(json!([])).header("x-consul-results-filtered-by-acls", "true");
    result_is_clean(&apply(with_token(json!({"name": "web", "node": "n1", "state": "absent"})), [node]));
    let asked = post("/v1/internal/acl/authorize")
        .body(r#"[{"Resource":"session","Access":"read","Segment":"n1"}]"#)
        .says(200, &json!([TOKEN]).to_string());
    let script = Script::new([asked]).token(TOKEN);
    error_is_clean(&call(with_token(json!({})), script, |client| client.may_read("n1")).unwrap_err());
}

#[test]
fn short_and_unusual_tokens_are_redacted() {
    let without = |body: &str, token| from_status(500, body.as_bytes()).redact(token).message.clone();
    assert_eq!(without("no a b c", "x"), "consul answered 500: no a b c");
    assert_eq!(without("a, ab, abc", "ab"), "consul answered 500: a, (token), (token)c");
    assert_eq!(without("xxxxx", "xx"), "consul answered 500: (token)(token)x");
    assert_eq!(without("aab", "ab"), "consul answered 500: a(token)");
    assert_eq!(without("\"a\\b\" ä", "\"a\\b\""), "consul answered 500: (token) ä");
    assert_eq!(without("anything", ""), "consul answered 500: anything");
}

#[test]
fn token_is_redacted_from_its_fourth_character_on_where_a_quotation_is_cut_off() {
    let quoted = |shown: usize| {
        let body = format!("{}abcdef", "x".repeat(200 - shown));
        from_status(500, body.as_bytes()).redact("abcdef").message.clone()
    };
    assert!(quoted(3).ends_with("xabc…"), "{}", quoted(3));
    assert!(quoted(4).ends_with("x(token)…"), "{}", quoted(4));
}
