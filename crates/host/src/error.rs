//! Why a call has no answer.

use crate::limits::Exceeded;
use consul_session::error::{Case, Error, Parts};
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
    pub(crate) fn answered(error: Error) -> CallError {
        if error.message.len() <= LONGEST {
            return CallError::Plugin(error);
        }
        let Parts { case, mut message } = error.into_parts();
        message.truncate(message.floor_char_boundary(LONGEST));
        CallError::Plugin(case.because(message + "…"))
    }

    /// What the plugin answered, if it did.
    pub fn case(&self) -> Option<&Case> {
        match self {
            CallError::Plugin(error) => Some(&error.case),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Plugin(error) => error.fmt(f),
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

/// As the core's commands print it: what is not the plugin's answer is `other`.
impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        match error {
            CallError::Plugin(error) => error,
            error => Case::Other.because(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = |length: usize| {
            let error = Case::NodeRequired { nodes: vec!["n1".into()] }.because("ü".repeat(length));
            let CallError::Plugin(error) = CallError::answered(error) else { panic!("another case") };
            assert_eq!(error.case, Case::NodeRequired { nodes: vec!["n1".into()] });
            error.into_parts().message
        };
        assert_eq!(text(LONGEST / 2), "ü".repeat(LONGEST / 2));
        assert_eq!(text(LONGEST / 2 + 1), "ü".repeat(LONGEST / 2) + "…");
        let odd = CallError::answered(Case::Other.because("x".to_owned() + &"ü".repeat(LONGEST)));
        assert_eq!(odd.to_string(), "x".to_owned() + &"ü".repeat(LONGEST / 2 - 1) + "…");
    }
}
