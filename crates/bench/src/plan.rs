//! What the arguments ask for.

use anyhow::{Context, Result, bail};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How much one run measures.
pub struct Extent {
    /// Number of rounds.
    pub rounds: usize,
    /// Instances that are idle at the same time.
    pub instances: usize,
    /// Whether to measure on a real agent and under Ansible too.
    pub all: bool,
    /// Name of the file in `target/` for all figures.
    pub file: &'static str,
}

const FULL: Extent = Extent { rounds: 15, instances: 500, all: true, file: "bench.json" };
const QUICK: Extent = Extent { rounds: crate::measure::FEWEST, instances: 50, all: false, file: "bench-quick.json" };

/// What to measure.
pub struct Plan {
    /// How much.
    pub extent: &'static Extent,
    /// Another plugin, to compare with.
    pub against: Option<PathBuf>,
    /// How many times.
    pub runs: usize,
}

impl Plan {
    /// Parses the arguments.
    pub fn new(args: &[String]) -> Result<Plan> {
        let mut plan = Plan { extent: &FULL, against: None, runs: 1 };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("`{arg}` needs a value"));
            match arg.as_str() {
                "--quick" => plan.extent = &QUICK,
                "--against" => plan.against = Some(value()?.into()),
                "--runs" => {
                    let runs = value()?;
                    let invalid = || format!("invalid value '{runs}' for '--runs': not a whole number (expected 1 or more)");
                    plan.runs = runs.parse::<NonZeroUsize>().with_context(invalid)?.get();
                }
                _ => bail!("unknown argument `{arg}` (expected --quick, --against PLUGIN or --runs N)"),
            }
        }
        Ok(plan)
    }

    /// Returns the name of the other plugin in the tables.
    pub fn other(&self) -> Option<String> {
        Some(self.against.as_ref()?.file_name()?.to_string_lossy().into_owned())
    }

    /// Returns whether `UPDATE_DOCS=1` asks to put the figures into `docs/`. A quick run has none on
    /// a real agent.
    pub fn is_documented(&self) -> bool {
        self.extent.all && std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &str) -> Result<Plan> {
        Plan::new(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_parsed_in_any_order() -> Result<()> {
        for (args, expected) in [
            ("", (true, None, 1)),
            ("--quick", (false, None, 1)),
            ("--runs 3 --against a/other.wasm", (true, Some("other.wasm"), 3)),
            ("--against other.wasm --quick --runs 2", (false, Some("other.wasm"), 2)),
        ] {
            let plan = plan(args)?;
            assert_eq!((plan.extent.all, plan.other().as_deref(), plan.runs), expected, "{args}");
        }
        Ok(())
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for args in ["--runs", "--runs 0", "--runs x", "--runs -1", "--against", "--fast", "quick"] {
            assert!(plan(args).is_err(), "{args}");
        }
    }
}
