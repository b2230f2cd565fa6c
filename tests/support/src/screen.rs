//! Screens: what a program prints, compared without what differs between runs.

use std::collections::HashMap;

/// Returns the text without what differs between runs.
///
/// Ids are replaced by their order. Times, sizes and Consul's indexes are replaced by `#`, and so
/// are ages in seconds if `ages` is set.
pub fn masked(text: &str, ages: bool) -> String {
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut masked = String::new();
    let is_id = |part: &&str| part.len() == 36 && part.matches('-').count() == 4;
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        for (at, word) in words.iter().enumerate() {
            let next = words.get(at + 1).map(|word| word.trim_end_matches([',', ';']));
            let seconds = word.strip_suffix('s').is_some_and(is_number);
            let id = word.split(|c: char| !c.is_ascii_hexdigit() && c != '-').find(is_id);
            if at > 0 {
                masked.push(' ');
            }
            if let Some(id) = id {
                let known = ids.len();
                let number = *ids.entry(id.to_owned()).or_insert(known);
                masked += &word.replace(id, &format!("{number:036}"));
            } else if is_number(word) && next.is_some_and(|next| ["s", "ms", "B"].contains(&next)) || ages && seconds {
                masked.push('#');
            } else if at > 0 && words[at - 1].ends_with("index:") {
                masked += "#,";
            } else {
                masked += word;
            }
        }
        masked.push('\n');
    }
    masked
}
