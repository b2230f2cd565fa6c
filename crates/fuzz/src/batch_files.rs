//! Files of option records.

use crate::batch_file::{Record, Text, read};
use crate::support::canonical;
use consul_session::Options;
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads the input as files of records, of which each begins after a form feed.
///
/// Each mistake is one line at a line of its file. Records that are accepted are equal after they
/// were written as JSON and read again, and no two of them are for the same session.
pub fn batch_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files: Vec<Text> = text
        .split('\u{c}')
        .take(4)
        .zip(["a", "b", "c", "d"])
        .map(|(text, name)| Text { name: name.into(), text: text.into() })
        .collect();
    let defaults = Options::from_json(r#"{"delay": "20s", "port": 8501}"#).unwrap_or_default();
    match read(&files, &defaults) {
        Ok(records) => check_records(&records),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in &mistakes {
                let file = files.iter().find(|file| file.name == mistake.file);
                let lines = file.map(|file| file.text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count());
                assert!(lines.is_some_and(|lines| (1..=lines + 1).contains(&mistake.line)), "{mistake:?} of {lines:?} lines");
                assert!(!mistake.message.is_empty(), "{mistake:?}");
                assert!(!mistake.message.contains(['\n', '\r', '\u{1b}']), "not one line: {mistake:?}");
            }
        }
    }
}

fn check_records(records: &[Record]) {
    let mut sessions = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        let mut identity = canonical(&record.options);
        // What is not part of the identity. An id is one whatever the name, which is then compared.
        let has_id = identity.contains_key("id");
        identity.retain(|name, _| match name.as_str() {
            "id" | "host" | "port" | "datacenter" | "namespace" | "partition" => true,
            "name" | "node" => !has_id,
            _ => false,
        });
        if let Some(Value::String(node)) = identity.get_mut("node") {
            *node = node.to_ascii_lowercase();
        }
        let same = sessions.insert(Value::from(identity).to_string(), at);
        assert!(same.is_none(), "the same session twice: {record:?}");
    }
    let json: Vec<Value> = records.iter().map(|record| Value::from(canonical(&record.options))).collect();
    let text = Text { name: "again".into(), text: Value::from(json).to_string() };
    match read(&[text], &Options::default()) {
        Ok(again) => {
            let options = |records: &[Record]| records.iter().map(|record| record.options.clone()).collect::<Vec<_>>();
            assert_eq!(options(&again), options(records));
        }
        Err(mistakes) => panic!("{mistakes:?}: {records:?}"),
    }
}
