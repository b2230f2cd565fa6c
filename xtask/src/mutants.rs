//! `cargo xtask mutants`: changes the code in one place after another with cargo-mutants, and reports
//! the changes that no test notices.

use crate::build;
use crate::tools::{cargo_install, consul, root, run_command, step};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

const VERSION: &str = "27.1.0";

/// A part of the code, and the tests that must notice its mutants.
struct Area {
    name: &'static str,
    /// The package with the code.
    package: &'static str,
    files: &'static [&'static str],
    except: &'static [&'static str],
    /// The package with the tests.
    tests: &'static str,
    stages: &'static [Stage],
}

/// A run of tests. It gets the mutants that the stage before it missed, so the fast tests come first.
struct Stage {
    /// Arguments of cargo, for the build too: what is not named here is not built.
    cargo: &'static [&'static str],
    /// Arguments of the tests.
    test: &'static [&'static str],
    /// The most seconds for the tests of one mutant, which may be in an endless loop.
    timeout: &'static str,
}

const AREAS: &[Area] = &[
    Area {
        name: "core",
        package: "consul-session",
        files: &["src/**"],
        except: &["src/component/**"],
        tests: "consul-session",
        stages: &[
            // Unoptimised code builds four times as fast, and suffices for all tests but those which try
            // every order of requests.
            Stage {
                cargo: &["--lib", "--test=core", "--config=profile.dev.package.consul-session.opt-level=0"],
                test: &["--skip", "races::", "--skip", "lists_over_the_limits"],
                timeout: "60",
            },
            Stage {
                cargo: &["--lib", "--test=core"],
                test: &["--skip", "schedules_of", "--skip", "three_replacers"],
                timeout: "120",
            },
            Stage { cargo: &["--test=core"], test: &["races::schedules_of", "races::three_replacers"], timeout: "1200" },
        ],
    },
    Area {
        name: "policy",
        package: "consul-session-host",
        files: &["crates/host/src/policy.rs"],
        except: &[],
        tests: "consul-session-host",
        stages: &[
            Stage { cargo: &["--lib"], test: &["policy::", "--skip", "invariants_hold"], timeout: "60" },
            Stage { cargo: &["--lib"], test: &[], timeout: "300" },
        ],
    },
    Area {
        name: "transport",
        package: "consul-session-host",
        files: &["crates/host/src/http/**"],
        except: &[],
        tests: "consul-session-host",
        stages: &[
            Stage { cargo: &["--lib"], test: &["http::", "--skip", "the_plugin_through"], timeout: "30" },
            Stage { cargo: &["--lib", "--test=host_limits"], test: &[], timeout: "300" },
        ],
    },
    // Code for wasm32 only. The runner builds the component of each mutant before its tests. One that
    // does not build counts as caught.
    Area {
        name: "component",
        package: "consul-session",
        files: &["src/component/**"],
        except: &[],
        tests: "consul-session-tests",
        stages: &[Stage {
            cargo: &["--test=plugin", "--config=target.'cfg(unix)'.runner=['cargo','xtask','with-plugin']"],
            test: &[],
            timeout: "900",
        }],
    },
];

/// The names of mutants by what became of them.
#[derive(Default)]
struct Outcomes {
    caught: Vec<String>,
    missed: Vec<String>,
    timeout: Vec<String>,
    unviable: Vec<String>,
}

/// Runs one area, or all of them. With `shard`, which is `K/N`, it runs one of N parts of each.
pub fn run(shard: Option<&str>, area: Option<&str>) -> Result<()> {
    let areas: Vec<&Area> = AREAS.iter().filter(|listed| area.is_none_or(|name| listed.name == name)).collect();
    let names = || AREAS.iter().map(|area| area.name).collect::<Vec<_>>().join(", ");
    ensure!(!areas.is_empty(), "unknown area `{}`; the areas are {}", area.unwrap_or_default(), names());
    let program = step("cargo-mutants", || cargo_install("cargo-mutants", VERSION, &[]))?.join("cargo-mutants");
    let consul = step("a real Consul agent", consul)?;
    let plugin = step("the component", build::run)?;
    let mut table = String::from("| area | mutants | caught | missed | time-outs | unviable |\n|---|---|---|---|---|---|\n");
    let mut missed = Vec::new();
    for area in areas {
        let outcomes = step(area.name, || area.run(&program, shard, &consul, &plugin))?;
        let Outcomes { caught, missed: of_area, timeout, unviable } = &outcomes;
        let counts = [caught, of_area, timeout, unviable].map(Vec::len);
        let [caught, not_caught, timeout, unviable] = counts;
        let total: usize = counts.iter().sum();
        table += &format!("| {} | {total} | {caught} | {not_caught} | {timeout} | {unviable} |\n", area.name);
        missed.extend(outcomes.missed);
    }
    println!("{table}");
    if missed.is_empty() {
        return Ok(());
    }
    bail!("no test notices these mutants; `docs/mutants.md` says what to do:\n{}", missed.join("\n"))
}

impl Area {
    /// Runs the stages one after another, and returns the outcomes over all of them.
    fn run(&self, program: &Path, shard: Option<&str>, consul: &Path, plugin: &Path) -> Result<Outcomes> {
        let folder = root().join("target").join("mutants").join(self.name);
        let mut outcomes = Outcomes::default();
        for (number, stage) in self.stages.iter().enumerate() {
            if number > 0 && outcomes.missed.is_empty() {
                break;
            }
            let folder = folder.join(format!("stage{}", number + 1));
            std::fs::create_dir_all(&folder)?;
            let mut mutants = Command::new(program);
            mutants.args(["mutants", "--package", self.package, "--no-shuffle", "--colors", "never"]);
            mutants.args(self.except.iter().flat_map(|file| ["--exclude", file]));
            mutants.args(stage.cargo.iter().map(|arg| format!("--cargo-arg={arg}")));
            mutants.args(["--test-package", self.tests, "--timeout", stage.timeout, "--output"]).arg(&folder);
            match number {
                0 => mutants
                    .args(self.files.iter().flat_map(|file| ["--file", file]))
                    .args(shard.iter().flat_map(|shard| ["--shard", shard])),
                // The unchanged code has passed in the first stage. The files are named too, since mutants
                // that leave out a field of a struct are made whatever the expressions say.
                _ => mutants
                    .args(["--baseline", "skip"])
                    .args(outcomes.missed.iter().filter_map(|name| name.split(':').next()).flat_map(|file| ["--file", file]))
                    .args(outcomes.missed.iter().flat_map(|name| ["--re".into(), exactly(name)])),
            };
            mutants.args(["--", "--"]).args(stage.test).current_dir(root());
            // The folder is kept for the next run: the dependencies take minutes.
            mutants.env("CARGO_TARGET_DIR", root().join("target").join("mutants").join("target"));
            // Faster to build than what is released.
            mutants.envs([("CARGO_PROFILE_DEV_DEBUG", "false"), ("CARGO_PROFILE_COMPONENT_LTO", "off")]);
            mutants.envs([("CARGO_PROFILE_COMPONENT_CODEGEN_UNITS", "16"), ("CARGO_PROFILE_COMPONENT_INCREMENTAL", "true")]);
            mutants.env("CONSUL_BIN", consul).env("CONSUL_SESSION_PLUGIN", plugin);
            let status = mutants.status().context("cargo-mutants cannot be run")?;
            // It ends with 2 if it missed mutants, and with 3 if the tests of one took too long.
            ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants failed: {status}");
            let found = read(&folder.join("mutants.out"))?;
            outcomes = match number {
                0 => found,
                _ => outcomes.after(found),
            };
        }
        Ok(outcomes)
    }
}

impl Outcomes {
    /// Returns the outcomes after another stage, which counts only for the mutants that were missed.
    fn after(mut self, stage: Outcomes) -> Outcomes {
        let missed = std::mem::take(&mut self.missed);
        let of_missed = |names: Vec<String>| names.into_iter().filter(|name| missed.contains(name)).collect::<Vec<_>>();
        self.caught.extend(of_missed(stage.caught));
        self.timeout.extend(of_missed(stage.timeout));
        self.unviable.extend(of_missed(stage.unviable));
        Outcomes { missed: of_missed(stage.missed), ..self }
    }
}

/// Reads what cargo-mutants wrote.
fn read(folder: &Path) -> Result<Outcomes> {
    let names = |what: &str| {
        let file = folder.join(what).with_extension("txt");
        let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok::<_, anyhow::Error>(text.lines().map(String::from).collect())
    };
    Ok(Outcomes {
        caught: names("caught")?,
        missed: names("missed")?,
        timeout: names("timeout")?,
        unviable: names("unviable")?,
    })
}

/// Returns a regular expression for exactly this name of a mutant.
fn exactly(name: &str) -> String {
    let mut pattern = String::from("^");
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "$"
}

/// Runs a program of tests with the component that is built from this tree.
pub fn with_plugin(program: &[&str]) -> Result<()> {
    let [program, args @ ..] = program else { bail!("no program to run") };
    let plugin = build::plugin_to(&build::target_directory()?.join("with-plugin"))?;
    run_command(Command::new(program).args(args).env("CONSUL_SESSION_PLUGIN", plugin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_stage_counts_only_for_what_was_missed() {
        let list = |names: &str| names.chars().map(String::from).collect::<Vec<_>>();
        let outcomes = |caught, missed, timeout| {
            let (caught, missed, timeout) = (list(caught), list(missed), list(timeout));
            Outcomes { caught, missed, timeout, unviable: Vec::new() }
        };
        let after = outcomes("ab", "cde", "").after(outcomes("ac", "db", "e"));
        assert_eq!((after.caught, after.missed, after.timeout), (list("abc"), list("d"), list("e")));
    }

    #[test]
    fn name_of_a_mutant_matches_itself() {
        let name = "src/a.rs:1:5: replace f -> Result<(), E> with Ok(vec![])";
        assert_eq!(exactly(name), r"^src/a\.rs:1:5: replace f -> Result<\(\), E> with Ok\(vec!\[\]\)$");
    }
}
