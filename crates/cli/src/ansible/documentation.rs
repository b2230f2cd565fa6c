//! The file for `ansible-doc`, generated from the table of options. A binary module cannot contain
//! its documentation, so Ansible reads the YAML file of the same name beside it.

use super::CA_PATH;
use super::arguments::{self, type_of};
use consul_session::options::{Info, Kind, TABLE};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;

const FILE: &str = "ansible/consul_session.yml";

const HEAD: &str = "\
# Documentation of the module `consul_session` for ansible-doc. Copy it to the folder of the module.
# A test generates it from the table of options.
DOCUMENTATION:
  module: consul_session
  short_description: Create, find, read and destroy Consul sessions
  description:
    - Ensures that a Consul session of a name exists or is gone, or reads sessions.
    - >-
      One binary file, which needs no Python on the machine where the task runs. It accepts the arguments of
      community.general.consul_session.
  author: [the consul-session authors]
  attributes:
    check_mode:
      support: full
      description: Reads run, and changes are predicted.
    diff_mode:
      support: full
      description: Returns the affected sessions before and after.
  options:
";

const TAIL: &str = r#"
EXAMPLES: |
  - name: register basic session with consul
    consul_session:
      name: session1

  - name: register a session with an existing check
    consul_session:
      name: session_with_check
      checks:
        - existing_check_name

  - name: register a session with lock_delay
    consul_session:
      name: session_with_delay
      delay: 20s

  - name: retrieve info about session by id
    consul_session: id={{ session_id }} state=info

  - name: retrieve active sessions
    consul_session: state=list

RETURN:
  session_id:
    description: Id of the session. Check mode creates none, so there is none.
    returned: present, or if `id` is given
    type: str
  name:
    description: Name of the session, as Consul stored it.
    returned: present, or info of a session that exists
    type: str
  node:
    description: Name of the node that the session is tied to.
    returned: present, info of a session that exists, or if `node` is given
    type: str
  behavior:
    description: What happens to held locks when the session ends.
    returned: present, or info of a session that exists
    type: str
  delay:
    description: Lock delay in seconds.
    returned: present, or info of a session that exists
    type: float
  ttl:
    description: TTL in seconds, or null for none.
    returned: present, or info of a session that exists
    type: float
  checks:
    description: Ids of the checks that keep the session alive.
    returned: present, or info of a session that exists
    type: list
    elements: str
  sessions:
    description: The sessions found, as Consul's API has them, or the one that is now present.
    returned: success
    type: list
    elements: dict
  destroyed:
    description: Ids of the destroyed sessions.
    returned: success
    type: list
    elements: str
  filtered:
    description: Whether ACLs hid sessions from a read, or may have.
    returned: success
    type: bool
  notes:
    description: Additional information; these are warnings too.
    returned: success
    type: list
    elements: str
  diff:
    description: The affected sessions before and after.
    returned: in diff mode, except by reads
    type: dict
  error:
    description: The case of the error, for `failed_when` and `until`.
    returned: failure
    type: str
"#;

/// Returns the content of the file.
fn documentation() -> String {
    let mut text = HEAD.to_owned();
    for info in TABLE {
        text += &option(info);
    }
    text += &format!(
        "    {CA_PATH}:\n      description:\n        - A file or a folder with the certificates of the CAs that may sign the \
         agent's.\n      type: str\n"
    );
    text + TAIL
}

fn option(info: &Info) -> String {
    let mut sentences = vec![info.help.to_owned()];
    if !matches!(info.kind, Kind::Choice(_) | Kind::Text) {
        sentences.push(format!("Accepted: {}", info.kind));
    }
    if !info.default_note.is_empty() {
        sentences.push(format!("Default: {}", info.default_note));
    }
    let states = ["info", "node", "list"].into_iter().filter(|state| {
        let arguments: Map<String, Value> = Map::from_iter([("state".to_owned(), json!(state))]);
        arguments::is_ignored(&arguments, info.name)
    });
    let states: Vec<String> = states.map(|state| format!("`{state}`")).collect();
    if !states.is_empty() {
        sentences.push(format!("Ignored if `state` is {}", states.join(" or ")));
    }
    let mut text = format!("    {}:\n      description:\n", info.name);
    for sentence in sentences {
        let _ = writeln!(text, "        - {}", json!(format!("{sentence}.")));
    }
    let _ = writeln!(text, "      type: {}", type_of(info.kind));
    match info.kind {
        Kind::Choice(choices) => {
            let _ = writeln!(text, "      choices: [{}]", choices.join(", "));
        }
        Kind::List => text += "      elements: str\n",
        _ => {}
    }
    if let Some(default) = info.default {
        let _ = writeln!(text, "      default: {default}");
    }
    text
}

#[test]
fn ansible_documentation_is_generated_from_the_options() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let expected = documentation();
    if std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "crates/cli/{FILE} differs; UPDATE_DOCS=1 on the same command writes it:\n{expected}");
}
