//! The same over ssh: source, ledger and code behind OpenSSH servers.

use ostler::kinds::{ConfigRepository, Phase, Reason};
use serde_json::{Value, json};

use super::{
    manifests::{commits, secret, session_with, shell},
    way::goes_the_whole_way,
    world::World,
};
use crate::servers::{
    repo::Repo,
    ssh::{Options, Ssh, keygen, public},
};

/// Two repositories behind servers of their own, and an identity for each.
struct Far {
    config: Ssh,
    code: Ssh,
    /// The private halves.
    identities: [String; 2],
    world: World,
}

/// What a Secret for a server holds.
fn opens(server: &Ssh, identity: &str) -> Value {
    json!({"identity": identity, "known_hosts": server.known_hosts()})
}

impl Far {
    fn new() -> Self {
        let (config, code) = (Ssh::start(&Options::default()), Ssh::start(&Options::default()));
        let identities = [
            config.user("user", &["-t", "ed25519"]),
            code.user("user", &["-t", "ecdsa", "-a", "2", "-N", "open"]),
        ];
        let mut world = World::of(Repo::new(), Repo::with_readme());
        let repository = json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository", "metadata": {"name": "agents"},
            "spec": {"url": config.url(&world.config.bare()), "interval": "1s", "secretRef": {"name": "config"}},
        });
        let file = world.write("repository.yaml", &repository.to_string());
        world.target = vec!["--config".into(), file.into(), "--secrets".into(), world.path("secrets").into()];
        let session = session_with(
            &code.url(&world.code.bare()),
            &json!({"repository": {"secretRef": {"name": "code"}}}),
        );
        let files = [("agents/shell.yaml", &*shell()), ("session.yaml", &session)];
        world.push(&files, "an agent and a session");
        let far = Self { config, code, identities, world };
        far.give("config", &far.config, &opens(&far.config, &far.identities[0]));
        let mut with_passphrase = opens(&far.code, &far.identities[1]);
        with_passphrase["passphrase"] = "open".into();
        far.give("code", &far.code, &with_passphrase);
        far
    }

    fn give(&self, name: &str, server: &Ssh, data: &Value) {
        let text = secret(name, "git", Some(&server.address()), data);
        self.world.write(&format!("secrets/{name}.yaml"), &text);
    }

    /// Waits until the config repository says why it is not followed.
    fn refused(&self, what: &str, text: &str) {
        let up = self.world.up();
        self.world.wait::<ConfigRepository>("agents", what, |repository| {
            let status = repository.and_then(|repository| repository.status.as_ref());
            status.is_some_and(|status| serde_json::to_string(&status.conditions).unwrap().contains(text))
        });
        let ended = up.stop();
        for identity in &self.identities {
            assert!(!ended.text.contains(identity.lines().nth(2).unwrap()), "{}", ended.text);
        }
    }
}

#[test]
fn a_push_over_ssh_becomes_a_signed_result_and_a_code_branch() {
    let far = Far::new();
    let pushed = far.world.push_run("hello", &commits("WORK", "done"));
    goes_the_whole_way(&far.world, &pushed);
    for server in [&far.config, &far.code] {
        assert!(server.log().contains("Accepted publickey"));
    }
}

#[test]
fn a_host_with_another_key_is_refused_by_name() {
    let far = Far::new();
    keygen(far.config.folder(), "old", &["-t", "ed25519"]);
    let old = public(&far.config.folder().join("old.pub"));
    let known_hosts = format!("{} {old}", far.config.listed());
    let data = json!({"identity": far.identities[0], "known_hosts": known_hosts});
    far.give("config", &far.config, &data);
    far.refused("its host is not believed", &format!("the host key of {} has changed", far.config.listed()));
    assert!(!far.config.log().contains("Accepted"), "nobody is logged in there");
}

#[test]
fn an_identity_that_the_server_does_not_know_is_refused_by_name() {
    let far = Far::new();
    let wrong = keygen(far.config.folder(), "wrong", &["-t", "ed25519"]);
    far.give("config", &far.config, &opens(&far.config, &wrong));
    far.refused("it is not let in", &format!("{} refused the identity SHA256:", far.config.listed()));
}

#[test]
fn a_run_whose_code_is_not_open_to_us_says_so() {
    let far = Far::new();
    let wrong = keygen(far.code.folder(), "wrong", &["-t", "ed25519"]);
    far.give("code", &far.code, &opens(&far.code, &wrong));
    far.world.push_run("hello", &commits("WORK", "done"));
    let up = far.world.up();
    let run = far.world.wait_run("hello", "it fails", |status| {
        (status.phase, status.reason) == (Some(Phase::Failed), Some(Reason::CloneUnauthorized))
    });
    let message = run.status.unwrap().message.unwrap();
    assert!(message.contains("refused the identity"), "{message}");
    drop(up);
}
