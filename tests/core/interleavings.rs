//! Several callers at one Consul, one request at a time, in every order, with a limited number of
//! [troubles](Troubles) at every place.
//!
//! There are no threads. A waiting caller is its [`Plan`] and its answers so far. For the next step
//! the plan runs again from its start, gets these answers again, and stops at its first request
//! beyond them. So a whole situation is a plain value, and a copy of it can continue in another
//! order.

use crate::memory::InMemoryConsul;
use consul_session::apply::Plan;
use consul_session::error::{Error, ErrorKind};
use consul_session::transport::{Method, Request, Response, Transport};
use consul_session::{Options, Outcome};
use fastrand::Rng;
use serde_json::Value;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// The fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Consul performs it, and the caller gets the answer.
    Answered,
    /// Consul performs it, but its answer is lost.
    AnswerLost,
    /// The connection breaks before Consul performs it. To the caller this looks like a lost
    /// answer.
    RequestLost,
    /// The connection breaks, and Consul performs it later: after any of the requests that follow.
    PerformedLater,
    /// Consul performs it, but its answer is late, and the caller's time is over.
    AnswerTooLate,
    /// Consul does not perform it in time, and the caller's time is over.
    RequestTooLate,
    /// Consul performs it, its answer is lost, and then nothing listens any more.
    AnswerLostAndDown,
    /// Nothing listens any more.
    Down,
    /// The agent answers that there is no leader.
    NoLeader,
    /// Consul performs it, but the agent loses its connection to the leader before the answer.
    HopLost,
}

impl Fate {
    /// All fates except [`Fate::Answered`].
    pub const FAULTS: [Fate; 9] = [
        Fate::AnswerLost,
        Fate::RequestLost,
        Fate::PerformedLater,
        Fate::AnswerTooLate,
        Fate::RequestTooLate,
        Fate::AnswerLostAndDown,
        Fate::Down,
        Fate::NoLeader,
        Fate::HopLost,
    ];

    fn is_performed(self) -> bool {
        matches!(self, Fate::Answered | Fate::AnswerLost | Fate::AnswerTooLate | Fate::AnswerLostAndDown | Fate::HopLost)
    }
}

/// How much may go wrong in one schedule. Default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Troubles {
    /// Requests whose fate is a fault.
    pub faults: usize,
    /// Sessions of the name that a third party destroys, or that expire.
    pub removals: usize,
    /// Callers that stop, as by a crash, before their next request.
    pub stops: usize,
}

/// The transport's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Response(u16, Vec<(&'static str, String)>, Vec<u8>),
    Lost,
    Late,
    Down,
}

impl From<&Answer> for Result<Response, Error> {
    fn from(answer: &Answer) -> Result<Response, Error> {
        Err(match answer {
            Answer::Response(status, headers, body) => {
                return Ok(Response { status: *status, headers: headers.clone(), body: body.clone() });
            }
            Answer::Lost => {
                Error::new(ErrorKind::InvalidResponse, "no answer: the connection ended without a whole HTTP answer")
            }
            Answer::Late => Error::new(ErrorKind::Timeout, "no answer within 10s"),
            Answer::Down => Error::new(ErrorKind::Unreachable, "no answer: nothing listens there"),
        })
    }
}

/// A client that applies options.
#[derive(Clone)]
pub struct Caller {
    pub options: Rc<Value>,
    plan: Rc<Plan>,
    answers: Vec<Answer>,
    /// The requests that got these answers.
    requests: Vec<Rc<Request>>,
    next: Next,
}

#[derive(Clone)]
enum Next {
    Sends(Rc<Request>),
    Ends(Rc<Result<Outcome, Error>>),
    Stopped,
}

impl Caller {
    pub fn new(options: &Value) -> Caller {
        let plan = Plan::new(Options::from_json(&options.to_string()).unwrap()).unwrap();
        let next = run(&plan, &[]);
        let options = Rc::new(options.clone());
        Caller { options, plan: Rc::new(plan), answers: Vec::new(), requests: Vec::new(), next }
    }

    /// Returns its result, if it has ended and did not stop before.
    pub fn result(&self) -> Option<&Result<Outcome, Error>> {
        match &self.next {
            Next::Ends(result) => Some(result),
            Next::Sends(_) | Next::Stopped => None,
        }
    }

    pub fn has_stopped(&self) -> bool {
        matches!(self.next, Next::Stopped)
    }

    /// Returns its requests with the JSON of Consul's answers, if it got them.
    pub fn exchanges(&self) -> impl DoubleEndedIterator<Item = (&Request, Option<Value>)> {
        self.requests.iter().zip(&self.answers).map(|(request, answer)| {
            let json = match answer {
                Answer::Response(200, _, body) => serde_json::from_slice(body).ok(),
                _ => None,
            };
            (request.as_ref(), json)
        })
    }

    /// Returns whether the answer to one of its changes was lost, or says that it may have happened.
    pub fn is_in_doubt(&self) -> bool {
        self.lost().any(|request| request.method == Method::Put)
    }

    /// Returns whether it may have created a session whose id it does not know.
    pub fn lost_a_creation(&self) -> bool {
        self.lost().any(|request| request.path_and_query == "/v1/session/create")
    }

    /// Returns the requests that Consul may have performed, although there was no answer to that.
    fn lost(&self) -> impl Iterator<Item = &Request> {
        let is_certain = |answer: &Answer| matches!(answer, Answer::Response(200, ..) | Answer::Down) || *answer == no_leader();
        let exchanges = self.requests.iter().zip(&self.answers);
        exchanges.filter(move |(_, answer)| !is_certain(answer)).map(|(request, _)| request.as_ref())
    }

    fn receive(&mut self, answer: Answer) {
        if let Next::Sends(request) = &self.next {
            self.requests.push(Rc::clone(request));
        }
        self.answers.push(answer);
        self.next = run(&self.plan, &self.answers);
    }

    /// Sends one request, which meets its fate. With `past`, reads can be stale. Returns the request
    /// if Consul performs it later.
    fn step(&mut self, cluster: &mut InMemoryConsul, past: Option<&InMemoryConsul>, fate: Fate) -> Option<Rc<Request>> {
        let Next::Sends(request) = &self.next else { panic!("the caller has ended") };
        let request = Rc::clone(request);
        // The caller's time stays over, and the agent stays down.
        if let Some(last @ (Answer::Late | Answer::Down)) = self.answers.last() {
            self.receive(last.clone());
            return None;
        }
        let send = || match past {
            Some(past) => cluster.send_with_stale_reads(&request, past),
            None => cluster.send(&request),
        };
        let response = fate.is_performed().then(send);
        match fate {
            Fate::Answered => {
                let Response { status, headers, body } = response.expect("it was performed").expect("an answer");
                self.receive(Answer::Response(status, headers, body));
            }
            Fate::AnswerLost | Fate::RequestLost | Fate::PerformedLater => self.receive(Answer::Lost),
            Fate::AnswerTooLate | Fate::RequestTooLate => self.receive(Answer::Late),
            Fate::Down => self.receive(Answer::Down),
            Fate::NoLeader => self.receive(no_leader()),
            Fate::HopLost => self.receive(Answer::Response(500, Vec::new(), "rpc error making call: EOF".into())),
            Fate::AnswerLostAndDown => {
                self.receive(Answer::Lost);
                if self.result().is_none() {
                    self.receive(Answer::Down);
                }
            }
        }
        (fate == Fate::PerformedLater && request.method == Method::Put).then_some(request)
    }
}

fn no_leader() -> Answer {
    Answer::Response(500, Vec::new(), "No cluster leader".into())
}

/// Runs a plan that has received these answers so far.
fn run(plan: &Plan, answers: &[Answer]) -> Next {
    /// Gives the answers, and unwinds with the first request beyond them.
    struct Replay<'a>(std::slice::Iter<'a, Answer>);

    impl Transport for Replay<'_> {
        fn send(&mut self, request: &Request) -> Result<Response, Error> {
            match self.0.next() {
                Some(answer) => answer.into(),
                // Unlike a panic, this runs no hook and prints nothing.
                None => resume_unwind(Box::new(request.clone())),
            }
        }

        /// Others go on between any two requests anyway.
        fn pause(&mut self, _longest: i64) -> bool {
            true
        }
    }

    match catch_unwind(AssertUnwindSafe(|| plan.run(&mut Replay(answers.iter())))) {
        Ok(result) => Next::Ends(Rc::new(result)),
        Err(payload) => match payload.downcast::<Request>() {
            Ok(request) => Next::Sends(Rc::new(*request)),
            Err(panic) => resume_unwind(panic),
        },
    }
}

/// A Consul and its callers.
#[derive(Clone)]
pub struct World {
    pub cluster: InMemoryConsul,
    pub callers: Vec<Caller>,
    /// What has gone wrong so far.
    pub troubles: Troubles,
    /// Changes that Consul has yet to perform.
    late: Vec<Rc<Request>>,
    /// How often another caller may still come between two requests of one, and the caller that
    /// sent the last one. `None` for any number.
    switches: Option<(usize, usize)>,
}

fn hash(seed: u64, value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, value).hash(&mut hasher);
    hasher.finish()
}

/// One step of a schedule.
#[derive(Clone, Debug)]
enum Event {
    /// A caller sends its next request.
    Request(usize, Fate),
    /// Consul performs a change whose connection broke before.
    LateChange(usize),
    /// A session ends.
    Removal(String),
    /// A caller stops.
    Stop(usize),
}

impl World {
    pub fn new(cluster: InMemoryConsul, options: &[Value]) -> World {
        let callers = options.iter().map(Caller::new).collect();
        World { cluster, callers, troubles: Troubles::default(), late: Vec::new(), switches: None }
    }

    /// Limits how often a caller is interrupted by another one. Few interruptions, at every place,
    /// show most faults, and the number of all orders of three callers is beyond any patience.
    pub fn with_switches(self, switches: usize) -> World {
        World { switches: Some((switches, 0)), ..self }
    }

    /// Returns the results of the callers that did not stop.
    pub fn results(&self) -> Vec<&Result<Outcome, Error>> {
        self.callers.iter().filter_map(Caller::result).collect()
    }

    fn waiting(&self) -> Vec<usize> {
        (0..self.callers.len()).filter(|&at| matches!(self.callers[at].next, Next::Sends(_))).collect()
    }

    /// Returns what can happen next, with at most these troubles in all. Nothing if the schedule is
    /// at its end.
    fn events(&self, limit: Troubles) -> Vec<Event> {
        let mut events: Vec<Event> = (0..self.late.len()).map(Event::LateChange).collect();
        let waiting = self.waiting();
        if !waiting.is_empty() && self.troubles.removals < limit.removals {
            events.extend(self.cluster.named("web").into_iter().map(Event::Removal));
        }
        for &at in &waiting {
            if matches!(self.switches, Some((0, _))) && self.interrupts(at) {
                continue;
            }
            if self.troubles.stops < limit.stops {
                events.push(Event::Stop(at));
            }
            if self.troubles.faults < limit.faults {
                events.extend(Fate::FAULTS.map(|fate| Event::Request(at, fate)));
            }
            events.push(Event::Request(at, Fate::Answered));
        }
        events
    }

    /// Returns whether a request of this caller comes between two of another one.
    fn interrupts(&self, at: usize) -> bool {
        let Some((_, last)) = self.switches else { return false };
        let other = &self.callers[last];
        last != at && !other.answers.is_empty() && matches!(other.next, Next::Sends(_))
    }

    fn happen(&mut self, event: &Event, past: Option<&InMemoryConsul>) {
        match event {
            Event::Request(at, fate) => {
                let interrupts = self.interrupts(*at);
                if let Some((left, last)) = &mut self.switches {
                    (*left, *last) = (*left - usize::from(interrupts), *at);
                }
                self.troubles.faults += usize::from(*fate != Fate::Answered);
                let late = self.callers[*at].step(&mut self.cluster, past, *fate);
                self.late.extend(late);
            }
            Event::LateChange(number) => {
                let request = self.late.remove(*number);
                self.cluster.send(&request).expect("an answer");
            }
            Event::Removal(id) => {
                self.troubles.removals += 1;
                self.cluster.destroy(id);
            }
            Event::Stop(at) => {
                self.troubles.stops += 1;
                self.callers[*at].next = Next::Stopped;
            }
        }
    }

    /// Returns a hash of everything that the further events depend on. Orders that lead to the same
    /// situation continue alike, and so do those in which callers with the same options have
    /// changed places: its answers are all that a caller knows.
    fn situation(&self) -> u128 {
        let mut callers: Vec<_> =
            self.callers.iter().map(|caller| (&caller.options, &caller.answers, caller.has_stopped())).collect();
        callers.sort_by_cached_key(|(options, answers, stopped)| (options.to_string(), hash(0, answers), *stopped));
        let callers: Vec<_> =
            callers.iter().map(|(options, answers, stopped)| (options.to_string(), answers, stopped)).collect();
        let late: Vec<_> = self.late.iter().map(|request| (&request.path_and_query, &request.body)).collect();
        let situation = (
            &self.cluster,
            callers,
            late,
            self.troubles,
            self.switches.map(|(left, last)| (left, hash(0, &self.callers[last].answers))),
        );
        u128::from(hash(1, &situation)) << 64 | u128::from(hash(2, &situation))
    }

    /// Continues in every order of the requests, with up to these troubles at every place, and
    /// calls `end` with each world in which all callers have ended. Returns the number of these.
    pub fn every_way(self, limit: Troubles, end: &mut dyn FnMut(&World)) -> usize {
        let mut seen = HashSet::new();
        let mut ends = 0;
        let mut open = vec![self];
        while let Some(world) = open.pop() {
            if !seen.insert(world.situation()) {
                continue;
            }
            let events = world.events(limit);
            if events.is_empty() {
                ends += 1;
                end(&world);
            }
            for event in events {
                let mut next = world.clone();
                next.happen(&event, None);
                open.push(next);
            }
        }
        ends
    }

    /// Continues in one random order. `faults` of a hundred requests meet a fault. With `stale`, a
    /// read that does not ask for consistency can show any earlier state of this run.
    pub fn one_way(mut self, rng: &mut Rng, faults: usize, stale: bool) -> World {
        let mut past = vec![self.cluster.clone()];
        loop {
            let events = self.events(Troubles::default());
            if events.is_empty() {
                return self;
            }
            let mut event = events[rng.usize(..events.len())].clone();
            if let Event::Request(_, fate) = &mut event
                && rng.usize(..100) < faults
            {
                *fate = Fate::FAULTS[rng.usize(..Fate::FAULTS.len())];
            }
            let shown = stale.then(|| &past[rng.usize(..past.len())]);
            self.happen(&event, shown);
            if stale && past.last() != Some(&self.cluster) {
                past.push(self.cluster.clone());
            }
        }
    }
}
