//! The error of a call.

use crate::bindings::Error;
use crate::limits::Exceeded;
use std::fmt;

/// The reason why a call has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin's answer: a case to compare, and a message of at most 4096 bytes. Where the host
    /// knows more about the cause (which rule to add, what is wrong with a certificate), the
    /// message is the host's. It never shows a token of the host.
    Plugin(Error),
    /// The component was stopped at one of the host's [`Limits`](crate::Limits). A change that it
    /// had begun may have happened.
    Stopped(Exceeded),
    /// The component trapped, or could not be instantiated. A change that it had begun may have
    /// happened.
    Trapped(wasmtime::Error),
}

/// The longest message of an error, in bytes. The plugin's own messages are far shorter; another
/// component's could fill a log.
const MAX_MESSAGE_LENGTH: usize = 4096;

impl CallError {
    /// Returns the component's error, with its message cut to [`MAX_MESSAGE_LENGTH`] and then
    /// redacted.
    pub(crate) fn from_plugin(mut error: Error, redact: impl FnOnce(&mut String)) -> CallError {
        let message = error.message_mut();
        if message.len() > MAX_MESSAGE_LENGTH {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_LENGTH));
            message.push('…');
        }
        redact(message);
        CallError::Plugin(error)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Plugin(error) => f.write_str(error.message()),
            CallError::Stopped(exceeded) => exceeded.fmt(f),
            // The root cause alone: the backtrace has function names, which the component chooses.
            // `Debug` shows them.
            CallError::Trapped(error) => write!(f, "the component failed: {}", error.root_cause()),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Display` has the text of the cause already.
        None
    }
}

impl From<wasmtime::Error> for CallError {
    fn from(error: wasmtime::Error) -> CallError {
        match error.downcast::<Exceeded>() {
            Ok(exceeded) => CallError::Stopped(exceeded),
            Err(error) => CallError::Trapped(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::NodeRequired;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let cut = |length: usize| {
            let required = NodeRequired { nodes: vec!["n1".into()], message: "ü".repeat(length) };
            let CallError::Plugin(Error::NodeRequired(required)) =
                CallError::from_plugin(Error::NodeRequired(required), |_| {})
            else {
                panic!("another case")
            };
            assert_eq!(required.nodes, ["n1"]);
            required.message
        };
        assert_eq!(cut(MAX_MESSAGE_LENGTH / 2), "ü".repeat(MAX_MESSAGE_LENGTH / 2));
        assert_eq!(cut(MAX_MESSAGE_LENGTH / 2 + 1), "ü".repeat(MAX_MESSAGE_LENGTH / 2) + "…");
        let odd = CallError::from_plugin(Error::Other("x".to_owned() + &"ü".repeat(MAX_MESSAGE_LENGTH)), |_| {});
        assert_eq!(odd.to_string(), "x".to_owned() + &"ü".repeat(MAX_MESSAGE_LENGTH / 2 - 1) + "…");
    }
}
