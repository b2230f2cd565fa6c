//! The scheduler of `apply`: runs the core's own steps for every record of a file, with
//! shared reads.

use super::common::{CONSISTENT, connection, fails_all};
use super::file::Record;
use super::pool::{self, Interrupt, Work};
use super::replay::{NextStep, Progress, Snapshot, step};
use crate::convert;
use consul_session::error::{Error, ErrorKind};
use consul_session::outcome::Outcome;
use consul_session_host::{self as host, Connection, CreateOptions, Host};
use indicatif::ProgressBar;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The file's records, and the state of each.
pub struct Scheduler {
    host: Host,
    interrupt: Interrupt,
    bar: ProgressBar,
    pub entries: Vec<Entry>,
    agents: Vec<Agent>,
    /// Whether no further record is started.
    stopped: bool,
}

/// A record and its state.
pub struct Entry {
    pub record: Record,
    agent: usize,
    progress: Progress,
    /// Whether the next look at the sessions is for this record too.
    waits: bool,
    /// Whether a change was, or may have been, made for the record: then it is finished.
    started: bool,
    /// None until the record is finished.
    pub result: Option<Result<Outcome, Error>>,
}

/// A Consul agent, with its connection.
struct Agent {
    connection: Connection,
    /// The agent's own node.
    own_node: Option<Result<String, Error>>,
    /// Whether every further record would fail with the same error.
    stopped: bool,
}

/// A call, with the index of its agent or record.
pub enum Job {
    /// After a pause, in nanoseconds.
    Look(usize, i64),
    OwnNode(usize),
    Create(usize, Box<CreateOptions>),
    Destroy(usize, String),
    Alone(usize),
}

/// The result of a call.
pub enum Completed {
    Look(usize, Result<Snapshot, Error>),
    OwnNode(usize, Result<String, Error>),
    Create(usize, Result<String, Error>),
    Destroy(usize, String, Result<(), Error>),
    Alone(usize, Box<Result<Outcome, Error>>),
}

impl Scheduler {
    /// Groups the records by agent.
    pub fn new(host: Host, records: Vec<Record>, interrupt: Interrupt, bar: ProgressBar) -> Scheduler {
        let mut agents = Vec::new();
        let mut known = HashMap::new();
        let mut entries = Vec::new();
        for record in records {
            let (key, connection) = connection(&record.options);
            let agent = *known.entry(key).or_insert_with(|| {
                agents.push(Agent { connection, own_node: None, stopped: false });
                agents.len() - 1
            });
            let (progress, waits) = (Progress::default(), true);
            entries.push(Entry { record, agent, progress, waits, started: false, result: None });
        }
        Scheduler { host, interrupt, bar, entries, agents, stopped: false }
    }

    /// Runs every record to its end, or until an interruption or an error stops it.
    pub async fn run(&mut self, concurrency: usize) {
        let first: Vec<Job> = (0..self.agents.len()).map(|agent| Job::Look(agent, 0)).collect();
        pool::run(self, first, concurrency).await;
        loop {
            let jobs = self.next_jobs();
            if jobs.is_empty() {
                return;
            }
            pool::run(self, jobs, concurrency).await;
        }
    }

    /// Returns the next jobs of all records together.
    fn next_jobs(&mut self) -> Vec<Job> {
        let (mut jobs, mut own_nodes, mut looks) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        for at in 0..self.entries.len() {
            let job = self.step(at);
            self.entries[at].waits = matches!(job, Some(Job::Look(..)));
            match job {
                Some(Job::OwnNode(agent)) => drop(own_nodes.insert(agent)),
                Some(Job::Look(agent, pause)) => {
                    let longest = looks.entry(agent).or_insert(pause);
                    *longest = pause.max(*longest);
                }
                Some(job) => jobs.push(job),
                None => {}
            }
        }
        // One read for all records of an agent.
        jobs.extend(own_nodes.into_iter().map(Job::OwnNode));
        // A look follows all changes, since it must show them.
        if jobs.is_empty() { looks.into_iter().map(|(agent, pause)| Job::Look(agent, pause)).collect() } else { jobs }
    }

    /// Returns the next job of a record, or none if the record is finished or stopped.
    fn step(&mut self, at: usize) -> Option<Job> {
        let entry = &self.entries[at];
        let agent = &self.agents[entry.agent];
        if entry.result.is_some() || entry.progress.looks.is_empty() {
            return None;
        }
        let job = match step(&entry.record.plan, &entry.record.options, agent.own_node.as_ref(), &entry.progress) {
            Ok(result) => {
                self.finish(at, result);
                return None;
            }
            Err(NextStep::OwnNode) => Job::OwnNode(entry.agent),
            Err(NextStep::Look(pause)) => Job::Look(entry.agent, pause),
            Err(NextStep::Creation(options)) => Job::Create(at, options),
            Err(NextStep::Destruction(id)) => Job::Destroy(at, id),
            Err(NextStep::Alone) => Job::Alone(at),
        };
        self.continues(at).then_some(job)
    }

    /// Returns whether a record was started, or may be.
    fn continues(&self, at: usize) -> bool {
        let entry = &self.entries[at];
        entry.started || self.may_start(entry.agent)
    }

    /// Returns whether records of this agent may be started.
    fn may_start(&self, agent: usize) -> bool {
        !self.stopped && !self.agents[agent].stopped && !self.interrupt.is_set()
    }

    fn mark_started(&mut self, at: usize) {
        if !self.entries[at].started {
            self.entries[at].started = true;
            self.bar.inc(1);
        }
    }

    fn finish(&mut self, at: usize, result: Result<Outcome, Error>) {
        self.mark_started(at);
        self.entries[at].result = Some(result);
    }

    /// Stops the records that would fail with the same error.
    fn note(&mut self, agent: usize, error: &Error) {
        // The operator must allow the agent first. The first read already fails, before any change.
        self.stopped |= error.kind == ErrorKind::DeniedByHost;
        self.agents[agent].stopped |= fails_all(error);
    }
}

impl Work for Scheduler {
    type Job = Job;
    type Completed = Completed;

    fn is_wanted(&self, job: &Job) -> bool {
        match job {
            Job::Look(agent, _) => {
                let is_started = |entry: &Entry| entry.agent == *agent && entry.waits && entry.started;
                self.may_start(*agent) || self.entries.iter().any(is_started)
            }
            // Only records that were started, or may be, ask for it.
            Job::OwnNode(_) => true,
            Job::Create(at, _) | Job::Destroy(at, _) | Job::Alone(at) => self.continues(*at),
        }
    }

    fn start(&self, job: Job) -> impl Future<Output = Completed> + Send + 'static {
        let host = self.host.clone();
        let agent = match &job {
            Job::Look(agent, _) | Job::OwnNode(agent) => *agent,
            Job::Create(at, _) | Job::Destroy(at, _) | Job::Alone(at) => self.entries[*at].agent,
        };
        let connection = self.agents[agent].connection.clone();
        let record = match &job {
            Job::Alone(at) => convert::options(&self.entries[*at].record.options),
            _ => host::Options::default(),
        };
        async move {
            let to = Some(&connection);
            match job {
                Job::Look(agent, pause) => {
                    tokio::time::sleep(Duration::from_nanos(pause.unsigned_abs())).await;
                    Completed::Look(agent, snapshot(&host, to).await)
                }
                Job::OwnNode(agent) => Completed::OwnNode(agent, own_node(&host, connection).await),
                Job::Create(at, options) => Completed::Create(at, host.create(&options, to).await.map_err(convert::error)),
                Job::Destroy(at, id) => {
                    let result = host.destroy(&id, to).await.map_err(convert::error);
                    Completed::Destroy(at, id, result)
                }
                Job::Alone(at) => {
                    Completed::Alone(at, Box::new(host.apply(&record).await.map(convert::outcome).map_err(convert::error)))
                }
            }
        }
    }

    fn complete(&mut self, completed: Completed) -> Option<Job> {
        match completed {
            Completed::Look(agent, result) => {
                let of_agent = self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.agent == agent && entry.waits);
                let mut waiting: Vec<(usize, &mut Entry)> = of_agent.collect();
                match result {
                    // Reported once, as the result of the agent's first record.
                    Err(error) if waiting.iter().all(|(_, entry)| entry.progress.looks.is_empty()) => {
                        let first = waiting.first().map(|(at, _)| *at);
                        self.agents[agent].stopped = true;
                        self.note(agent, &error);
                        if let Some(at) = first {
                            self.finish(at, Err(error));
                        }
                    }
                    result => {
                        let look = result.map(Arc::new);
                        waiting.iter_mut().for_each(|(_, entry)| entry.progress.looks.push(look.clone()));
                    }
                }
            }
            Completed::OwnNode(agent, result) => self.agents[agent].own_node = Some(result),
            Completed::Create(at, result) => {
                self.mark_started(at);
                if let Err(error) = &result {
                    self.note(self.entries[at].agent, error);
                }
                self.entries[at].progress.creations.push(result);
            }
            Completed::Destroy(at, id, result) => {
                self.mark_started(at);
                if let Err(error) = &result {
                    self.note(self.entries[at].agent, error);
                }
                self.entries[at].progress.destructions.entry(id).or_default().push(result);
                // The record may destroy further sessions.
                return self.step(at).filter(|job| matches!(job, Job::Destroy(..)));
            }
            Completed::Alone(at, result) => {
                if let Err(error) = &*result {
                    self.note(self.entries[at].agent, error);
                }
                self.finish(at, *result);
            }
        }
        None
    }
}

/// Reads all sessions of an agent's datacenter.
async fn snapshot(host: &Host, connection: Option<&Connection>) -> Result<Snapshot, Error> {
    host.list_sessions(Some(CONSISTENT), connection).await.map(Into::into).map_err(convert::error)
}

/// Reads the agent's own node. The dry run of a creation without a name reads this and nothing
/// else.
async fn own_node(host: &Host, connection: Connection) -> Result<String, Error> {
    let Connection { host: name, port, scheme, validate_certs, token, datacenter, namespace, partition, timeout } = connection;
    let options = host::Options {
        dry_run: Some(true),
        host: name,
        port,
        scheme,
        validate_certs,
        token,
        datacenter,
        namespace,
        partition,
        timeout,
        ..host::Options::default()
    };
    let planned = host.apply(&options).await.map_err(convert::error)?;
    match planned.sessions.into_iter().next() {
        Some(session) if !session.node.is_empty() => Ok(session.node),
        // The node is empty if the token has no permission to read it.
        _ => {
            Err(Error::new(ErrorKind::AccessDenied { status: 403 }, "the token may not read the agent's own node (agent:read)"))
        }
    }
}
