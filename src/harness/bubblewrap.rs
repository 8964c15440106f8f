//! What bubblewrap is told: what a process sees of this machine. Pure but for [`Host::look`].
//!
//! Everything is new (user, PID, network, IPC and UTS namespaces, environment, root) unless it is named here. bubblewrap
//! refuses to start when it cannot make one of them, so isolation fails closed.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::ports::workloads::AGENT_HOME;

/// Where the shared directory is seen.
pub const SHARED: &str = "/run/ostler";
/// The program in it.
pub const PROGRAM: &str = "/run/ostler/ostler";
/// The user and group that the agent sees itself as.
const USER: &str = "1000";
/// `/dev/shm` is memory that no process owns, so it is small.
const SHM_BYTES: &str = "67108864";
/// Top-level folders with programs and libraries; on most systems links into `/usr`.
const SYSTEM: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Parts of `/etc` that programs need to find libraries, certificates, terminals and the time. No names, no users.
const ETC: [&str; 11] = [
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
];

/// How this machine lays out its system folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Top-level links, with their targets.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Top-level folders.
    pub folders: Vec<PathBuf>,
    /// Parts of `/etc`.
    pub etc: Vec<PathBuf>,
}

impl Host {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When a link cannot be read.
    pub fn look() -> io::Result<Self> {
        let mut host = Self::default();
        for name in SYSTEM {
            let path = Path::new("/").join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => host.links.push((path.clone(), fs::read_link(&path)?)),
                Ok(_) => host.folders.push(path),
                Err(_) => {}
            }
        }
        host.etc = ETC.iter().map(|name| Path::new("/etc").join(name)).filter(|path| path.exists()).collect();
        Ok(host)
    }
}

/// What the agent's container looks like.
#[derive(Debug, Clone)]
pub struct AgentView<'a> {
    /// This machine.
    pub host: &'a Host,
    /// The program to show as [`PROGRAM`].
    pub program: &'a Path,
    /// The shared directory.
    pub shared: &'a Path,
    /// Our own files of `/etc`.
    pub etc: &'a [PathBuf],
    /// The workspace, and where it is seen.
    pub workspace: (&'a Path, &'a str),
    /// The agent's home.
    pub home: &'a Path,
    /// Its temporary files.
    pub tmp: &'a Path,
    /// Folders of the host to show, read-only.
    pub binds: &'a [String],
}

/// The arguments of `bwrap` for the agent's container; its PID 1 is the shim.
#[must_use]
pub fn agent(view: &AgentView<'_>) -> Vec<OsString> {
    let mut args = Argv::new(view.host);
    args.words(&["--size", SHM_BYTES, "--tmpfs", "/dev/shm"]);
    for file in view.etc {
        args.bind("--ro-bind", file, Path::new("/etc").join(file.file_name().unwrap_or_default()));
    }
    args.bind("--bind", view.home, AGENT_HOME);
    args.bind("--bind", view.tmp, "/tmp");
    args.bind("--bind", view.workspace.0, view.workspace.1);
    for bind in view.binds {
        args.bind("--ro-bind", bind, bind);
    }
    args.bind("--ro-bind", view.shared, SHARED);
    args.bind("--ro-bind", view.program, PROGRAM);
    // Now that everything has its mount point, nothing can be added to the root.
    args.words(&["--remount-ro", "/", "--chdir", "/", "--"]);
    args.words(&[PROGRAM, "shim", "supervise", "--socket"]);
    args.0.push(Path::new(SHARED).join(crate::shim::wire::SOCKET).into());
    args.0
}

/// What the collector sees.
#[derive(Debug, Clone)]
pub struct CollectorView<'a> {
    /// This machine.
    pub host: &'a Host,
    /// The program to show as [`PROGRAM`].
    pub program: &'a Path,
    /// The workspace, seen read-only as `/workspace`.
    pub workspace: &'a Path,
    /// Where it puts what it found, seen as `/out`.
    pub out: &'a Path,
}

/// The arguments of `bwrap` for the collector, which reads what the agent left. It ends with its parent.
#[must_use]
pub fn collector(view: &CollectorView<'_>, command: &[&str]) -> Vec<OsString> {
    let mut args = Argv::new(view.host);
    args.words(&["--die-with-parent", "--tmpfs", "/tmp"]);
    args.bind("--ro-bind", view.workspace, "/workspace");
    args.bind("--bind", view.out, "/out");
    args.bind("--ro-bind", view.program, PROGRAM);
    args.words(&["--remount-ro", "/", "--chdir", "/", "--", PROGRAM]);
    args.words(command);
    args.0
}

struct Argv(Vec<OsString>);

impl Argv {
    /// New namespaces and the system's folders, read-only.
    fn new(host: &Host) -> Self {
        let mut args = Self(Vec::new());
        // --unshare-all goes on without a user namespace where there is none; --unshare-user does not.
        args.words(&["--unshare-all", "--unshare-user", "--as-pid-1", "--new-session", "--clearenv"]);
        args.words(&["--uid", USER, "--gid", USER, "--hostname", "ostler", "--cap-drop", "ALL"]);
        args.words(&["--proc", "/proc", "--dev", "/dev"]);
        args.bind("--ro-bind", "/usr", "/usr");
        for (link, target) in &host.links {
            args.bind("--symlink", target, link);
        }
        for folder in &host.folders {
            args.bind("--ro-bind", folder, folder);
        }
        for part in &host.etc {
            args.bind("--ro-bind", part, part);
        }
        args
    }

    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    fn bind(&mut self, how: &str, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        self.0.extend([how.into(), from.as_ref().into(), to.as_ref().into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            links: vec![("/bin".into(), "usr/bin".into())],
            folders: vec!["/lib64".into()],
            etc: vec!["/etc/ssl/certs".into()],
        }
    }

    fn text(args: &[OsString]) -> String {
        args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_agent_sees_only_what_is_named() {
        let view = AgentView {
            host: &host(),
            program: Path::new("/opt/ostler"),
            shared: Path::new("/p/shared"),
            etc: &["/p/etc/passwd".into()],
            workspace: (Path::new("/p/workspace"), "/workspace"),
            home: Path::new("/p/home"),
            tmp: Path::new("/p/tmp"),
            binds: &["/opt/agents".into()],
        };
        let words = text(&agent(&view));
        let expected = "--unshare-all --unshare-user --as-pid-1 --new-session --clearenv --uid 1000 --gid 1000 \
            --hostname ostler --cap-drop ALL --proc /proc --dev /dev --ro-bind /usr /usr --symlink usr/bin /bin \
            --ro-bind /lib64 /lib64 --ro-bind /etc/ssl/certs /etc/ssl/certs --size 67108864 --tmpfs /dev/shm \
            --ro-bind /p/etc/passwd /etc/passwd --bind /p/home /home/agent --bind /p/tmp /tmp \
            --bind /p/workspace /workspace --ro-bind /opt/agents /opt/agents --ro-bind /p/shared /run/ostler \
            --ro-bind /opt/ostler /run/ostler/ostler --remount-ro / --chdir / -- /run/ostler/ostler shim supervise \
            --socket /run/ostler/shim.sock";
        assert_eq!(words, expected);
        assert!(!words.contains("share-net"), "the network namespace is its own");
    }

    #[test]
    fn the_collector_cannot_write_to_the_workspace() {
        let view = CollectorView {
            host: &host(),
            program: Path::new("/opt/ostler"),
            workspace: Path::new("/p/workspace"),
            out: Path::new("/p/out"),
        };
        let words = text(&collector(&view, &["harness", "collect"]));
        assert!(words.contains("--ro-bind /p/workspace /workspace --bind /p/out /out"));
        assert!(words.contains("--die-with-parent"));
        assert!(words.ends_with("-- /run/ostler/ostler harness collect"));
    }
}
