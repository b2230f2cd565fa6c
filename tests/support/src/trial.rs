//! Tests that are data: what `libtest-mimic` runs.

use crate::consul::Consul;
use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// A test whose failure shows the whole chain of causes.
pub fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// A test as a program lists it.
pub type Test = fn() -> Result<()>;

/// Runs a program's tests as its command line says. Those that need a Consul are shown as ignored where there is none.
pub fn run_tests<const N: usize, const M: usize>(
    without_consul: [(&'static str, Test); N],
    with_consul: [(&'static str, Test); M],
) -> ExitCode {
    let no_consul = Consul::is_missing();
    let trials = without_consul
        .into_iter()
        .map(|(name, test)| trial(name, test))
        .chain(with_consul.into_iter().map(|(name, test)| trial(name, test).with_ignored_flag(no_consul)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
