//! What the host's limits hold back, and what goes on meanwhile: hostile components, waiting for turns, and load.

mod hostile;
mod load;
mod plugin;
mod turns;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(ended) = load::alone() {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    // They are about what happens beside them, and about memory.
    arguments.test_threads = Some(1);
    let mut trials = hostile::trials();
    trials.extend(turns::trials());
    trials.extend(load::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
