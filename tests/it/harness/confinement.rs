//! What an agent can reach and see.

use std::{fs, net::TcpListener, os::unix::fs::MetadataExt};

use ostler::{
    kinds::egress_policy::{EgressPolicySpec, Rule},
    ports::workloads::NamedPolicy,
    ports::{
        Workloads,
        workloads::{SecretKey, Stage},
    },
    report::End,
};

use super::world::{World, appears, shell};

/// Says whether a TCP connection can be made, with bash alone.
const DIAL: &str = r#"dial() { if timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null; then echo "open $1"; else echo "closed $1"; fi; }; "#;

#[tokio::test]
async fn there_is_no_way_out_but_the_proxy() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The positive control: from here the same address answers.
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let script = format!(
        "{DIAL} tail -n +3 /proc/net/dev | cut -d: -f1; dial 127.0.0.1 {port}; dial 169.254.169.254 80; \
         dial 192.0.2.1 443; dial 127.0.0.1 3128"
    );
    let output = world.run(&shell(&script)).await.output();
    let expected = "    lo\nclosed 127.0.0.1\nclosed 169.254.169.254\nclosed 192.0.2.1\nopen 127.0.0.1\n";
    assert_eq!(output, expected);
}

/// A server that says hello to whoever comes, in HTTP.
async fn hello() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().fallback(|| async { "hello from outside\n" });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    port
}

fn allow(host: &str, port: u16) -> NamedPolicy {
    let rule =
        Rule { name: "test".into(), hosts: vec![host.into()], ports: vec![port.into()], ..Rule::default() };
    let spec =
        EgressPolicySpec { rules: vec![rule], allow_private: Some(true), ..EgressPolicySpec::default() };
    NamedPolicy { name: "test".into(), spec }
}

/// Asks for a tunnel by hand, so that nothing is needed but bash.
fn tunnel(host: &str, port: u16) -> String {
    format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT {host}:{port} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n' >&3; \
         read -r status <&3; echo \"$status\"; exec 3>&-; "
    )
}

fn absolute(host: &str, port: u16) -> String {
    format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://{host}:{port}/ HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
         cat <&3; exec 3>&-; "
    )
}

fn bash(script: &str) -> ostler::ports::workloads::PlaceSpec {
    super::world::command(&["bash", "-c", script])
}

#[tokio::test]
async fn what_a_policy_names_passes_and_the_rest_is_counted() {
    let port = hello().await;
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(hosts.path(), "127.0.0.1 allowed.test refused.test\n").unwrap();
    let world = World::with(|options| options.egress_hosts = Some(hosts.path().to_owned()));
    let script = [
        tunnel("allowed.test", port),
        absolute("allowed.test", port),
        tunnel("refused.test", port),
        "env | grep -i _proxy | sort".to_owned(),
    ];
    let mut spec = bash(&script.concat());
    spec.egress = vec![allow("allowed.test", port)];
    let delivery = world.run(&spec).await;
    let output = delivery.output();
    let statuses: Vec<_> =
        output.lines().filter(|line| line.starts_with("HTTP/1.1")).map(|line| &line[9..12]).collect();
    assert_eq!(statuses, ["200", "200", "403"], "{output}");
    assert!(output.contains("hello from outside"), "{output}");
    assert!(output.contains("HTTPS_PROXY=http://127.0.0.1:3128"), "{output}");
    assert_eq!((delivery.report.egress.allowed, delivery.report.egress.denied), (2, 1));
    assert_eq!(delivery.report.egress.denials[0].host, "refused.test");
}

#[tokio::test]
async fn a_policy_can_change_under_a_running_agent() {
    let port = hello().await;
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(hosts.path(), "127.0.0.1 allowed.test\n").unwrap();
    let world = World::with(|options| options.egress_hosts = Some(hosts.path().to_owned()));
    let one = tunnel("allowed.test", port);
    let spec = bash(&format!("{one} touch asked; while [ ! -e go ]; do sleep 0.05; done; {one}"));
    world.workloads.ensure(&spec).await.unwrap();
    let workspace = world.place(&spec.run.uid).join("workspace");
    appears(&workspace.join("asked")).await;
    world.workloads.update_egress(&spec.run.uid, &[allow("allowed.test", port)]).await.unwrap();
    fs::write(workspace.join("go"), "").unwrap();
    let output = world.delivered(1).await.remove(0).output();
    let statuses: Vec<_> = output.lines().map(|line| &line[9..12]).collect();
    assert_eq!(statuses, ["403", "200"]);
}

#[tokio::test]
async fn no_credential_of_ours_is_in_the_agents_reach() {
    let world = World::new();
    world.secrets.put("own", "key", "canary-of-the-agent");
    world.secrets.put("clone", "password", "canary-of-the-clone");
    let repository = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let done =
            std::process::Command::new("git").arg("-C").arg(repository.path()).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"]);
    // Everything that an agent can read: environments, command lines, open files, memory maps, its files.
    let script = "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -ao 'canary-of-the-[a-z][a-z]*\\|token-of-[0-9a-f][0-9a-f-]*' | sort -u; \
        ls -l /proc/1/fd >/dev/null 2>&1 && echo 'PID 1 shows its files'; head -c 1 /proc/1/mem >/dev/null 2>&1 && echo 'PID 1 shows its memory'; \
        cat /proc/1/environ >/dev/null 2>&1 && echo 'PID 1 shows its environment'; \
        grep -rlas 'canary-of-the\\|token-of-' / --exclude-dir=proc --exclude-dir=usr --exclude-dir=dev 2>/dev/null; echo searched";
    let mut spec = shell(script);
    spec.secret_env = vec![("OWN".into(), SecretKey { secret: "own".parse().unwrap(), key: "key".into() })];
    spec.secret_files =
        vec![("keys/own".into(), SecretKey { secret: "own".parse().unwrap(), key: "key".into() })];
    spec.checkout = Some(ostler::ports::workloads::Checkout {
        url: repository.path().to_str().unwrap().to_owned(),
        reference: None,
        depth: 1,
        secret: Some("clone".parse().unwrap()),
        branch: "work".to_owned(),
    });
    let delivery = world.run(&spec).await;
    assert_eq!(delivery.report.end, End::Exited { code: 0 }, "{delivery:?}");
    // The positive control: what the agent was given on purpose is found, in the environment and as a file.
    assert_eq!(delivery.output(), "canary-of-the-agent\n/home/agent/keys/own\nsearched\n");
    // And on the host, in the place's folder, only the agent's own file holds anything.
    let place = world.place(&spec.run.uid);
    let held = std::process::Command::new("grep")
        .args(["-rl", "canary-of-the\\|token-of-"])
        .arg(&place)
        .output()
        .unwrap();
    let held = String::from_utf8(held.stdout).unwrap();
    let names: Vec<_> =
        held.lines().map(|line| line.strip_prefix(place.to_str().unwrap()).unwrap()).collect();
    assert!(
        names.iter().all(|name| [
            "/home/keys/own",
            "/place.json",
            "/outbox/output.log",
            "/outbox/result.tar"
        ]
        .contains(name)),
        "{names:?}"
    );
    assert!(!fs::read_to_string(place.join("place.json")).unwrap().contains("canary-of-the-clone"));
    assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn only_the_workspace_home_and_tmp_can_be_written() {
    let world = World::new();
    let script = "for f in /a /etc/a /usr/a /run/ostler/a /run/ostler/ostler /workspace/a /home/agent/a /tmp/a /dev/a /proc/a; do \
        if (: >>$f) 2>/dev/null; then echo $f; fi; done; ls /run/ostler; ls / | tr '\\n' ' '";
    let output = world.run(&shell(script)).await.output();
    let lines: Vec<_> = output.lines().collect();
    assert!(lines.starts_with(&["/workspace/a", "/home/agent/a", "/tmp/a"]), "{output}");
    // The shim's socket is gone: nobody can pose as the shim.
    assert!(!output.contains("shim.sock"), "{output}");
    assert!(!lines.last().unwrap().contains("root"), "{output}");
}

#[tokio::test]
async fn a_bind_does_not_show_the_state_or_the_whole_machine() {
    let world = World::new();
    let state = world.state.to_str().unwrap().to_owned();
    for bind in ["/", "/proc", "relative", "/no/such/folder", &state, world.folder.path().to_str().unwrap()] {
        let mut spec = shell("true");
        spec.binds = vec![bind.to_owned()];
        assert!(world.workloads.ensure(&spec).await.is_err(), "{bind}");
        assert!(world.workloads.observe(&spec.run.uid).await.unwrap().is_none());
    }
    let shown = tempfile::tempdir().unwrap();
    fs::write(shown.path().join("tool"), "a tool").unwrap();
    // Standard error has a pipe of its own: what comes through the two is in no order.
    let script =
        format!("cat {0}/tool; touch {0}/x 2>/dev/null || echo ' read-only'", shown.path().display());
    let mut spec = shell(&script);
    spec.binds = vec![shown.path().to_str().unwrap().to_owned()];
    let delivery = world.run(&spec).await;
    assert_eq!(delivery.output(), "a tool read-only\n");
    world.reaches(&spec.run.uid, Stage::Released).await;
}
