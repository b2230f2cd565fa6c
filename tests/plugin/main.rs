//! The built component, embedded in wasmtime: what it sends, what it makes of every answer, and each function against agents.

mod answers;
mod functions;
mod locks;
mod requests;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(answers::ALONE).is_some() {
        return match answers::endless_answer() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    // Most tests only wait.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let mut trials = requests::trials();
    trials.extend(answers::trials());
    trials.extend(functions::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
