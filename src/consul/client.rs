//! A client with one method per operation.

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::create::{self, NewSession};
use super::lock::{self, Verb};
use super::read::{self, Listing, Query, Scope};
use super::{agent, authorize, destroy, renew, semaphore};
use crate::duration;
use crate::error::{Error, ErrorKind, excerpt, from_status};
use crate::lock::{Acquisition, Contents, Holding, Key};
use crate::options::SessionId;
use crate::semaphore::{Prefix, Semaphore, SlotAcquisition, Slots};
use crate::session::Session;
use crate::transport::{Method, Request, Response, Transport};

/// The longest pause before the second attempt, in nanoseconds. It doubles for each further one.
const FIRST_PAUSE: i64 = 100 * duration::MILLISECOND;
/// An election takes a few seconds: with longer pauses a call would sleep past its end.
const LONGEST_PAUSE: i64 = 2 * duration::SECOND;

/// How often a change of a semaphore is tried while other clients change it too. Each time one of
/// them succeeds.
const SWAPS: usize = 20;

/// A connection, and the transport that sends its requests.
///
/// # Errors
///
/// The methods fail with the errors of the [transport](Transport::send) and of
/// [`from_status`](crate::error::from_status), [`InvalidResponse`](ErrorKind::InvalidResponse) and
/// [`ResponseTooLarge`](ErrorKind::ResponseTooLarge). Changes other than [`create`](Client::create)
/// replace an [ambiguous](Error::is_ambiguous) error with
/// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown).
pub struct Client<'a> {
    /// How to reach Consul.
    pub connection: &'a Connection,
    /// What sends the requests.
    pub transport: &'a mut dyn Transport,
}

impl Client<'_> {
    /// Sends a request and reads its response.
    fn call<T>(&mut self, request: &Request, read: impl FnOnce(&Response) -> Result<T, Error>) -> Result<T, Error> {
        self.exchange(request, true, read)
    }

    /// Sends a read and reads its response. A blocking query is not repeated: its caller sends the
    /// next one anyway, with an index that it chooses anew.
    fn query<T>(
        &mut self,
        request: &Request,
        query: &Query,
        read: impl FnOnce(&Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.exchange(request, query.index == 0, read)
    }

    fn exchange<T>(
        &mut self,
        request: &Request,
        repeats: bool,
        read: impl FnOnce(&Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (response, attempts) = self.send(request, repeats);
        response.and_then(|response| read(&response)).map_err(|error| self.explain(error, request, attempts))
    }

    /// Sends a request. If it `repeats`, sends it again while Consul is unavailable, as long as the
    /// timeout permits and that can do no harm. Returns the last response, and how often it was sent.
    fn send(&mut self, request: &Request, repeats: bool) -> (Result<Response, Error>, u32) {
        let reads = request.method != Method::Put;
        let (mut attempts, mut pause, mut last) = (1, FIRST_PAUSE, None);
        loop {
            let response = self.transport.send(request);
            let again = |response: &Response| {
                response.status >= 400 && from_status(response.status, &response.body).is_worth_retrying(reads)
            };
            if !repeats || !response.as_ref().is_ok_and(again) || !self.transport.pause(pause) {
                let is_late = response.as_ref().is_err_and(|error| error.kind == ErrorKind::Timeout);
                // Why a read took so long is in the answer before. A change may have happened.
                let response = last.filter(|_| is_late && reads).map_or(response, Ok);
                return (response, attempts);
            }
            last = response.ok();
            attempts += 1;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Adds context to the error of a call. This is the one place that keeps the token out of every
    /// error: Consul or a proxy may echo it.
    fn explain(&self, error: Error, request: &Request, attempts: u32) -> Error {
        let error = match error.kind {
            // Consul does not name the unknown datacenter or node.
            ErrorKind::UnknownDatacenter => error.context(&self.connection.query),
            ErrorKind::UnknownNode => error.context(&excerpt(&request.body)),
            _ if attempts > 1 => error.context(&format!("this was attempt {attempts}")),
            _ => error,
        };
        match &request.token {
            Some(token) => error.redact(token.secret()),
            None => error,
        }
    }

    /// Creates a session and returns its id: `PUT /v1/session/create`. After an
    /// [ambiguous](Error::is_ambiguous) error the session may exist.
    pub fn create(&mut self, session: &NewSession) -> Result<SessionId, Error> {
        self.call(&create::request(self.connection, session), create::response)
    }

    /// Destroys a session: `PUT /v1/session/destroy/<id>`. Succeeds whether or not the session
    /// existed. Retries once after a lost response, since a second destruction changes nothing.
    pub fn destroy(&mut self, id: &SessionId) -> Result<(), Error> {
        let request = destroy::request(self.connection, id);
        match self.call(&request, destroy::response) {
            // The second error, such as that nothing was sent, does not apply to the first attempt.
            Err(lost) if lost.is_ambiguous() => self.call(&request, destroy::response).or(Err(lost)),
            result => result,
        }
        .map_err(|error| error.into_outcome_unknown("the destruction of the session"))
    }

    /// Renews a session and returns it: `PUT /v1/session/renew/<id>`. Fails with
    /// [`NotFound`](ErrorKind::NotFound) if the session does not exist.
    ///
    /// A new leader says of any session that it does not exist until it has applied what its
    /// predecessor committed. So only a consistent read, which waits for that, is believed.
    pub fn renew(&mut self, id: &SessionId) -> Result<Session, Error> {
        let request = renew::request(self.connection, id);
        let result = match self.call(&request, |response| renew::response(response, id)) {
            Err(error) if error.kind == ErrorKind::NotFound => {
                match self.sessions(&Scope::Id(id.clone()), &Query::CONSISTENT)?.sessions.is_empty() {
                    true => Err(error),
                    false => self.call(&request, |response| renew::response(response, id)),
                }
            }
            result => result,
        };
        result.map_err(|error| error.into_outcome_unknown("the renewal"))
    }

    /// Reads sessions: `GET /v1/session/info/<id>`, `/node/<name>` or `/list`.
    pub fn sessions(&mut self, scope: &Scope, query: &Query) -> Result<Listing, Error> {
        let with_token = self.connection.token.is_some();
        self.query(&read::request(self.connection, scope, query), query, |response| read::response(response, with_token))
    }

    /// Reads the name of the agent's own node: `GET /v1/agent/self`.
    pub fn own_node(&mut self) -> Result<String, Error> {
        self.call(&agent::request(self.connection), agent::response)
    }

    /// Returns whether the token permits reading the sessions of this node:
    /// `POST /v1/internal/acl/authorize`.
    pub fn may_read(&mut self, node: &str) -> Result<bool, Error> {
        self.call(&authorize::request(self.connection, node), authorize::response)
    }

    /// Acquires or releases a key for the session: `PUT /v1/txn`. The release of a key that the
    /// session does not hold returns [`Held`](Acquisition::Held).
    pub fn lock(&mut self, verb: Verb, key: &Key, id: &SessionId, contents: Option<&Contents>) -> Result<Acquisition, Error> {
        if self.connection.namespace.is_some() || self.connection.partition.is_some() {
            // Community Edition ignores these fields of an operation and would lock another key. It
            // rejects them in the query of a read.
            self.holder(key, &Query::default())?;
        }
        let request = lock::request(self.connection, verb, key, id, contents);
        self.call(&request, |response| lock::response(response, id, contents))
            .map_err(|error| error.into_outcome_unknown("the change of the lock"))
    }

    /// Acquires a slot of a semaphore for the session. Does not wait.
    pub fn acquire_slot(
        &mut self,
        prefix: &Prefix,
        id: &SessionId,
        limit: u32,
        value: &[u8],
    ) -> Result<SlotAcquisition, Error> {
        for _ in 0..SWAPS {
            let (mut slots, index) = self.slots(prefix, &Query::CONSISTENT)?;
            if slots.is_foreign {
                return Ok(SlotAcquisition::NotASemaphore);
            }
            match slots.limit {
                // Without holders the limit of those before does not matter.
                Some(other) if other != limit && !slots.holders.is_empty() => return Ok(SlotAcquisition::OtherLimit(other)),
                _ if slots.holders.iter().any(|holder| holder == id.as_str()) => return Ok(SlotAcquisition::Acquired),
                _ if slots.holders.len() >= limit as usize => return Ok(SlotAcquisition::Full(index)),
                _ => slots.holders.push(id.as_str().to_owned()),
            }
            let request = semaphore::acquire(self.connection, prefix, id, limit, &slots, value);
            if self.swap(&request, id)? {
                return Ok(SlotAcquisition::Acquired);
            }
        }
        Err(contended(prefix))
    }

    /// Releases a slot of a semaphore. Returns whether the session had one.
    pub fn release_slot(&mut self, prefix: &Prefix, id: &SessionId) -> Result<bool, Error> {
        for _ in 0..SWAPS {
            let (mut slots, _) = self.slots(prefix, &Query::CONSISTENT)?;
            let holders = slots.holders.len();
            slots.holders.retain(|holder| holder != id.as_str());
            let was_holder = slots.holders.len() < holders;
            let request = semaphore::release(self.connection, prefix, id, &slots, was_holder);
            if self.swap(&request, id)? {
                return Ok(was_holder);
            }
        }
        Err(contended(prefix))
    }

    /// Changes a semaphore: `PUT /v1/txn`. Returns `false`, after a pause, if it was changed meanwhile.
    fn swap(&mut self, request: &Request, id: &SessionId) -> Result<bool, Error> {
        let is_done = self
            .call(request, |response| semaphore::is_done(response, id))
            .map_err(|error| error.into_outcome_unknown("the change of the semaphore"))?;
        if !is_done {
            self.transport.pause(FIRST_PAUSE);
        }
        Ok(is_done)
    }

    /// Reads a semaphore: `GET /v1/kv/<prefix>/?recurse`.
    pub fn semaphore(&mut self, prefix: &Prefix, query: &Query) -> Result<Semaphore, Error> {
        let (slots, index) = self.slots(prefix, query)?;
        Ok(Semaphore { limit: slots.limit, holders: slots.holders, index })
    }

    fn slots(&mut self, prefix: &Prefix, query: &Query) -> Result<(Slots, u64), Error> {
        self.query(&semaphore::read(self.connection, prefix, query), query, |response| semaphore::slots(response, prefix))
    }

    /// Reads a key and its holder: `GET /v1/kv/<key>`.
    pub fn holder(&mut self, key: &Key, query: &Query) -> Result<Holding, Error> {
        self.query(&lock::read(self.connection, key, query), query, lock::holding)
    }
}

fn contended(prefix: &Prefix) -> Error {
    let message =
        format!("other clients changed {} at each of {SWAPS} attempts; nothing was changed: try again", prefix.lock());
    Error::new(ErrorKind::Other, message)
}
