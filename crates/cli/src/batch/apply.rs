//! `apply --file`: every record of a file, each as the core's own steps want it, with shared readings.

use super::file::Record;
use super::pool::{Interrupt, Work, run};
use super::replay::{NextStep, Progress, Shared, Snapshot, step};
use crate::convert;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session::outcome::Outcome;
use consul_session_host::{self as host, Connection, Consistency, CreateOptions, Host, Query};
use indicatif::ProgressBar;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// How to read what is decided upon.
pub const CONSISTENT: Query = Query { consistency: Some(Consistency::Consistent), index: None, wait: None };

/// The file's records, and what is known of each.
pub struct Apply {
    host: Host,
    interrupt: Interrupt,
    progress: ProgressBar,
    pub records: Vec<Entry>,
    agents: Vec<Agent>,
    /// Whether no record at all is to be begun any more.
    stopped: bool,
}

pub struct Entry {
    pub record: Record,
    agent: usize,
    done: Progress,
    /// Whether something was, or may have been, changed for it: then it is brought to its end.
    begun: bool,
    /// None until it is known.
    pub ending: Option<Result<Outcome, Error>>,
}

/// An agent of Consul's, and the way to it.
struct Agent {
    connection: Connection,
    shared: Shared,
    /// What makes it useless to go on: every further record would fail of the same.
    stopped: bool,
}

pub enum Job {
    Before(usize),
    After(usize),
    OwnNode(usize),
    Create(usize, Box<CreateOptions>),
    Destroy(usize, String),
    Alone(usize),
}

pub enum Completed {
    Before(usize, Result<Snapshot, Error>),
    After(usize, Result<Snapshot, Error>),
    OwnNode(usize, Result<String, Error>),
    Create(usize, Result<String, Error>),
    Destroy(usize, String, Result<(), Error>),
    Alone(usize, Box<Result<Outcome, Error>>),
}

impl Apply {
    pub fn new(host: Host, records: Vec<Record>, interrupt: Interrupt, progress: ProgressBar) -> Apply {
        let mut agents = Vec::new();
        let mut known = HashMap::new();
        let mut entries = Vec::new();
        for record in records {
            let (key, connection) = connection(&record.options);
            let agent = *known.entry(key).or_insert_with(|| {
                agents.push(Agent { connection, shared: Shared::default(), stopped: false });
                agents.len() - 1
            });
            entries.push(Entry { record, agent, done: Progress::default(), begun: false, ending: None });
        }
        Apply { host, interrupt, progress, records: entries, agents, stopped: false }
    }

    /// Brings every record to its end, or as far as it goes.
    pub async fn run(&mut self, at_once: usize) {
        let first: Vec<Job> = (0..self.agents.len()).map(Job::Before).collect();
        run(self, first, at_once).await;
        loop {
            let jobs = self.wanted();
            if jobs.is_empty() {
                return;
            }
            run(self, jobs, at_once).await;
        }
    }

    /// What all records together want next.
    fn wanted(&mut self) -> Vec<Job> {
        let (mut jobs, mut own_nodes, mut after) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for at in 0..self.records.len() {
            match self.step(at) {
                Some(Job::OwnNode(agent)) => drop(own_nodes.insert(agent)),
                Some(Job::After(agent)) => drop(after.insert(agent)),
                Some(job) => jobs.push(job),
                None => {}
            }
        }
        // Each reading once for all.
        jobs.extend(own_nodes.into_iter().map(Job::OwnNode));
        // And not while something is still created that it is to show.
        if jobs.is_empty() { after.into_iter().map(Job::After).collect() } else { jobs }
    }

    /// What a record wants next; None where it is at its end, or is not gone on with.
    fn step(&mut self, at: usize) -> Option<Job> {
        let entry = &self.records[at];
        let agent = &self.agents[entry.agent];
        if entry.ending.is_some() || agent.shared.before.is_none() {
            return None;
        }
        let job = match step(&entry.record.task, &entry.record.options, &agent.shared, &entry.done) {
            Ok(ended) => {
                self.end(at, ended);
                return None;
            }
            Err(NextStep::OwnNode) => Job::OwnNode(entry.agent),
            Err(NextStep::After) => Job::After(entry.agent),
            Err(NextStep::Creation(options)) => Job::Create(at, options),
            Err(NextStep::Destruction(id)) => Job::Destroy(at, id),
            Err(NextStep::Alone) => Job::Alone(at),
        };
        self.goes_on(at).then_some(job)
    }

    /// Whether a record is to be begun, or was.
    fn goes_on(&self, at: usize) -> bool {
        let entry = &self.records[at];
        entry.begun || self.may_begin(entry.agent)
    }

    fn may_begin(&self, agent: usize) -> bool {
        !self.stopped && !self.agents[agent].stopped && !self.interrupt.is_set()
    }

    fn begun(&mut self, at: usize) {
        if !self.records[at].begun {
            self.records[at].begun = true;
            self.progress.inc(1);
        }
    }

    fn end(&mut self, at: usize, ending: Result<Outcome, Error>) {
        self.begun(at);
        self.records[at].ending = Some(ending);
    }

    /// Draws from an error what it says of the records to come.
    fn note(&mut self, agent: usize, error: &Error) {
        // An operator has to allow it first, and it shows in the first reading: nothing was changed yet.
        self.stopped |= error.kind == ErrorKind::DeniedByHost;
        self.agents[agent].stopped |= fails_all(error);
    }
}

/// Whether whatever else is asked of the same agent would end so too.
pub fn fails_all(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Unreachable
            | ErrorKind::DeniedByHost
            | ErrorKind::Tls
            | ErrorKind::Timeout
            | ErrorKind::Unavailable { .. }
            | ErrorKind::UnknownDatacenter
            | ErrorKind::InvalidResponse
            | ErrorKind::OutcomeUnknown
    )
}

impl Work for Apply {
    type Job = Job;
    type Completed = Completed;

    fn is_wanted(&self, job: &Job) -> bool {
        match job {
            Job::Before(agent) => self.may_begin(*agent),
            // Asked for by what was begun, or by what may be.
            Job::After(_) | Job::OwnNode(_) => true,
            Job::Create(at, _) | Job::Destroy(at, _) | Job::Alone(at) => self.goes_on(*at),
        }
    }

    fn start(&self, job: Job) -> impl Future<Output = Completed> + Send + 'static {
        let host = self.host.clone();
        let agent = match &job {
            Job::Before(agent) | Job::After(agent) | Job::OwnNode(agent) => *agent,
            Job::Create(at, _) | Job::Destroy(at, _) | Job::Alone(at) => self.records[*at].agent,
        };
        let connection = self.agents[agent].connection.clone();
        let record = match &job {
            Job::Alone(at) => convert::options(&self.records[*at].record.options),
            _ => host::Options::default(),
        };
        async move {
            let to = Some(&connection);
            match job {
                Job::Before(agent) => Completed::Before(agent, snapshot(&host, to).await),
                Job::After(agent) => Completed::After(agent, snapshot(&host, to).await),
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

    fn did(&mut self, did: Completed) -> Option<Job> {
        match did {
            Completed::Before(agent, Ok(snapshot)) => self.agents[agent].shared.before = Some(snapshot),
            Completed::Before(agent, Err(error)) => {
                self.agents[agent].stopped = true;
                self.note(agent, &error);
                // Told once, with the first record that it keeps from being tried.
                if let Some(at) = self.records.iter().position(|entry| entry.agent == agent) {
                    self.end(at, Err(error));
                }
            }
            Completed::After(agent, result) => self.agents[agent].shared.after = Some(result),
            Completed::OwnNode(agent, result) => self.agents[agent].shared.own_node = Some(result),
            Completed::Create(at, result) => {
                self.begun(at);
                let agent = self.records[at].agent;
                // What was read before this creation does not show it.
                self.agents[agent].shared.after = None;
                match result {
                    Err(error) => {
                        self.note(agent, &error);
                        match error.is_ambiguous() {
                            true => self.records[at].done.creation = Some(Err(error)),
                            false => self.end(at, Err(error)),
                        }
                    }
                    Ok(id) => self.records[at].done.creation = Some(Ok(id)),
                }
            }
            Completed::Destroy(at, id, result) => {
                self.begun(at);
                if let Err(error) = &result {
                    self.note(self.records[at].agent, error);
                }
                self.records[at].done.destructions.insert(id, result);
                // Its next one, if it has more.
                return self.step(at);
            }
            Completed::Alone(at, result) => {
                if let Err(error) = &*result {
                    self.note(self.records[at].agent, error);
                }
                self.end(at, *result);
            }
        }
        None
    }
}

async fn snapshot(host: &Host, connection: Option<&Connection>) -> Result<Snapshot, Error> {
    host.list_sessions(Some(CONSISTENT), connection).await.map(Into::into).map_err(convert::error)
}

/// The agent's own node. The dry run of a creation without a name asks for that and for nothing else.
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
        // It is left empty where it may not be asked for.
        _ => Err(Error::new(ErrorKind::AccessDenied { status: 403 }, "the agent's own node may not be asked for (agent:read)")),
    }
}

/// The way to the agent that the options name; the same for records that can share their readings.
pub fn connection(options: &Options) -> (impl Eq + Hash + use<>, Connection) {
    let options = options.clone().resolve();
    let connection = convert::connection(&options);
    let Connection { host, port, validate_certs, token, datacenter, namespace, partition, .. } = connection.clone();
    let scheme = options.scheme.name();
    let key = (host, port, scheme, validate_certs, token, options.timeout, datacenter, namespace, partition);
    (key, connection)
}
