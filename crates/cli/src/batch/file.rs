//! A file of option records in YAML, of which JSON is a subset, with the line of each value.
//!
//! An unquoted value is taken as written, as on the command line: the option, and not a version
//! of YAML, decides whether `no` is a boolean, `007` a name or `1e3` a mistake. Only `null`, `~`
//! and an empty value mean that an option is not given.

use consul_session::apply::Plan;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{self, Options, State};
use consul_session_args::printable;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::Value as Json;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::rc::Rc;

/// The most values of a file with its aliases expanded, against a "billion laughs" attack.
const MAX_VALUES: usize = 2_000_000;
/// The deepest nesting. Valid files need three levels; with more, deeper mistakes are reported by
/// their option.
const MAX_DEPTH: usize = 16;

/// The options of a record, in the file's order.
type Fields = Vec<(&'static str, Json)>;

/// A valid record.
#[derive(Debug)]
pub struct Record {
    /// The name of its file.
    pub file: Rc<str>,
    /// The line where it begins.
    pub line: usize,
    /// Its options, with the defaults.
    pub options: Options,
    pub plan: Plan,
}

/// A mistake in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The name of the file.
    pub file: Rc<str>,
    pub line: usize,
    /// The option's name, or `file`.
    pub option: String,
    pub message: String,
}

fn mistake(line: usize, option: &str, message: impl Into<String>) -> Mistake {
    Mistake { file: "".into(), line, option: option.into(), message: message.into() }
}

/// A file that was read: its name for messages, and its text.
pub struct Text {
    pub name: Rc<str>,
    pub text: String,
}

/// Where a record is: the index of its file, and its line.
type Place = (usize, usize);

/// Parses the records of all files, with these defaults.
///
/// # Errors
///
/// All mistakes, in the files' order.
pub fn read(files: &[Text], defaults: &Options) -> Result<Vec<Record>, Vec<Mistake>> {
    let (mut records, mut mistakes) = (Vec::new(), Vec::new());
    let (mut seen, mut names) = (HashMap::new(), HashMap::new());
    let mut values = 0;
    for (at, Text { name: file, text }) in files.iter().enumerate() {
        let before = mistakes.len();
        let items = match parse(text).and_then(list) {
            Ok(items) => items,
            Err(mistake) => {
                mistakes.push(Mistake { file: file.clone(), ..mistake });
                continue;
            }
        };
        for item in items.iter() {
            let before = mistakes.len();
            let (fields, lines) = fields(item, &mut values, &mut mistakes);
            if values > MAX_VALUES {
                mistakes.push(mistake(item.line, "file", format!("with its aliases the file has over {MAX_VALUES} values")));
                break;
            }
            if mistakes.len() > before {
                // Combinations are checked only if each option is valid by itself.
                continue;
            }
            match record(file, item.line, fields, &lines, defaults) {
                Ok(record) => {
                    let place: Place = (at, record.line);
                    let (name, node) = identity(&record.options);
                    let has_node = node.is_some();
                    let of_name: &mut [Option<Place>; 2] = names.entry(name.clone()).or_default();
                    let own_node = of_name[usize::from(!has_node)];
                    of_name[usize::from(has_node)].get_or_insert(place);
                    let shown = |(other, line): Place| match files.get(other) {
                        Some(other_file) if other != at => format!("line {line} of {}", other_file.name),
                        _ => format!("line {line}"),
                    };
                    match (seen.insert((name, node), place), own_node) {
                        (Some(first), _) => mistakes.push(duplicate(&record, &shown(first))),
                        (None, Some(other)) => mistakes.push(maybe_duplicate(&record, &shown(other))),
                        (None, None) => records.push(record),
                    }
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        mistakes.iter_mut().skip(before).for_each(|mistake| mistake.file = file.clone());
    }
    if mistakes.is_empty() { Ok(records) } else { Err(mistakes) }
}

/// Returns what must be unique in the files: the session's id or name, with the connection, and the
/// node of a name.
fn identity(options: &Options) -> (impl Clone + Eq + Hash + use<>, Option<String>) {
    let Options { id, name, node, host, port, datacenter, namespace, partition, .. } = options.clone();
    let (session, node) = match id {
        Some(id) => ((Some(id.as_str().to_owned()), None), None),
        None => ((None, name), node.map(|node| node.to_ascii_lowercase())),
    };
    ((session, host.map(|host| host.as_str().to_owned()), port, datacenter, namespace, partition), node)
}

/// Returns the mistake of a record whose name an earlier one has too, where one of the two has a
/// node. Without a node it is the agent's own, which only the agent knows.
fn maybe_duplicate(record: &Record, other: &str) -> Mistake {
    let name = shown(record.options.name.as_deref().unwrap_or_default());
    let (there, here) = match record.options.node {
        Some(_) => ("out", ""),
        None => ("", "out"),
    };
    mistake(
        record.line,
        "node",
        format!(
            "option `node`: `{name}` is in {other} with{there} a node and here with{here} one, and both can be the same \
             session: give `node` in both"
        ),
    )
}

/// Returns the mistake of a record that repeats an earlier one.
fn duplicate(record: &Record, first: &str) -> Mistake {
    let Options { id, name, node, .. } = &record.options;
    let name = shown(name.as_deref().unwrap_or_default());
    let (option, what) = match (id, node) {
        (Some(id), _) => ("id", format!("the session {}", id.as_str())),
        (None, Some(node)) => ("name", format!("`{name}` on node `{}`", shown(node))),
        (None, None) => ("name", format!("`{name}`")),
    };
    mistake(record.line, option, format!("option `{option}`: {what} is also in {first}; remove one of the two"))
}

/// Checks a record as a whole.
fn record(
    file: &Rc<str>,
    line: usize,
    fields: Fields,
    lines: &HashMap<&str, usize>,
    defaults: &Options,
) -> Result<Record, Mistake> {
    let at = |option: &str, message: String| mistake(lines.get(option).copied().unwrap_or(line), option, message);
    let invalid = |error: Error| match &error.kind {
        ErrorKind::InvalidOption { option } => at(option, error.message.clone()),
        _ => mistake(line, "options", error.message.clone()),
    };
    let mut options = defaults.clone();
    for (name, value) in &fields {
        options.set(name, value).map_err(invalid)?;
    }
    let plan = Plan::new(options.clone()).map_err(invalid)?;
    let state = options.state.unwrap_or(State::Present);
    if !matches!(state, State::Present | State::Absent) {
        return Err(at("state", format!("option `state`: `{}` only reads; accepted in a file: present, absent", state.name())));
    }
    if options.id.is_none() && options.name.is_none() {
        return Err(at("name", "option `name` is missing: without one each run would make another session".into()));
    }
    Ok(Record { file: file.clone(), line, options, plan })
}

/// Returns the options of a record, each checked by itself, and their lines.
fn fields(item: &Node, values: &mut usize, mistakes: &mut Vec<Mistake>) -> (Fields, HashMap<&'static str, usize>) {
    let (mut fields, mut lines) = (Fields::new(), HashMap::new());
    let Value::Map(map) = &item.value else {
        let message = format!("expected a record such as {{name: session1, delay: 20s}}, found {}", item.value.kind());
        mistakes.push(mistake(item.line, "options", message));
        return (fields, lines);
    };
    let mut given = HashSet::new();
    for Entry { name, line, value, merged } in entries(map, values, mistakes) {
        if !given.insert(name) {
            // A record's own options take precedence over merged ones.
            if !merged {
                mistakes.push(mistake(line, name, format!("option `{}` is given twice in this record", shown(name))));
            }
            continue;
        }
        match option(name, value) {
            Ok((_, Json::Null)) => {}
            Ok((option, json)) => {
                lines.insert(option, line);
                fields.push((option, json));
            }
            Err(message) => mistakes.push(mistake(line, name, message)),
        }
    }
    (fields, lines)
}

/// Returns an option of a record, with its value as JSON.
fn option(name: &str, value: &Node) -> Result<(&'static str, Json), String> {
    let message = |error: Error| error.into_parts().message;
    let info = options::info(name).ok_or_else(|| message(options::unknown(name)))?;
    if info.name == "dry_run" {
        return Err("option `dry_run` is not an option of a record: use --dry-run for the whole file".into());
    }
    let json = value.json().map_err(|what| format!("invalid value for `{}`: {what} (expected {})", info.name, info.kind))?;
    Options::default().set(info.name, &json).map_err(message)?;
    Ok((info.name, json))
}

/// An option of a record, its own or a merged one.
struct Entry<'a> {
    name: &'a str,
    line: usize,
    value: &'a Node,
    merged: bool,
}

/// Returns the options of a record: its own, then those that `<<` merges, with the line of the
/// `<<`. Stops at the maximum of values.
fn entries<'a>(map: &'a Map, values: &mut usize, mistakes: &mut Vec<Mistake>) -> Vec<Entry<'a>> {
    let (mut own, mut merged) = (Vec::new(), Vec::new());
    let mut count = |map: &Map| {
        *values += 1 + map.iter().map(|(_, _, value)| value.value.size()).sum::<usize>();
        *values <= MAX_VALUES
    };
    count(map);
    for (name, line, value) in map.iter() {
        if &**name != "<<" {
            own.push(Entry { name, line: *line, value, merged: false });
            continue;
        }
        let sources = match &value.value {
            Value::List(sources) => sources.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for source in sources {
            match &source.value {
                Value::Map(map) if count(map) => {
                    merged.extend(map.iter().map(|(name, _, value)| Entry { name, line: *line, value, merged: true }))
                }
                Value::Map(_) => break,
                other => mistakes.push(mistake(
                    *line,
                    "<<",
                    format!("`<<` takes the options of a record, as in `<<: *base`, and not {}", other.kind()),
                )),
            }
        }
    }
    own.append(&mut merged);
    own
}

/// A value of the file. Cheap to clone, since aliases share their value.
#[derive(Clone, Debug)]
struct Node {
    line: usize,
    /// How deeply lists and maps are nested in the value.
    depth: usize,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Null,
    Text(Rc<str>),
    List(Rc<Vec<Node>>),
    Map(Rc<Map>),
}

/// Keys, their lines and their values.
type Map = Vec<(Rc<str>, usize, Node)>;

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "an empty value",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
        }
    }

    /// Returns the number of values that it counts as.
    fn size(&self) -> usize {
        match self {
            Value::List(items) => 1 + items.len(),
            _ => 1,
        }
    }
}

impl Node {
    /// Returns the value of an option as JSON, or describes a value that no option accepts.
    fn json(&self) -> Result<Json, &'static str> {
        let text = |text: &Rc<str>| Json::String(text.to_string());
        match &self.value {
            Value::Null => Ok(Json::Null),
            Value::Text(string) => Ok(text(string)),
            Value::List(items) => {
                let texts = items.iter().map(|item| match &item.value {
                    Value::Text(string) => Ok(text(string)),
                    _ => Err("a list of other things than strings"),
                });
                texts.collect::<Result<_, _>>().map(Json::Array)
            }
            Value::Map(_) => Err(self.value.kind()),
        }
    }
}

/// Returns the records of the file's only document.
fn list(document: Option<Node>) -> Result<Rc<Vec<Node>>, Mistake> {
    let (line, what) = match document {
        Some(Node { value: Value::List(items), .. }) => return Ok(items),
        Some(Node { value: Value::Null, line, .. }) => (line, "is empty"),
        Some(Node { value: Value::Text(_), line, .. }) => (line, "holds a string"),
        Some(Node { value: Value::Map(_), line, .. }) => (line, "holds an object"),
        None => (1, "is empty"),
    };
    Err(mistake(line, "file", format!("the file {what}: expected a list of records such as [{{name: session1, delay: 20s}}]")))
}

/// A list or a map that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    what: Collected,
}

enum Collected {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Map(Map, Option<(Rc<str>, usize)>),
}

/// Parses the only document. Neither this function nor the drop of its result is recursive
/// without bound, so no file can exhaust the stack.
fn parse(text: &str) -> Result<Option<Node>, Mistake> {
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            mistake(error.marker().line(), "file", format!("the file is not YAML: {}", shown(error.info())))
        })?;
        let line = span.start.line();
        let (node, anchor) = match event {
            Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) | Event::Scalar(_, _, _, Some(_)) => {
                return Err(mistake(line, "file", "tags such as !!str are not supported: put the string in quotes"));
            }
            Event::DocumentStart(_) if document.is_some() => {
                return Err(mistake(line, "file", "the file has a second document: put all records in one list"));
            }
            Event::SequenceStart(anchor, None) => {
                open.push(Open { line, anchor, what: Collected::List(Vec::new()) });
                continue;
            }
            Event::MappingStart(anchor, None) => {
                open.push(Open { line, anchor, what: Collected::Map(Map::new(), None) });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open { line, anchor, what }) => (closed(line, what)?, anchor),
                None => continue,
            },
            Event::Scalar(text, style, anchor, None) => {
                let null = style == ScalarStyle::Plain && ["", "~", "null", "Null", "NULL"].contains(&&*text);
                let value = if null { Value::Null } else { Value::Text(text.into()) };
                (Node { line, depth: 0, value }, anchor)
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (Node { line, ..node.clone() }, 0),
                None => return Err(mistake(line, "file", "an alias is inside its own anchor")),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut().map(|open| &mut open.what) {
            None => document = Some(node),
            Some(Collected::List(items)) => items.push(node),
            Some(Collected::Map(map, key)) => match (key.take(), node.value) {
                (Some((name, line)), value) => map.push((name, line, Node { value, ..node })),
                (None, Value::Text(name)) => *key = Some((name, line)),
                (None, other) => {
                    return Err(mistake(line, "file", format!("expected the name of an option, found {}", other.kind())));
                }
            },
        }
    }
    Ok(document)
}

/// Makes a value from a list or a map that is complete.
fn closed(line: usize, what: Collected) -> Result<Node, Mistake> {
    let (depth, value) = match what {
        Collected::List(items) => (items.iter().map(|item| item.depth).max(), Value::List(items.into())),
        Collected::Map(map, _) => (map.iter().map(|(.., value)| value.depth).max(), Value::Map(map.into())),
    };
    match depth.unwrap_or(0) + 1 {
        depth if depth <= MAX_DEPTH => Ok(Node { line, depth, value }),
        _ => Err(mistake(line, "file", "lists and objects are nested too deeply")),
    }
}

/// Returns text of the file for an error message: one line of limited length.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "…",
        None => printable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Options {
        options(r#"{"delay": "20s", "port": "8501"}"#)
    }

    fn options(json: &str) -> Options {
        Options::from_json(json).unwrap()
    }

    fn one(text: &str) -> [Text; 1] {
        [Text { name: "a.yaml".into(), text: text.to_owned() }]
    }

    #[test]
    fn session_in_two_files_is_a_mistake() {
        let files = |first: &str, second: &str| {
            let texts = [("a.yaml", first), ("b.yaml", second)];
            read(&texts.map(|(name, text)| Text { name: name.into(), text: text.into() }), &Options::default())
        };
        let records = files("- name: a\n", "- name: b\n- name: c\n").unwrap();
        let places: Vec<_> = records.iter().map(|record| (&*record.file, record.line)).collect();
        assert_eq!(places, [("a.yaml", 1), ("b.yaml", 1), ("b.yaml", 2)]);
        let mistakes = files("\n- {name: a, delay: x}\n- name: b\n", "- name: b\n").unwrap_err();
        let shown: Vec<_> = mistakes.iter().map(|mistake| (&*mistake.file, mistake.line, mistake.message.as_str())).collect();
        assert_eq!((shown[0].0, shown[0].1), ("a.yaml", 2), "{shown:?}");
        let twice = ("b.yaml", 1, "option `name`: `b` is also in line 3 of a.yaml; remove one of the two");
        assert_eq!(shown[1..], [twice]);
    }

    /// Returns the lines and options of the records.
    #[track_caller]
    fn records(text: &str) -> Vec<(usize, Options)> {
        let records = read(&one(text), &defaults()).unwrap();
        records.into_iter().map(|record| (record.line, record.options)).collect()
    }

    /// Returns line, option and message of each mistake.
    #[track_caller]
    fn mistakes(text: &str) -> Vec<(usize, String, String)> {
        let mistakes = read(&one(text), &defaults()).unwrap_err();
        mistakes.into_iter().map(|Mistake { line, option, message, .. }| (line, option, message)).collect()
    }

    #[track_caller]
    fn mistake(text: &str) -> (usize, String, String) {
        let mut mistakes = mistakes(text);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        mistakes.remove(0)
    }

    #[test]
    fn yaml_and_json_are_equivalent() {
        let expected = [
            (1, r#"{"name":"a","checks":["x","y"],"delay":"20s","port":"8501"}"#),
            (3, r#"{"name":"b","delay":"5","port":"8501"}"#),
        ]
        .map(|(line, json)| (line, options(json)));
        for text in [
            "- name: a\n  checks: [x, y]\n- name: b\n  delay: 5\n",
            "- {name: a,\n   checks: [x, y]}\n- {name: b, delay: 5, ttl: ~}\n",
            "[{\"name\": \"a\",\n \"checks\": [\"x\", \"y\"]},\n\t{\"name\": \"b\", \"delay\": 5, \"ttl\": null}]",
            "\u{feff}- name: a\r\n  checks: [x, y]\r\n- name: b\r\n  delay: 5\r\n",
        ] {
            assert_eq!(records(text), expected, "{text}");
        }
    }

    #[test]
    fn unquoted_values_are_taken_as_written() {
        for name in ["no", "007", "1e3", "0o17", "0x1F", "2026-01-02", "true", "12_000", ".inf", "1:30"] {
            let expected = [(1, options(&format!(r#"{{"name":"{name}","delay":"20s","port":"8501"}}"#)))];
            assert_eq!(records(&format!("- name: {name}")), expected);
            assert_eq!(records(&format!("- name: \"{name}\"")), expected);
        }
        assert_eq!(
            records("- {name: a, validate_certs: no, delay: '0.5'}")[0].1,
            options(r#"{"name":"a","validate_certs":"no","delay":"0.5","port":"8501"}"#)
        );
        // The option is not given, so the default applies.
        for none in ["~", "null", "Null", "NULL", ""] {
            assert_eq!(
                records(&format!("- name: a\n  delay: {none}\n"))[0].1,
                options(r#"{"name":"a","delay":"20s","port":"8501"}"#)
            );
        }
        assert_eq!(records("- name: 'null'")[0].1, options(r#"{"name":"null","delay":"20s","port":"8501"}"#));
        assert_eq!(
            mistake("- {name: a, checks: [b, ~]}").2,
            "invalid value for `checks`: a list of other things than strings (expected a list: a,b)"
        );
        assert_eq!(
            mistake("- name: ''").2,
            "invalid value `` for `name`: empty; leave the option out instead (expected a string)"
        );
    }

    #[test]
    fn records_are_merged() {
        let text = "- &base\n  name: a\n  delay: 1\n- <<: *base\n  name: b\n- {name: c, <<: [*base, {ttl: 10, delay: 2}]}\n";
        assert_eq!(
            records(text).into_iter().map(|(_, options)| options).collect::<Vec<_>>(),
            [
                options(r#"{"name":"a","delay":"1","port":"8501"}"#),
                options(r#"{"name":"b","delay":"1","port":"8501"}"#),
                options(r#"{"name":"c","delay":"1","ttl":"10","port":"8501"}"#)
            ]
        );
        assert_eq!(
            mistake("- {name: a}\n- name: b\n  <<: 5\n"),
            (3, "<<".into(), "`<<` takes the options of a record, as in `<<: *base`, and not a string".into())
        );
        // An alias has the line where it is written.
        assert_eq!(
            mistake("- &a {name: a}\n- *a\n"),
            (2, "name".into(), "option `name`: `a` is also in line 1; remove one of the two".into())
        );
    }

    #[test]
    fn mistakes_have_lines() {
        let text = "- {nmae: a, delay: 61}\n- name: b\n  token: {secret: 1}\n- secret\n-\n- name: c\n  name: d\n- {name: e, dry_run: yes}\n- name: f\n\n  state: list\n- {delay: 1}\n- name: g\n  checks: x\n  node_checks: y\n";
        let expected = [
            (1, "nmae", "unknown option `nmae`: did you mean `name`?"),
            (
                1,
                "delay",
                "invalid value `61` for `delay`: out of range (expected seconds or a duration: 20, 20s or 1m30s, 0s to 60s)",
            ),
            (3, "token", "invalid value for `token`: an object (expected a string)"),
            (4, "options", "expected a record such as {name: session1, delay: 20s}, found a string"),
            (5, "options", "expected a record such as {name: session1, delay: 20s}, found an empty value"),
            (7, "name", "option `name` is given twice in this record"),
            (8, "dry_run", "option `dry_run` is not an option of a record: use --dry-run for the whole file"),
            (11, "state", "option `state`: `list` only reads; accepted in a file: present, absent"),
            (12, "name", "option `name` is missing: without one each run would make another session"),
            (
                15,
                "node_checks",
                "option `node_checks` cannot be combined with `checks`: give the lists exactly, or `checks` alone",
            ),
        ]
        .map(|(line, option, message)| (line, option.to_owned(), message.to_owned()));
        assert_eq!(mistakes(text), expected);
    }

    #[test]
    fn files_without_a_list_are_rejected() {
        const EXPECTED: &str = "expected a list of records such as [{name: session1, delay: 20s}]";
        for (text, line, what) in [
            ("", 1, "the file is empty"),
            ("# nothing\n---\n", 3, "the file is empty"),
            ("null", 1, "the file is empty"),
            ("name: a", 1, "the file holds an object"),
            ("\nname", 2, "the file holds a string"),
        ] {
            assert_eq!(mistake(text), (line, "file".into(), format!("{what}: {EXPECTED}")), "{text}");
        }
        assert!(read(&one("[]"), &defaults()).unwrap().is_empty());
        for (text, line, message) in [
            (
                "- name: a\n b: c\n",
                2,
                "the file is not YAML: while parsing a block collection, did not find expected '-' indicator",
            ),
            ("[{\"name\": \"a\"}\n", 2, "the file is not YAML: while parsing a flow sequence, expected ',' or ']'"),
            ("- name: *a", 1, "the file is not YAML: while parsing node, found unknown anchor"),
            ("- name: a\n---\n- name: b\n", 2, "the file has a second document: put all records in one list"),
            ("- name: !!str 5", 1, "tags such as !!str are not supported: put the string in quotes"),
            ("- name: a\n  [b]: c\n", 2, "expected the name of an option, found a list"),
            ("- &a [*a]", 1, "an alias is inside its own anchor"),
        ] {
            assert_eq!(mistake(text), (line, "file".into(), message.into()), "{text}");
        }
    }

    #[test]
    fn duplicate_sessions_are_rejected() {
        const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
        let text = format!(
            "- {{name: b}}\n- {{name: b, delay: 1}}\n- {{name: a, node: N}}\n- {{name: a, node: n}}\n- {{id: {ID}}}\n- {{id: {}, name: b}}\n- {{name: a, datacenter: d}}\n- {{name: a, port: 1}}\n",
            ID.to_uppercase()
        );
        let expected = [
            (2, "name", "option `name`: `b` is also in line 1; remove one of the two".to_owned()),
            (4, "name", "option `name`: `a` on node `n` is also in line 3; remove one of the two".to_owned()),
            (6, "id", format!("option `id`: the session {ID} is also in line 5; remove one of the two")),
        ]
        .map(|(line, option, message)| (line, option.to_owned(), message));
        assert_eq!(mistakes(&text), expected);
    }

    #[test]
    fn name_with_and_without_a_node_is_rejected() {
        for (text, line, message) in [
            ("- {name: a}\n- {name: a, node: n}\n", 2, "`a` is in line 1 without a node and here with one"),
            (
                "- {name: a, node: n}\n- {name: b}\n- {name: a, state: absent}\n",
                3,
                "`a` is in line 1 with a node and here without one",
            ),
        ] {
            let message = format!("option `node`: {message}, and both can be the same session: give `node` in both");
            assert_eq!(mistake(text), (line, "node".into(), message), "{text}");
        }
        assert_eq!(records("- {name: a, node: n}\n- {name: a, node: m}\n- {name: b}\n- {name: a, port: 1}\n").len(), 4);
    }

    #[test]
    fn hostile_files_are_rejected() {
        let deep = (2, "file".into(), "lists and objects are nested too deeply".into());
        let parser = (2, "file".into(), "the file is not YAML: recursion limit exceeded".into());
        assert_eq!(mistake(&format!("\n{}{}", "[".repeat(100), "]".repeat(100))), deep);
        assert_eq!(mistake(&format!("\n{}{}", "[".repeat(100_000), "]".repeat(100_000))), parser);
        assert_eq!(mistake(&format!("\n{}", "- ".repeat(10_000))), deep);
        let mut chain = "- &a0 [x]\n".to_owned();
        (1..100_000).for_each(|at| chain += &format!("- &a{at} [*a{}]\n", at - 1));
        assert_eq!(mistake(&chain).2, "lists and objects are nested too deeply");
        let laughs = "- &a {name: a, delay: 1}\n- &b {<<: [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]}\n".to_owned()
            + &"- {checks: &c [x, x, x, x, x]}\n".repeat(10);
        assert!(read(&one(&laughs), &defaults()).is_err());
        let list =
            format!("- {{name: a, checks: &c [{}]}}\n", "x, ".repeat(10_000)) + &"- {name: b, checks: *c}\n".repeat(10_000);
        assert!(mistakes(&list).iter().any(|(.., message)| message == "with its aliases the file has over 2000000 values"));
        let merges = format!(
            "- &a {{{}}}\n- {{<<: [{}]}}\n",
            (0..10_000).map(|at| format!("k{at}: 1, ")).collect::<String>(),
            "*a, ".repeat(10_000)
        );
        assert!(mistakes(&merges).iter().any(|(.., message)| message == "with its aliases the file has over 2000000 values"));
    }
}
