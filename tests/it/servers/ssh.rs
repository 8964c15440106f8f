//! An OpenSSH server on a port of its own, with keys and settings of its own.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// Debian's place; sshd wants to be called by its whole name.
const SSHD: &str = "/usr/sbin/sshd";

/// What a server is like.
pub(crate) struct Options<'a> {
    /// Kinds of host keys, as ssh-keygen names them.
    pub(crate) host_keys: &'a [&'a str],
    /// The host keys have certificates for these names.
    pub(crate) certified_for: Option<&'a str>,
    /// It takes version 2 of the Git protocol.
    pub(crate) version_2: bool,
    /// More lines of its settings.
    pub(crate) more: &'a str,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { host_keys: &["ed25519"], certified_for: None, version_2: true, more: "" }
    }
}

/// A server; each connection is a process. Dropped, all of them end.
pub(crate) struct Ssh {
    root: tempfile::TempDir,
    port: u16,
    lives: Arc<Lives>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Lives {
    ending: AtomicBool,
    /// Bytes after which a connection is cut, from the server's side; 0: none.
    cut: Mutex<Option<usize>>,
    children: Mutex<Vec<Child>>,
}

impl Ssh {
    /// Lets nobody in so far.
    pub(crate) fn start(options: &Options<'_>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut config = format!(
            "AuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPidFile none\nLogLevel VERBOSE\nMaxStartups 100\n\
             SetEnv GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null\n",
            root.path().join("authorized_keys").display()
        );
        keygen(root.path(), "authority", &["-t", "ed25519"]);
        for kind in options.host_keys {
            let name = format!("host_{kind}");
            keygen(root.path(), &name, &["-t", kind]);
            writeln!(config, "HostKey {}", root.path().join(&name).display()).unwrap();
            if let Some(names) = options.certified_for {
                let public = format!("{name}.pub");
                run(root.path(), &["-s", "authority", "-I", "test", "-h", "-n", names, &public]);
                writeln!(config, "HostCertificate {}/{name}-cert.pub", root.path().display()).unwrap();
            }
        }
        if options.version_2 {
            config += "AcceptEnv GIT_PROTOCOL\n";
        }
        std::fs::write(root.path().join("sshd_config"), config + options.more + "\n").unwrap();
        std::fs::write(root.path().join("authorized_keys"), "").unwrap();
        if rustix::process::geteuid().is_root() {
            // Where sshd confines its unprivileged half.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let lives = Arc::new(Lives::default());
        let (folder, held) = (root.path().to_owned(), Arc::clone(&lives));
        let listener = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if held.ending.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let cut = *held.cut.lock().unwrap();
                let stream = if let Some(bytes) = cut { behind(stream, bytes) } else { stream };
                held.children.lock().unwrap().push(sshd(&folder, stream));
            }
        });
        Self { root, port, lives, listener: Some(listener) }
    }

    /// The URL of a repository for whoever runs the test.
    pub(crate) fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", user(), self.port, repository.display())
    }

    /// Where it listens, as a Secret names it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it listens, as `known_hosts` names it.
    pub(crate) fn listed(&self) -> String {
        format!("[127.0.0.1]:{}", self.port)
    }

    /// The host key of a kind, without a comment.
    pub(crate) fn host_key(&self, kind: &str) -> String {
        public(&self.root.path().join(format!("host_{kind}.pub")))
    }

    /// The key of the authority that certifies hosts.
    pub(crate) fn authority(&self) -> String {
        public(&self.root.path().join("authority.pub"))
    }

    /// A line of `known_hosts` with the server's ed25519 key.
    pub(crate) fn known_hosts(&self) -> String {
        format!("{} {}\n", self.listed(), self.host_key("ed25519"))
    }

    /// A folder for keys of users.
    pub(crate) fn folder(&self) -> &Path {
        self.root.path()
    }

    /// Lets the owner of a key in: only that one.
    pub(crate) fn authorize(&self, public: &str) {
        std::fs::write(self.root.path().join("authorized_keys"), format!("restrict {public}\n")).unwrap();
    }

    /// A new key of a user who is let in: the private half.
    pub(crate) fn user(&self, name: &str, arguments: &[&str]) -> String {
        let private = keygen(self.folder(), name, arguments);
        self.authorize(&public(&self.folder().join(format!("{name}.pub"))));
        private
    }

    /// What the server did, in its own words.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }

    /// From now on connections break after so many bytes of the server's.
    pub(crate) fn cut_after(&self, bytes: Option<usize>) {
        *self.lives.cut.lock().unwrap() = bytes;
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.lives.ending.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let woken = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        if let Some(listener) = self.listener.take().filter(|_| woken) {
            let _ = listener.join();
        }
        for child in self.lives.children.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("sshd said:\n{}", self.log());
        }
    }
}

/// The server for one connection, as inetd would start it.
fn sshd(folder: &Path, stream: TcpStream) -> Child {
    let output = stream.try_clone().unwrap();
    Command::new(SSHD)
        .arg("-i")
        .arg("-f")
        .arg(folder.join("sshd_config"))
        .arg("-E")
        .arg(folder.join("log"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{SSHD}: {error}; scripts/deps.sh installs it"))
}

/// A stream for a server whose words reach the client only so far; then both sides are cut.
fn behind(client: TcpStream, bytes: usize) -> TcpStream {
    let pair = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = pair.local_addr().unwrap();
    let near = TcpStream::connect(address).unwrap();
    let (far, _) = pair.accept().unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), near.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    std::thread::spawn(move || {
        let (mut to_client, limit) = (&client, u64::try_from(bytes).unwrap());
        let _ = std::io::copy(&mut Read::take(&near, limit), &mut to_client);
        let _ = to_client.flush();
        for stream in [&client, &near] {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
    far
}

/// Who runs the test: the only user that a server without privileges lets in.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a key without a passphrase, unless the arguments name one; gives the private half.
pub(crate) fn keygen(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let passphrase: &[&str] = if arguments.contains(&"-N") { &[] } else { &["-N", ""] };
    run(folder, &[&["-q", "-C", "test", "-f", name][..], passphrase, arguments].concat());
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Runs ssh-keygen in a folder.
pub(crate) fn run(folder: &Path, arguments: &[&str]) {
    let output = Command::new("ssh-keygen").current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Kind and key of a public key's file.
pub(crate) fn public(file: &PathBuf) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
