//! Several callers at one Consul, one request at a time, in every order.
//!
//! There are no threads. A caller that waits is its [`Plan`] and the answers so far: for the next step it is run again from its
//! beginning, is given these answers once more, and is stopped at its first request beyond them. So a whole situation is a plain
//! value, which can be copied to try every way in which it goes on.

use crate::cluster::Cluster;
use crate::random::Random;
use consul_session::apply::Plan;
use consul_session::error::{Error, ErrorKind};
use consul_session::transport::{Request, Response, Transport};
use consul_session::{Options, Outcome};
use serde_json::Value;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// The connection breaks before it is done, which looks the same.
    RequestLost,
    /// It is done, its answer does not come in time, and then the time of the call is over.
    AnswerTooLate,
    /// It is not done in time, and then the time of the call is over.
    RequestTooLate,
    /// It is done, its answer is lost, and then nothing listens there any more.
    AnswerLostAndDown,
    /// Nothing listens there any more.
    Down,
}

impl Fate {
    /// All but the good one.
    pub const FAULTS: [Fate; 6] =
        [Fate::AnswerLost, Fate::RequestLost, Fate::AnswerTooLate, Fate::RequestTooLate, Fate::AnswerLostAndDown, Fate::Down];

    fn is_done(self) -> bool {
        matches!(self, Fate::Answered | Fate::AnswerLost | Fate::AnswerTooLate | Fate::AnswerLostAndDown)
    }
}

/// What the transport says to a request.
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

/// Somebody who applies options.
#[derive(Clone)]
pub struct Caller {
    plan: Rc<Plan>,
    answers: Vec<Answer>,
    next: Next,
}

#[derive(Clone)]
enum Next {
    Asks(Rc<Request>),
    Ends(Rc<Result<Outcome, Error>>),
}

impl Caller {
    pub fn new(options: &Value) -> Caller {
        let plan = Plan::new(Options::from_json(&options.to_string()).unwrap()).unwrap();
        let next = run(&plan, &[]);
        Caller { plan: Rc::new(plan), answers: Vec::new(), next }
    }

    /// How it ended, if it did.
    pub fn result(&self) -> Option<&Result<Outcome, Error>> {
        match &self.next {
            Next::Ends(result) => Some(result),
            Next::Asks(_) => None,
        }
    }

    fn hears(&mut self, answer: Answer) {
        self.answers.push(answer);
        self.next = run(&self.plan, &self.answers);
    }

    /// Lets one request meet its fate.
    fn step(&mut self, cluster: &mut Cluster, past: &Cluster, fate: Fate) {
        let Next::Asks(request) = &self.next else { panic!("a caller that has ended goes no further") };
        // Time does not go back, and nobody starts the agent again.
        if let Some(last @ (Answer::Late | Answer::Down)) = self.answers.last() {
            return self.hears(last.clone());
        }
        let response = fate.is_done().then(|| cluster.answer(request, past));
        match fate {
            Fate::Answered => {
                let Response { status, headers, body } = response.expect("what is done is answered");
                self.hears(Answer::Response(status, headers, body));
            }
            Fate::AnswerLost | Fate::RequestLost => self.hears(Answer::Lost),
            Fate::AnswerTooLate | Fate::RequestTooLate => self.hears(Answer::Late),
            Fate::Down => self.hears(Answer::Down),
            Fate::AnswerLostAndDown => {
                self.hears(Answer::Lost);
                if self.result().is_none() {
                    self.hears(Answer::Down);
                }
            }
        }
    }
}

/// Runs a plan that has got these answers so far.
fn run(plan: &Plan, answers: &[Answer]) -> Next {
    /// Gives the answers, and leaves with the first request beyond them.
    struct Replay<'a>(std::slice::Iter<'a, Answer>);

    impl Transport for Replay<'_> {
        fn send(&mut self, request: &Request) -> Result<Response, Error> {
            match self.0.next() {
                Some(answer) => answer.into(),
                // Not a panic: no hook is run, nothing is printed.
                None => resume_unwind(Box::new(request.clone())),
            }
        }
    }

    match catch_unwind(AssertUnwindSafe(|| plan.run(&mut Replay(answers.iter())))) {
        Ok(result) => Next::Ends(Rc::new(result)),
        Err(payload) => match payload.downcast::<Request>() {
            Ok(request) => Next::Asks(Rc::new(*request)),
            Err(panic) => resume_unwind(panic),
        },
    }
}

/// A Consul and those who ask it.
#[derive(Clone)]
pub struct World {
    pub cluster: Cluster,
    callers: Vec<Caller>,
    /// The requests so far that met a bad fate.
    pub faults: usize,
}

impl World {
    pub fn new(cluster: Cluster, options: &[Value]) -> World {
        World { cluster, callers: options.iter().map(Caller::new).collect(), faults: 0 }
    }

    /// How the callers ended.
    pub fn results(&self) -> Vec<&Result<Outcome, Error>> {
        self.callers.iter().map(|caller| caller.result().expect("everybody has ended")).collect()
    }

    fn waiting(&self) -> Vec<usize> {
        (0..self.callers.len()).filter(|&at| self.callers[at].result().is_none()).collect()
    }

    /// Lets one of the callers have one request answered.
    fn step(&mut self, at: usize, past: Option<&Cluster>, fate: Fate) {
        let now = self.cluster.clone();
        self.faults += usize::from(fate != Fate::Answered);
        self.callers[at].step(&mut self.cluster, past.unwrap_or(&now), fate);
    }

    /// Goes on in every order of the requests, and with up to so many faults at every place; `end` sees each way in which it
    /// can end. The count of these.
    pub fn every_way(self, faults: usize, end: &mut dyn FnMut(&World)) -> usize {
        let mut seen = HashSet::new();
        let mut ends = 0;
        let mut open = vec![self];
        while let Some(world) = open.pop() {
            // Two orders that lead to the same situation need not both be followed: all that a caller knows is its answers.
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

    /// Goes on in one order out of very many. `faults` of a hundred requests meet a bad fate; reads that do not ask for
    /// consistency may show any moment since this began.
    pub fn one_way(mut self, random: &mut Random, faults: usize, stale: bool) -> World {
        let mut past = vec![self.cluster.clone()];
        loop {
            let waiting = self.waiting();
            if waiting.is_empty() {
                return self;
            }
            let at = random.pick(&waiting);
            let fate = if random.below(100) < faults { random.pick(&Fate::FAULTS) } else { Fate::Answered };
            let shown = stale.then(|| random.pick(&past));
            self.step(at, shown.as_ref(), fate);
            if stale && past.last() != Some(&self.cluster) {
                past.push(self.cluster.clone());
            }
        }
    }
}
