//! Many calls at once, in a way that a person can follow and end.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::VecDeque;
use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// What is done in jobs.
pub trait Work {
    type Job;
    type Completed: Send + 'static;

    /// Whether the job is still to be begun.
    fn is_wanted(&self, job: &Self::Job) -> bool;

    fn start(&self, job: Self::Job) -> impl Future<Output = Self::Completed> + Send + 'static;

    /// Takes what came of a job; what is to follow it.
    fn did(&mut self, did: Self::Completed) -> Option<Self::Job>;
}

/// Does the jobs, so many at once, and what follows from them.
pub async fn run<W: Work>(work: &mut W, jobs: impl IntoIterator<Item = W::Job>, at_once: usize) {
    let mut jobs: VecDeque<W::Job> = jobs.into_iter().collect();
    let mut running = JoinSet::new();
    loop {
        while running.len() < at_once
            && let Some(job) = jobs.pop_front()
        {
            if work.is_wanted(&job) {
                running.spawn(work.start(job));
            }
        }
        match running.join_next().await {
            // First, so that what was begun is brought to its end.
            Some(Ok(did)) => work.did(did).into_iter().for_each(|job| jobs.push_front(job)),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => return,
        }
    }
}

/// Whether somebody wants it to end.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

/// As a shell tells that a command was ended by SIGINT.
pub const INTERRUPTED: u8 = 130;

impl Interrupt {
    /// Listens for SIGINT and SIGTERM. The second one ends the program at once.
    pub fn listen() -> io::Result<Interrupt> {
        let interrupt = Interrupt(Arc::default());
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let interrupted = Arc::clone(&interrupt.0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                if interrupted.swap(true, Ordering::Relaxed) {
                    eprintln!("ended at once: what was under way may have happened");
                    exit(INTERRUPTED.into());
                }
                eprintln!("interrupted: what was begun is finished; once more ends at once");
            }
        });
        Ok(interrupt)
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A bar on standard error, where that is a terminal and people read it.
pub fn progress(length: usize, what: &'static str, shown: bool) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
