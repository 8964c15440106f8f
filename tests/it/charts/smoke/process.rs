//! A role's own process, started as the chart starts it.

use serde_json::Value;

use super::Attempt;
use crate::scenarios::up::{self, Ended, Up};

/// A role's process. Dropped, it is killed: what it would still ask for in an orderly end may be refused to it.
pub(super) struct Process(Option<Up>);

impl Process {
    pub(super) fn text(&self) -> String {
        self.0.as_ref().map(Up::text).unwrap_or_default()
    }

    /// Asks it to end, and waits until it has.
    pub(super) fn stop(mut self) -> Ended {
        self.0.take().expect("it was started").stop()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(up) = self.0.take() {
            up.kill();
        }
    }
}

impl Attempt<'_> {
    /// The role's own process.
    pub(super) fn process(&self, arguments: &[&[&str]]) -> Process {
        let mut command = up::ostler(self.folder.path());
        command
            .args([&self.smoke.role, "--json", "--health", "127.0.0.1:0", "--kubeconfig"])
            .arg(&self.smoke.kubeconfig)
            .args(arguments.concat());
        Process(Some(Up::start(command)))
    }

    /// The controller, with pods as its places, as the chart has it.
    pub(super) fn start_controller(&self) -> Process {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        std::fs::write(file("ca.crt"), "").unwrap();
        self.process(&[
            &self.leading(),
            &["--places", "pods", "--image", "registry.example.com/ostler"],
            &["--proxy", "10.96.0.7:8443", "--proxy-canary", "10.96.0.7:8444", "--proxy-name", "proxy"],
            &["--recorder-name", "recorder", "--proxy-ca", &file("ca.crt"), "--proxy-port", "8443"],
            &["--proxy-namespace", &self.smoke.home, "--proxy-label", "app.kubernetes.io/component=proxy"],
        ])
    }

    /// The recorder, and the certificate that it shows.
    pub(super) fn start_recorder(&self) -> (Process, String) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let key = ostler::git::sign::SigningKey::generate("recorder").unwrap();
        key.store(&self.folder.path().join("signing_key")).unwrap();
        let pair = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&pair).unwrap().pem();
        std::fs::write(file("tls.crt"), &certificate).unwrap();
        std::fs::write(file("tls.key"), pair.serialize_pem()).unwrap();
        let process = self.process(&[
            &self.leading(),
            &["--signing-key", &file("signing_key"), "--listen", "127.0.0.1:0"],
            &["--tls-cert", &file("tls.crt"), "--tls-key", &file("tls.key")],
        ]);
        (process, certificate)
    }

    /// What both that lead are told.
    pub(super) fn leading(&self) -> [&str; 8] {
        let scope = ["--namespace", &self.namespace, "--lease-namespace", &self.smoke.home];
        let [a, b, c, d] = scope;
        [a, b, c, d, "--identity", "smoke", "--state", "state"]
    }
}

/// The address in a line that says where a process listens.
pub(super) fn listening(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["what"] == "listening").then(|| line["value"].as_str().map(str::to_owned))?
}
