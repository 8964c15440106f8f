//! What an agent sees of the world, and what it does not.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap};
use ostler::kinds::Phase;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    manifests::{GATE, agent, manifest, run_with, secret},
    way::{PASSWORDS, on_the_web},
    world::{World, eventually, files_below},
};

/// A web server that says hello and remembers for whom.
struct Hello {
    port: u16,
    hosts: Arc<Mutex<Vec<String>>>,
}

impl Hello {
    fn start(world: &World) -> Self {
        async fn hello(State(hosts): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap) -> &'static str {
            hosts.lock().unwrap().push(headers["host"].to_str().unwrap().to_owned());
            "hello from outside\n"
        }
        let hosts = Arc::new(Mutex::default());
        let router = Router::new().fallback(hello).with_state(Arc::clone(&hosts));
        let listener = world.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        world.runtime.spawn(async move { axum::serve(listener, router).await });
        Self { port, hosts }
    }
}

/// Asks the proxy, and dials past it; one line for each answer in the file `REACHED`.
fn probes(port: u16) -> String {
    let script = r#"
proxy() { # name, first line, host
  exec 3<>/dev/tcp/127.0.0.1/3128
  printf '%s\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$3" >&3
  read -r _ code _ <&3
  if [ "$1" = tunnel ]; then
    while read -r line <&3 && [ "$line" != $'\r' ]; do :; done
    printf 'GET /inside HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$3" >&3
  fi
  echo "$1 $3 $code $(grep -c 'hello from outside' <&3)" >>REACHED
  exec 3<&-
}
dial() { if timeout 60 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null; then echo "dial $1 open"; else echo "dial $1 shut"; fi >>REACHED; }
ls /sys/class/net 2>/dev/null | sed 's/^/sys /' >>REACHED
sed -n 's/^ *\([a-z0-9]*\):.*/interface \1/p' /proc/net/dev >>REACHED
proxy tunnel "CONNECT allowed.test:PORT HTTP/1.1" allowed.test:PORT
proxy absolute "GET http://allowed.test:PORT/ HTTP/1.1" allowed.test:PORT
proxy tunnel-denied "CONNECT denied.test:PORT HTTP/1.1" denied.test:PORT
proxy absolute-denied "GET http://denied.test:PORT/ HTTP/1.1" denied.test:PORT
proxy metadata "CONNECT 169.254.169.254:80 HTTP/1.1" 169.254.169.254:80
proxy metadata "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1" 169.254.169.254
proxy outside "CONNECT 192.0.2.1:443 HTTP/1.1" 192.0.2.1:443
proxy loopback "CONNECT 127.0.0.1:PORT HTTP/1.1" 127.0.0.1:PORT
dial 192.0.2.1 443
dial 169.254.169.254 80
dial 127.0.0.1 PORT
dial HOST PORT
"#;
    script.replace("HOST", "198.51.100.7").replace("PORT", &port.to_string())
}

#[test]
fn an_agent_reaches_what_a_policy_names_and_nothing_else() {
    let world = World::new();
    let hello = Hello::start(&world);
    let policy = json!({
        "rules": [{"name": "hello", "hosts": ["allowed.test"], "ports": [hello.port]}], "allowPrivate": true,
    });
    let spec = json!({"egressPolicyRefs": [{"name": "hello"}]});
    let script = format!("cat >probes.sh <<'END'\n{}END\nbash -eu probes.sh\n", probes(hello.port));
    world.push(
        &[
            ("policy.yaml", &manifest("EgressPolicy", "hello", &policy)),
            ("runs/probe.yaml", &run_with("probe", &script, &spec)),
        ],
        "a run that looks around",
    );
    let hosts = world.write("hosts", "127.0.0.1 allowed.test denied.test\n");
    let ended = world.up_until_idle(&["--egress-hosts", hosts.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);

    let port = hello.port;
    let expected = format!(
        "interface lo\n\
         tunnel allowed.test:{port} 200 1\n\
         absolute allowed.test:{port} 200 1\n\
         tunnel-denied denied.test:{port} 403 0\n\
         absolute-denied denied.test:{port} 403 0\n\
         metadata 169.254.169.254:80 403 0\n\
         metadata 169.254.169.254 403 0\n\
         outside 192.0.2.1:443 403 0\n\
         loopback 127.0.0.1:{port} 403 0\n\
         dial 192.0.2.1 shut\n\
         dial 169.254.169.254 shut\n\
         dial 127.0.0.1 shut\n\
         dial 198.51.100.7 shut"
    );
    assert_eq!(world.code_file("probe", "REACHED"), expected);
    assert_eq!(
        *hello.hosts.lock().unwrap(),
        [format!("allowed.test:{port}"), format!("allowed.test:{port}")]
    );

    let status = serde_json::to_value(world.stored_status("probe")).unwrap();
    let result = world.ledger().result("probe").unwrap();
    for (whose, egress) in [("status", &status["egress"]), ("result", &result["egress"])] {
        assert_eq!((&egress["allowed"], &egress["denied"]), (&json!(2), &json!(6)), "{whose}: {egress}");
        let denials = egress["denials"].as_array().unwrap();
        // One for each method: the two ways through a proxy.
        let of = |host: &'static str| denials.iter().filter(move |denial| denial["host"] == host);
        for host in ["denied.test", "169.254.169.254"] {
            let count: i64 = of(host).map(|denial| denial["count"].as_i64().unwrap()).sum();
            assert_eq!(count, 2, "{whose}, {host}: {egress}");
            assert!(
                of(host).all(|denial| !denial["reason"].as_str().unwrap().is_empty()),
                "{whose}: {egress}"
            );
        }
        assert!(of("denied.test").all(|denial| denial["port"] == port), "{whose}: {egress}");
    }
    assert!(result["egressProof"].as_str().is_some_and(|proof| !proof.is_empty()));
    let proven =
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "EgressProven").unwrap();
    assert_eq!(proven["status"], "True");
}

/// Copies all that the agent can read, but for programs and devices, into one file that only the test reads.
const DUMP: &str = r#"
dump=/tmp/.dump
{
  env
  for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/maps /proc/[0-9]*/mountinfo; do cat "$file" || true; done
  find / -xdev -path /proc -prune -o -path /sys -prune -o -path /usr -prune -o -path /dev -prune -o -path "$dump" -prune -o -type f -size -8M -print | while read -r file; do echo "$file"; cat "$file" || true; done
  find /run /home /tmp /etc "$PWD" -path "$dump" -prune -o -type f -size -8M -print | while read -r file; do echo "$file"; cat "$file" || true; done
} >"$dump" 2>/dev/null || true
"#;

/// True when there is something like a token of ours: `ost_` and 32 bytes in base64.
fn holds_token(bytes: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    bytes.windows(47).any(|window| window.starts_with(b"ost_") && window.iter().all(is_base64))
}

#[test]
fn a_token_would_be_found() {
    let token = format!("TOKEN=ost_{}\n", "a".repeat(43));
    assert!(
        holds_token(token.as_bytes())
            && !holds_token(b"post_update=and then some more words than a token has")
    );
}

/// True when a file holds the text.
fn holds(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap_or_default();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn an_agent_finds_none_of_our_credentials() {
    let web = on_the_web();
    let world = &web.world;
    // What the agent is meant to get is found, or the search would prove nothing.
    let given = "Canary7KxGiven";
    world.write("secrets/given.yaml", &secret("given", "env", None, &json!({"key": given})));
    world.write("secrets/other.yaml", &secret("other", "env", None, &json!({"key": "Canary7KxOther"})));
    let reference =
        json!({"env": [{"name": "GIVEN", "valueFrom": {"secretKeyRef": {"name": "given", "key": "key"}}}]});
    let script = format!("{DUMP}\n{GATE}git config --list >CONFIG\ngit remote --verbose >>CONFIG\n");
    world.push(
        &[
            ("agents/nosy.yaml", &agent("nosy", &reference)),
            ("runs/nosy.yaml", &run_with("nosy", &script, &json!({"agentRef": {"name": "nosy"}}))),
        ],
        "a run that looks for secrets",
    );
    let up = world.up();
    let run = world.wait_run("nosy", "its agent works", |status| status.phase == Some(Phase::Running));
    world.at_gate(&run);
    let dump = fs::read(world.place(&run).join("tmp/.dump")).unwrap();
    let found = |text: &str| dump.windows(text.len()).any(|window| window == text.as_bytes());

    let key = fs::read_to_string(world.path("home/.config/ostler/signing_key")).unwrap();
    let key_line = key.lines().nth(3).unwrap().to_owned();
    assert!(found(given) && found("GIVEN="), "the control is found");
    let password = format!("ostler:{}", PASSWORDS[1]);
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, password);
    let canaries = [PASSWORDS[0], PASSWORDS[1], "Canary7KxOther", &key_line, &basic];
    for canary in canaries {
        assert!(!found(canary), "the agent can read {canary}");
    }
    assert!(!holds_token(&dump), "the agent can read a token");

    // Nor is one in any argument of a process of ours.
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        assert!(!arguments.contains("Canary7Kx"), "{arguments}");
    }
    world.open_gate(&run);
    world.wait_run("nosy", "it succeeds", |status| {
        status.phase == Some(Phase::Succeeded) && status.result.is_some()
    });
    eventually("its place goes, with all that the agent left in it", || !world.place(&run).exists());
    let ended = up.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.text);

    // Nor in what was said, written down or pushed.
    for canary in canaries.iter().copied().chain([given]) {
        assert!(!ended.text.contains(canary), "up said {canary}");
        for file in files_below(&world.state()) {
            assert!(!holds(&file, canary), "{canary} is in {}", file.display());
        }
    }
    for repository in [&world.config, &world.code] {
        let all = ["cat-file", "--batch-all-objects", "--batch", "--unordered"];
        let output = crate::servers::repo::command(&repository.bare()).args(all).output().unwrap();
        assert!(output.status.success());
        for canary in canaries {
            let there = output.stdout.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!there, "{canary} is in a repository");
        }
    }
}
