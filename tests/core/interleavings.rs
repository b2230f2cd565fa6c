//! Several callers at one Consul, one request at a time, in every order.
//!
//! There are no threads. A waiting caller is its [`Plan`] and its answers so far. For the next step
//! the plan runs again from its start, gets these answers again, and stops at its first request
//! beyond them. So a whole situation is a plain value, and a copy of it can continue in another
//! order.

use crate::memory::InMemoryConsul;
use consul_session::apply::Plan;
use consul_session::error::{Error, ErrorKind};
use consul_session::transport::{Request, Response, Transport};
use consul_session::{Options, Outcome};
use fastrand::Rng;
use serde_json::Value;
use std::collections::HashSet;
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
    /// Consul performs it, but its answer is late, and the caller's time is over.
    AnswerTooLate,
    /// Consul does not perform it in time, and the caller's time is over.
    RequestTooLate,
    /// Consul performs it, its answer is lost, and then nothing listens any more.
    AnswerLostAndDown,
    /// Nothing listens any more.
    Down,
}

impl Fate {
    /// All fates except [`Fate::Answered`].
    pub const FAULTS: [Fate; 6] =
        [Fate::AnswerLost, Fate::RequestLost, Fate::AnswerTooLate, Fate::RequestTooLate, Fate::AnswerLostAndDown, Fate::Down];

    fn is_performed(self) -> bool {
        matches!(self, Fate::Answered | Fate::AnswerLost | Fate::AnswerTooLate | Fate::AnswerLostAndDown)
    }
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
    plan: Rc<Plan>,
    answers: Vec<Answer>,
    next: Next,
}

#[derive(Clone)]
enum Next {
    Sends(Rc<Request>),
    Ends(Rc<Result<Outcome, Error>>),
}

impl Caller {
    pub fn new(options: &Value) -> Caller {
        let plan = Plan::new(Options::from_json(&options.to_string()).unwrap()).unwrap();
        let next = run(&plan, &[]);
        Caller { plan: Rc::new(plan), answers: Vec::new(), next }
    }

    /// Returns its result, if it has ended.
    pub fn result(&self) -> Option<&Result<Outcome, Error>> {
        match &self.next {
            Next::Ends(result) => Some(result),
            Next::Sends(_) => None,
        }
    }

    fn receive(&mut self, answer: Answer) {
        self.answers.push(answer);
        self.next = run(&self.plan, &self.answers);
    }

    /// Sends one request, which meets its fate. With `past`, reads can be stale.
    fn step(&mut self, cluster: &mut InMemoryConsul, past: Option<&InMemoryConsul>, fate: Fate) {
        let Next::Sends(request) = &self.next else { panic!("the caller has ended") };
        // The caller's time stays over, and the agent stays down.
        if let Some(last @ (Answer::Late | Answer::Down)) = self.answers.last() {
            return self.receive(last.clone());
        }
        let send = || match past {
            Some(past) => cluster.send_with_stale_reads(request, past),
            None => cluster.send(request),
        };
        let response = fate.is_performed().then(send);
        match fate {
            Fate::Answered => {
                let Response { status, headers, body } = response.expect("it was performed").expect("an answer");
                self.receive(Answer::Response(status, headers, body));
            }
            Fate::AnswerLost | Fate::RequestLost => self.receive(Answer::Lost),
            Fate::AnswerTooLate | Fate::RequestTooLate => self.receive(Answer::Late),
            Fate::Down => self.receive(Answer::Down),
            Fate::AnswerLostAndDown => {
                self.receive(Answer::Lost);
                if self.result().is_none() {
                    self.receive(Answer::Down);
                }
            }
        }
    }
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
    callers: Vec<Caller>,
    /// The number of requests so far whose fate was a fault.
    pub faults: usize,
}

impl World {
    pub fn new(cluster: InMemoryConsul, options: &[Value]) -> World {
        World { cluster, callers: options.iter().map(Caller::new).collect(), faults: 0 }
    }

    /// Returns the results of the callers.
    pub fn results(&self) -> Vec<&Result<Outcome, Error>> {
        self.callers.iter().map(|caller| caller.result().expect("every caller has ended")).collect()
    }

    fn waiting(&self) -> Vec<usize> {
        (0..self.callers.len()).filter(|&at| self.callers[at].result().is_none()).collect()
    }

    /// Sends one request of one caller.
    fn step(&mut self, at: usize, past: Option<&InMemoryConsul>, fate: Fate) {
        self.faults += usize::from(fate != Fate::Answered);
        self.callers[at].step(&mut self.cluster, past, fate);
    }

    /// Continues in every order of the requests, with up to `faults` faults at every place, and
    /// calls `end` with each world in which all callers have ended. Returns the number of these.
    pub fn every_way(self, faults: usize, end: &mut dyn FnMut(&World)) -> usize {
        let mut seen = HashSet::new();
        let mut ends = 0;
        let mut open = vec![self];
        while let Some(world) = open.pop() {
            // Orders that lead to the same situation continue alike: its answers are all that a
            // caller knows.
            let answers: Vec<_> = world.callers.iter().map(|caller| caller.answers.clone()).collect();
            if !seen.insert((world.cluster.clone(), answers, world.faults)) {
                continue;
            }
            let waiting = world.waiting();
            if waiting.is_empty() {
                ends += 1;
                end(&world);
            }
            for at in waiting {
                let faults = Fate::FAULTS.into_iter().filter(|_| world.faults < faults);
                for fate in faults.chain([Fate::Answered]) {
                    let mut next = world.clone();
                    next.step(at, None, fate);
                    open.push(next);
                }
            }
        }
        ends
    }

    /// Continues in one random order. `faults` of a hundred requests meet a fault. With `stale`, a
    /// read that does not ask for consistency can show any earlier state of this run.
    pub fn one_way(mut self, rng: &mut Rng, faults: usize, stale: bool) -> World {
        let mut past = vec![self.cluster.clone()];
        loop {
            let waiting = self.waiting();
            if waiting.is_empty() {
                return self;
            }
            let at = waiting[rng.usize(..waiting.len())];
            let fault = Fate::FAULTS[rng.usize(..Fate::FAULTS.len())];
            let fate = if rng.usize(..100) < faults { fault } else { Fate::Answered };
            let shown = stale.then(|| &past[rng.usize(..past.len())]);
            self.step(at, shown, fate);
            if stale && past.last() != Some(&self.cluster) {
                past.push(self.cluster.clone());
            }
        }
    }
}
