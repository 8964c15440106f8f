//! What of this machine `local.binds` may show to an agent.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The kernel's and the services' own folders.
const SYSTEM: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// Refuses a path that is, holds or lies below one that is hidden. Links are followed first, on both sides.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn check(bind: &str, hidden: &[PathBuf]) -> Result<(), String> {
    if !Path::new(bind).is_absolute() {
        return Err(format!("local.binds {bind}: not an absolute path"));
    }
    let path = fs::canonicalize(bind).map_err(|error| format!("local.binds {bind}: {error}"))?;
    let kept = SYSTEM.iter().map(PathBuf::from).chain(hidden.iter().map(|path| followed(path)));
    for kept in kept {
        if kept.starts_with(&path) || path.starts_with(&kept) {
            return Err(format!(
                "local.binds {bind}: it would show {}, which no agent may see",
                kept.display()
            ));
        }
    }
    Ok(())
}

/// The path without links, as far as it exists: what is not there yet may be one day.
fn followed(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some(fs::canonicalize(above).ok()?.join(rest).components().collect())
    });
    known.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_hidden_is_shown_from_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        for made in ["home/.ssh/keys", "home/project", "elsewhere/aws"] {
            fs::create_dir_all(folder.path().join(made)).unwrap();
        }
        symlink(home.join(".ssh"), home.join("project/link")).unwrap();
        symlink(folder.path().join("elsewhere/aws"), home.join(".aws")).unwrap();
        symlink(&home, folder.path().join("linked-home")).unwrap();
        // By way of a link, and one that does not exist yet.
        let linked = folder.path().join("linked-home");
        let hidden = [linked.join(".ssh"), linked.join(".aws"), linked.join(".kube")];
        let check = |path: &Path| check(path.to_str().unwrap(), &hidden);
        for shown in
            ["home/.ssh", "home/.ssh/keys", "home/project/link", "home/project/link/keys", "home", "."]
        {
            let refused = check(&folder.path().join(shown)).unwrap_err();
            assert!(refused.contains("which no agent may see"), "{shown}: {refused}");
        }
        for shown in ["elsewhere/aws", "elsewhere", "home/.aws", "linked-home/.ssh"] {
            assert!(check(&folder.path().join(shown)).is_err(), "{shown}");
        }
        fs::create_dir(home.join(".kube")).unwrap();
        assert!(check(&home.join(".kube")).is_err());
        assert_eq!(check(&home.join("project")), Ok(()));
        for system in ["/", "/proc", "/proc/self", "/dev/shm", "/run", "/sys"] {
            assert!(check(Path::new(system)).is_err(), "{system}");
        }
        assert!(super::check("relative", &[]).unwrap_err().contains("absolute"));
        assert!(super::check("/no/such/folder", &[]).is_err());
    }
}
