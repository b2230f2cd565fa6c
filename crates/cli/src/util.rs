//! Small functions that several commands share.

use consul_session::error::Error;
use serde_json::Value;

/// Reads standard input to its end.
pub fn read_stdin() -> Result<String, Error> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|error| Error::invalid("options", format!("the options on standard input cannot be read: {error}")))
}

/// Adds the members of one JSON object to another.
pub fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
