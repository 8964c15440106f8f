//! Paths that a run's branch must not change unasked: a forge would run them with the repository's secrets, or they
//! decide who reviews. Pure.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What the forges and CI systems in common use read from a repository. Folders are named as well as what is below
/// them, because a symlink in a folder's place changes all of it.
const CI: &[&str] = &[
    ".github",
    ".github/{workflows,actions}",
    ".github/{workflows,actions}/**",
    ".gitlab-ci.{yml,yaml}",
    ".gitlab/ci/**",
    ".gitea",
    ".gitea/**",
    ".forgejo",
    ".forgejo/**",
    ".circleci",
    ".circleci/**",
    "Jenkinsfile",
    ".buildkite",
    ".buildkite/**",
    "azure-pipelines.{yml,yaml}",
    ".drone.{yml,yaml}",
    ".woodpecker*",
    ".woodpecker*/**",
    "bitbucket-pipelines.yml",
    ".travis.yml",
    "CODEOWNERS",
    "{.github,.gitlab,docs}/CODEOWNERS",
];

/// A glob that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("protected path {glob:?}")]
pub struct RuleError {
    /// As written.
    glob: String,
    /// What is wrong with it.
    #[source]
    source: globset::Error,
}

/// Globs over whole paths: `*` stays within a folder, `**` crosses folders, case does not count.
#[derive(Debug, Clone)]
pub struct Rules {
    globs: GlobSet,
}

impl Rules {
    /// CI definitions and code owners, and what the caller adds.
    pub fn ci_and(more: &[&str]) -> Result<Self, RuleError> {
        let mut set = GlobSetBuilder::new();
        for glob in CI.iter().chain(more) {
            let fail = |source| RuleError { glob: (*glob).to_owned(), source };
            set.add(
                GlobBuilder::new(glob)
                    .literal_separator(true)
                    .case_insensitive(true)
                    .build()
                    .map_err(fail)?,
            );
        }
        let globs = set.build().map_err(|source| RuleError { glob: more.join(", "), source })?;
        Ok(Self { globs })
    }
}

/// Those of `paths` that the rules protect, in order.
pub fn protected<'a>(paths: impl IntoIterator<Item = &'a str>, rules: &Rules) -> Vec<&'a str> {
    paths.into_iter().filter(|path| rules.globs.is_match(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_definitions_are_protected() {
        let rules = Rules::ci_and(&[]).unwrap();
        for path in [
            ".github/workflows/ci.yml",
            ".github/workflows/deep/er/ci.yml",
            ".GitHub/Workflows/CI.yml",
            ".github",
            ".github/actions/setup/action.yml",
            ".gitlab-ci.yml",
            ".gitea/workflows/x.yaml",
            ".forgejo/workflows/x.yaml",
            ".circleci/config.yml",
            "Jenkinsfile",
            ".buildkite/pipeline.yml",
            "azure-pipelines.yml",
            ".drone.yml",
            ".woodpecker.yml",
            ".woodpecker/test.yaml",
            "bitbucket-pipelines.yml",
            ".travis.yml",
            "CODEOWNERS",
            "docs/CODEOWNERS",
            ".github/CODEOWNERS",
        ] {
            assert_eq!(protected([path], &rules), [path]);
        }
    }

    #[test]
    fn ordinary_files_are_not() {
        let rules = Rules::ci_and(&["deploy/**"]).unwrap();
        let paths = [
            "src/main.rs",
            ".github/ISSUE_TEMPLATE.md",
            "docs/Jenkinsfile.md",
            "a/.travis.yml",
            "deploy/prod.yaml",
        ];
        assert_eq!(protected(paths, &rules), ["deploy/prod.yaml"]);
        assert!(Rules::ci_and(&["a{"]).is_err());
    }
}
