//! Runs many calls concurrently, with a progress bar, and stops on a signal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::VecDeque;
use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Work that consists of jobs, some of which follow from others.
pub trait Work {
    type Job;
    type Completed: Send + 'static;

    /// Returns whether the job is still to be started.
    fn is_wanted(&self, job: &Self::Job) -> bool;

    /// Starts a job.
    fn start(&self, job: Self::Job) -> impl Future<Output = Self::Completed> + Send + 'static;

    /// Takes the result of a job, and returns the job that follows it.
    fn complete(&mut self, completed: Self::Completed) -> Option<Self::Job>;
}

/// Runs the jobs and those that follow from them, at most `concurrency` at once.
pub async fn run<W: Work>(work: &mut W, jobs: impl IntoIterator<Item = W::Job>, concurrency: usize) {
    let mut jobs: VecDeque<W::Job> = jobs.into_iter().collect();
    let mut running = JoinSet::new();
    loop {
        while running.len() < concurrency
            && let Some(job) = jobs.pop_front()
        {
            if work.is_wanted(&job) {
                running.spawn(work.start(job));
            }
        }
        match running.join_next().await {
            // At the front, so that started work is finished first.
            Some(Ok(completed)) => work.complete(completed).into_iter().for_each(|job| jobs.push_front(job)),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => return,
        }
    }
}

/// Whether a signal has interrupted the command.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

/// The exit status of a command that SIGINT ended, as a shell reports it.
pub const INTERRUPTED: u8 = 130;

impl Interrupt {
    /// Listens for SIGINT and SIGTERM. The second signal ends the program at once.
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
                    eprintln!("stopped: requests that were under way may have taken effect");
                    exit(INTERRUPTED.into());
                }
                eprintln!("interrupted: finishing the requests under way; interrupt again to stop at once");
            }
        });
        Ok(interrupt)
    }

    /// Returns whether a signal was received.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a command runs before its progress bar appears.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Returns a progress bar on standard error, which shows on a terminal only and after a second, or a
/// hidden one.
pub fn progress(length: usize, what: &'static str, shown: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::hidden()).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    if shown {
        let bar = bar.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SHOWN_AFTER).await;
            // A bar that is finished by then is not drawn again.
            bar.set_draw_target(ProgressDrawTarget::stderr());
        });
    }
    bar
}
