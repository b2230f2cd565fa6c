//! `present` by name: one loop for every caller, whatever it wants.
//!
//! # The rule
//!
//! *The session of a name is the oldest of that name on the node*: the one with the lowest create
//! index, which is the same for every reader. Consul has no "create if it does not exist", names are
//! not unique, and a repeated creation cannot be told from a first one. So the loop looks, does the
//! one thing that the rule asks for, and looks again, until the oldest session is as wanted. Every
//! look is `consistent`: an answer names a session that was there.
//!
//! - There is none: create one.
//! - The oldest is as wanted: that is the answer.
//! - It differs, with `on_mismatch=fail`: that is the error.
//! - It differs, with `on_mismatch=replace`: create one, which has from the oldest what the options
//!   do not give, unless one like that is there already, and destroy the older ones. So an
//!   interrupted replacement is finished by the next call.
//! - An own session that is not the one to stay is destroyed. One that vanished is forgotten.
//!
//! Before a session is destroyed in favour of another caller's, the loop looks once more whether
//! that one is still there: Consul has no compare-and-set for sessions, so this narrows the time in
//! which both can go, and cannot close it.

use super::{OwnNode, Run, created, ids, mismatch, node_required, note_ttl, on_node, select, unchanged};
use crate::consul::Query;
use crate::duration;
use crate::error::{Error, ErrorKind};
use crate::options::{OnMismatch, SessionId};
use crate::outcome::Outcome;
use crate::session::Session;

/// The most sessions that one call creates. A call that is alone creates one. It creates another if
/// the one before is gone at the next look, since another caller replaced it or a check failed.
const CREATIONS: usize = 3;

/// The most looks of one call. Two or three suffice if it is alone, and three to each creation more
/// if it is not.
const LOOKS: usize = 20;

/// How long the loop waits before it does what another caller is probably about to do: to destroy
/// what that one has replaced, or to create what vanished.
const PATIENCE: i64 = 200 * duration::MILLISECOND;

/// How long the loop waits before it looks a second time for a session whose creation got no answer.
const LATE_WRITE: i64 = duration::SECOND;

/// What a look asks for.
enum Step {
    /// This one is the session of the name, and as wanted.
    Keep(Session),
    /// This one is the session of the name, and differs.
    Differs(Session),
    /// The first replaces these, which are older.
    Replace(Session, Vec<Session>),
    Create,
}

/// What the loop has done so far.
#[derive(Default)]
struct Progress {
    /// The node whose sessions are meant, once it matters.
    node: Option<OwnNode>,
    /// The ids at the first look.
    before: Vec<String>,
    /// The session that it created last, until a look does not show it.
    own: Option<SessionId>,
    /// The ids of all that it created.
    created: Vec<String>,
    /// The older sessions that it destroyed.
    replaced: Vec<Session>,
    /// The error of the creation whose answer was lost.
    lost: Option<Error>,
    /// Whether it has waited for a session of that creation to appear.
    waited: bool,
    /// The session in whose favour others would be destroyed, at the last look.
    favoured: Option<String>,
}

impl Progress {
    /// Returns the error for a step that changes something and failed, with what was destroyed before.
    fn after_destroying(&self, error: Error) -> Error {
        match self.replaced.as_slice() {
            [] => error,
            replaced => error.context(&format!("destroyed before: {}", ids(replaced))),
        }
    }

    /// Returns the error for a step that says itself what was done, except that a creation may have
    /// happened.
    fn in_doubt(&self, error: Error) -> Error {
        if self.lost.is_some() { self.interrupted(error) } else { error }
    }

    /// Returns the error for a step that failed, with what was done before it.
    fn interrupted(&self, error: Error) -> Error {
        if let Some(lost) = &self.lost {
            return lost.clone().into_outcome_unknown("the creation of the session").context(&error.message);
        }
        let done = match &self.own {
            Some(own) => format!(
                "session {} was created, but whether another caller created one of that name at the same time could not be \
                 checked: do the same again, which finds it",
                own.as_str()
            ),
            None if !self.replaced.is_empty() => {
                format!("destroyed: {}; do the same again, which finishes it", ids(&self.replaced))
            }
            None => return error,
        };
        Error::new(ErrorKind::OutcomeUnknown, format!("{error}; {done}"))
    }
}

impl Run<'_> {
    pub(super) fn present_name(&mut self, name: &str) -> Result<Outcome, Error> {
        let mut progress = Progress { node: self.plan.given.node.clone().map(OwnNode::Node), ..Progress::default() };
        for look in 0..LOOKS {
            let seen = self.named(name, &Query::CONSISTENT).map_err(|error| progress.interrupted(error))?.sessions;
            if look == 0 {
                progress.before = seen.iter().map(|session| session.id.clone()).collect();
            }
            let peers = self.peers(&seen, &mut progress)?;
            let step = self.next_step(&peers, progress.own.as_ref());
            let outcome = match self.plan.dry_run {
                true => Some(self.planned_step(step, &peers, &seen, &progress)?),
                false => self.take(step, &peers, &mut progress).map_err(|error| progress.after_destroying(error))?,
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
        Err(progress.interrupted(Error::new(ErrorKind::Other, format!("the sessions named `{name}` did not settle"))))
    }

    /// Returns the sessions of the name that are on the node which is meant. An own session is on
    /// it, so the agent is asked for its node only where there is none.
    fn peers(&mut self, seen: &[Session], progress: &mut Progress) -> Result<Vec<Session>, Error> {
        let own = progress.own.take_if(|own| !seen.iter().any(|session| session.id == own.as_str()));
        if let Some(vanished) = own {
            // Another caller replaced it, or this one destroyed it.
            if !matches!(&progress.favoured, Some(other) if other != vanished.as_str()) {
                self.consul.transport.pause(PATIENCE);
            }
        }
        let own = seen.iter().find(|session| progress.own.as_ref().is_some_and(|own| session.id == own.as_str()));
        if let Some(own) = own {
            progress.node = Some(OwnNode::Node(own.node.clone()));
        } else if progress.node.is_none() && !seen.is_empty() {
            // Without candidates the node does not matter, and reading it needs a permission.
            progress.node = Some(self.own_node().map_err(|error| progress.interrupted(error))?);
        }
        Ok(match &progress.node {
            Some(OwnNode::Node(node)) => on_node(seen, node),
            Some(OwnNode::Unknown) | None => Vec::new(),
        })
    }

    /// Applies the rule to the sessions of the name on the node, oldest first.
    fn next_step(&self, peers: &[Session], own: Option<&SessionId>) -> Step {
        let Some((oldest, younger)) = peers.split_first() else { return Step::Create };
        if own.is_some_and(|own| oldest.id == own.as_str()) || self.plan.matches(oldest) {
            return Step::Keep(oldest.clone());
        }
        if self.plan.on_mismatch == OnMismatch::Fail {
            return Step::Differs(oldest.clone());
        }
        let wanted = self.plan.new_session(Some(oldest)).planned();
        match younger.iter().find(|session| self.plan.matches(session) && session.is_like(&wanted)) {
            Some(wanted) => {
                let older = select(peers, &|peer| peer.age() < wanted.age());
                Step::Replace(wanted.clone(), older)
            }
            // The own one has the properties of a session that another caller replaced meanwhile.
            None if own.is_some() => Step::Differs(oldest.clone()),
            None => Step::Create,
        }
    }

    /// Does what the step asks for. Returns the outcome if that was the last one.
    fn take(&mut self, step: Step, peers: &[Session], progress: &mut Progress) -> Result<Option<Outcome>, Error> {
        let favoured = match &step {
            Step::Keep(session) | Step::Differs(session) | Step::Replace(session, _) => session,
            Step::Create => return self.create_one(peers.first(), progress).map(|()| None),
        };
        let own = progress.own.clone().filter(|own| own.as_str() != favoured.id);
        let is_confirmed = progress.favoured.replace(favoured.id.clone()).as_ref() == Some(&favoured.id);
        if let Some(own) = own {
            if is_confirmed {
                self.consul.destroy(&own).map_err(|error| {
                    let stays = if error.is_ambiguous() { "may stay" } else { "stays" };
                    error.context(&format!(
                        "session {} {stays} beside the older {} of the same name",
                        own.as_str(),
                        favoured.id
                    ))
                })?;
            }
            return Ok(None);
        }
        match step {
            Step::Keep(session) => Ok(Some(self.kept(session, peers, progress))),
            Step::Differs(session) => {
                let error = self.mismatch_by_name(&session, peers);
                Err(progress.in_doubt(error))
            }
            Step::Replace(session, older) => {
                let is_own = progress.created.contains(&session.id);
                if is_own || is_confirmed {
                    self.destroy_all(&older).map_err(|error| {
                        let role = if is_own { "was created to replace it" } else { "is there to replace it" };
                        let error = error.context(&format!("session {} {role}", session.id));
                        progress.in_doubt(error)
                    })?;
                    let is_new = |old: &Session| !progress.replaced.iter().any(|replaced| replaced.id == old.id);
                    let new = select(&older, &is_new);
                    progress.replaced.extend(new);
                } else {
                    self.consul.transport.pause(PATIENCE);
                }
                Ok(None)
            }
            Step::Create => Ok(None),
        }
    }

    /// Creates a session, which is to replace the given one.
    fn create_one(&mut self, replaced: Option<&Session>, progress: &mut Progress) -> Result<(), Error> {
        if let Some(lost) = &progress.lost {
            // The write may still be on its way, and be done after a look that does not show it. So
            // the outcome stays unknown, and no second session is created.
            if progress.waited {
                return Err(lost.clone().into_outcome_unknown("the creation of the session"));
            }
            progress.waited = true;
            self.consul.transport.pause(LATE_WRITE);
            return Ok(());
        }
        if progress.created.len() == CREATIONS {
            return Err(Error::new(
                ErrorKind::Other,
                format!(
                    "the sessions of this name did not settle: {} were created, and none stayed, since other clients create, \
                     replace or destroy sessions of this name at the same time, or one of the checks fails",
                    progress.created.join(", ")
                ),
            ));
        }
        progress.favoured = None;
        match self.consul.create(&self.plan.new_session(replaced)) {
            Ok(id) => {
                progress.created.push(id.as_str().to_owned());
                progress.own = Some(id);
            }
            Err(error) if error.is_ambiguous() => progress.lost = Some(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns the outcome with the session that stays.
    fn kept(&self, session: Session, peers: &[Session], progress: &mut Progress) -> Outcome {
        let is_new = progress.created.contains(&session.id);
        let was_before = progress.before.contains(&session.id);
        let others = select(peers, &|peer| peer.id != session.id);
        let replaced = std::mem::take(&mut progress.replaced);
        // After a lost answer, what was not there before is the session of that creation, or an
        // equal one of another caller.
        let is_found = progress.lost.is_some() && !was_before;
        let mut outcome = if is_new || is_found || !replaced.is_empty() {
            let mut outcome = created(session.clone(), replaced, others);
            if !is_new && !is_found {
                note_ttl(&session, &mut outcome.notes);
                outcome.diff.get_or_insert_default().before.push(session);
            }
            outcome
        } else {
            unchanged(session, others)
        };
        match &progress.lost {
            Some(lost) => outcome.notes.push(format!(
                "the answer to the creation was lost ({lost}): the session found afterwards may be another caller's, and a \
                 younger one of this call may exist, or appear later"
            )),
            None if !is_new && !was_before && !progress.created.is_empty() => {
                outcome.notes.push("another caller created it at the same moment".into());
            }
            None => {}
        }
        outcome
    }

    /// Returns the outcome of a dry run, which ends with the first look.
    fn planned_step(&mut self, step: Step, peers: &[Session], seen: &[Session], progress: &Progress) -> Result<Outcome, Error> {
        match step {
            Step::Keep(session) => {
                let others = select(peers, &|peer| peer.id != session.id);
                Ok(unchanged(session, others))
            }
            Step::Differs(session) => Err(self.mismatch_by_name(&session, peers)),
            Step::Replace(session, older) => {
                let others = select(peers, &|peer| peer.age() > session.age());
                let mut outcome = created(session.clone(), older, others);
                note_ttl(&session, &mut outcome.notes);
                outcome.diff.get_or_insert_default().before.push(session);
                Ok(outcome)
            }
            Step::Create if matches!(progress.node, Some(OwnNode::Unknown)) => Err(node_required(seen)),
            Step::Create => self.planned(peers.to_vec()),
        }
    }

    fn mismatch_by_name(&self, session: &Session, peers: &[Session]) -> Error {
        let error = mismatch(
            session,
            self.plan.differences(session),
            "on_mismatch=replace creates a new one and destroys it, which frees its locks under its lock delay",
        );
        let younger = select(peers, &|peer| peer.id != session.id);
        match younger.iter().find(|peer| self.plan.matches(peer)) {
            Some(wanted) => error.context(&format!("the younger session {} of that name matches", wanted.id)),
            None if younger.is_empty() => error,
            None => error.context(&format!("{} more of that name differ too", younger.len())),
        }
    }
}
