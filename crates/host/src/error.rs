//! Why a call has no answer.

use crate::bindings::Error;
use crate::limits::Exceeded;
use std::fmt;

/// Why a call has no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// What the plugin answered: a case to compare and a text to show, of which no more than 4096 bytes are kept. Where the host
    /// knows more of the cause (which rule to add, what is wrong with a certificate), the text is the host's.
    Plugin(Error),
    /// The component was stopped at one of the host's [`Limits`](crate::Limits). A change that it had begun may have happened.
    Stopped(Exceeded),
    /// The component trapped, or could not be started. A change that it had begun may have happened.
    Trapped(wasmtime::Error),
}

/// How much of an error's text is kept, in bytes. The plugin's own are far shorter; another component's could fill a log.
const LONGEST: usize = 4096;

impl CallError {
    /// The component's answer, with a text of no more than [`LONGEST`].
    pub(crate) fn answered(mut error: Error) -> CallError {
        let message = error.message_mut();
        if message.len() > LONGEST {
            message.truncate(message.floor_char_boundary(LONGEST));
            message.push('…');
        }
        CallError::Plugin(error)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Plugin(error) => f.write_str(error.message()),
            CallError::Stopped(exceeded) => exceeded.fmt(f),
            // Without the functions in which it happened, whose names are the component's. `Debug` has them.
            CallError::Trapped(error) => write!(f, "the component failed: {}", error.root_cause()),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Their texts are this one's own.
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
            let CallError::Plugin(Error::NodeRequired(required)) = CallError::answered(Error::NodeRequired(required)) else {
                panic!("another case")
            };
            assert_eq!(required.nodes, ["n1"]);
            required.message
        };
        assert_eq!(cut(LONGEST / 2), "ü".repeat(LONGEST / 2));
        assert_eq!(cut(LONGEST / 2 + 1), "ü".repeat(LONGEST / 2) + "…");
        let odd = CallError::answered(Error::Other("x".to_owned() + &"ü".repeat(LONGEST)));
        assert_eq!(odd.to_string(), "x".to_owned() + &"ü".repeat(LONGEST / 2 - 1) + "…");
    }
}
