//! The release notes, from the changelog.

use anyhow::{Context, Result, bail, ensure};
use semver::Version;

/// The heading of what is not released yet.
const UNRELEASED: &str = "Unreleased";

/// Returns the section of the changelog for this version, as a document of its own.
///
/// While the version has none, it is the section of what is not released, and the heading says so.
///
/// # Errors
///
/// The changelog names another version than the workspace.
pub fn notes(changelog: &str, version: &Version) -> Result<String> {
    let mut unreleased = None;
    let mut newest = None;
    for section in changelog.split("\n## ").skip(1) {
        let (heading, text) = section.split_once('\n').context("CHANGELOG.md ends with a heading")?;
        // A date may follow: `0.1.0 - 2026-12-01` or `[0.1.0] - 2026-12-01`.
        let name = heading.split_whitespace().next().unwrap_or_default().trim_matches(['[', ']']);
        if name == UNRELEASED {
            ensure!(newest.is_none(), "CHANGELOG.md: `{UNRELEASED}` is not the first section");
            unreleased = Some(text.trim()).filter(|text| !text.is_empty());
        } else {
            let named = Version::parse(name).with_context(|| format!("CHANGELOG.md: `## {heading}` names no version"))?;
            newest = Some((named, text.trim()));
            break;
        }
    }
    let (heading, text) = match (unreleased, newest) {
        (None, Some((named, text))) => {
            ensure!(named == *version, "CHANGELOG.md names the version {named}, [workspace.package] in Cargo.toml {version}");
            (version.to_string(), text)
        }
        (Some(text), newest) => {
            if let Some((named, _)) = newest.filter(|(named, _)| named >= version) {
                bail!(
                    "CHANGELOG.md has changes after the version {named}, and [workspace.package] in Cargo.toml is \
                     still {version}: raise it"
                );
            }
            (format!("{version} (unreleased)"), text)
        }
        (None, None) => bail!("CHANGELOG.md has no section for {version}"),
    };
    // Everything is one level higher than in the changelog.
    Ok(format!("# consul-session {heading}\n\n{}\n", format!("\n{text}").replace("\n#", "\n").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASED: &str = "# Changelog\n\n## 0.1.0 - 2026-12-01\n\n### Added\n\n- One.\n\n## 0.0.9\n\n- Two.\n";

    fn of(changelog: &str, version: &str) -> Result<String> {
        notes(changelog, &Version::parse(version)?)
    }

    #[test]
    fn section_of_the_version_becomes_the_notes() -> Result<()> {
        let expected = "# consul-session 0.1.0\n\n## Added\n\n- One.\n";
        assert_eq!(of(RELEASED, "0.1.0")?, expected);
        assert_eq!(of(&RELEASED.replace("0.1.0", "[0.1.0]"), "0.1.0")?, expected);
        assert_eq!(of(&RELEASED.replace("## 0.1", "## Unreleased\n\n## 0.1"), "0.1.0")?, expected);
        Ok(())
    }

    #[test]
    fn unreleased_changes_have_a_heading_that_says_so() -> Result<()> {
        let changelog = RELEASED.replace("## 0.1.0", "## Unreleased\n\n- Three.\n\n## 0.1.0");
        assert_eq!(of(&changelog, "0.2.0")?, "# consul-session 0.2.0 (unreleased)\n\n- Three.\n");
        assert_eq!(
            of("# Changelog\n\n## Unreleased\n\n- Three.\n", "0.1.0")?,
            "# consul-session 0.1.0 (unreleased)\n\n- Three.\n"
        );
        Ok(())
    }

    #[test]
    fn other_version_in_the_changelog_is_refused() {
        let fails = |changelog: &str, version: &str| of(changelog, version).expect_err("a mismatch").to_string();
        assert_eq!(fails(RELEASED, "0.1.1"), "CHANGELOG.md names the version 0.1.0, [workspace.package] in Cargo.toml 0.1.1");
        let changed = RELEASED.replace("## 0.1.0", "## Unreleased\n\n- Three.\n\n## 0.1.0");
        assert_eq!(
            fails(&changed, "0.1.0"),
            "CHANGELOG.md has changes after the version 0.1.0, and [workspace.package] in Cargo.toml is still 0.1.0: raise it"
        );
        assert_eq!(fails("# Changelog\n", "0.1.0"), "CHANGELOG.md has no section for 0.1.0");
        assert_eq!(fails("# C\n\n## Soon\n\nText\n", "0.1.0"), "CHANGELOG.md: `## Soon` names no version");
    }
}
