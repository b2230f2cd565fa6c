//! Options as JSON.

use crate::support::{SECRET, canonical, check_redacted, check_refusal};
use consul_session::Options;
use consul_session::apply::Plan;
use consul_session::options::{self, Kind};
use serde_json::{Value, json};

/// Parses the input as options. What is accepted is equal after it was written and parsed again;
/// what is refused has an error that names the option and shows no secret.
pub fn options_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Options::from_json(text) {
        Ok(options) => {
            let json = Value::from(canonical(&options)).to_string();
            assert_eq!(Options::from_json(&json).as_ref(), Ok(&options), "{json}");
            if let Err(error) = Plan::new(options) {
                check_refusal(&error);
            }
        }
        Err(error) => check_refusal(&error),
    }
    let Ok(mut object) = options::json_object(text) else { return };
    let mut has_secret = false;
    for (name, value) in object.iter_mut() {
        // An unknown name may be a misspelt `token`.
        if options::info(name).is_none_or(|info| info.kind == Kind::Secret) {
            *value = if name.len().is_multiple_of(2) { json!([SECRET]) } else { SECRET.into() };
            has_secret = true;
        }
    }
    if has_secret {
        let error = Options::from_json(&Value::from(object).to_string()).expect_err("neither name nor value is valid");
        check_redacted(&error.message);
    }
}
