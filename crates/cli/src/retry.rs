//! Which errors of a call a retry can mend.

use consul_session_host::{CallError, Error, Exceeded};

/// Returns whether a retry cannot mend the error. Once a call has succeeded (`has_begun`), only a
/// time limit of the host is final.
pub fn is_final(error: &CallError, has_begun: bool) -> bool {
    match error {
        // No blocking query ends within such a limit.
        CallError::Stopped(Exceeded::Time(_)) => true,
        _ if has_begun => false,
        CallError::Plugin(error) => match error {
            Error::Unreachable(_) | Error::Timeout(_) | Error::Unavailable(_) | Error::InvalidResponse(_) => false,
            Error::Refused(refusal) => refusal.status < 500,
            _ => true,
        },
        _ => true,
    }
}
