//! An agent in a terminal: its master comes out of the container by descriptor, and what happens is recorded.

use std::process::Command;

use ostler::{
    harness::{
        control::{self, Given, Request, Value},
        place::{Folder, Ground, Machine, PlaceFile},
    },
    ports::workloads::Stage,
    report::End,
    shim::wire::Size,
};

use super::world::{PATIENCE, World, shell};

#[tokio::test]
async fn a_terminal_is_handed_out_and_recorded() {
    let world = World::new();
    // What a port does, by hand: no port asks for a terminal yet.
    let spec = shell(
        "tty; stty size; test -t 1 && ps -o tpgid= -p $$ >/dev/null && printf '\\033[31mred\\033[m\\n'; exit 7",
    );
    let folder = Folder::new(world.place(&spec.run.uid));
    let file = PlaceFile {
        uid: spec.run.uid.clone(),
        created_at: jiff::Timestamp::now(),
        spec: spec.clone(),
        terminal: Some(Size { rows: 33, columns: 101 }),
        ground: Ground::Machine(Machine {
            workspace: None,
            recorder: world.options.recorder.clone(),
            egress_hosts: None,
        }),
        allow_unenforced: false,
        patience_ms: u64::try_from(PATIENCE.as_millis()).unwrap(),
    };
    assert!(folder.create(&file).unwrap());
    assert!(!folder.create(&file).unwrap(), "once");
    let started = Command::new(&world.options.program)
        .args(["harness", "--detach", "--place"])
        .arg(folder.root())
        .status()
        .unwrap();
    assert!(started.success());
    let given = || Given {
        token: Some(Value::from(&secrecy::SecretString::from("token"))),
        git: vec![],
        env: vec![],
        files: vec![],
    };
    while control::ask(&folder.control(), &Request::Provide(Box::new(given()))).await.is_err() {
        // The sidecar is not up yet.
        tokio::task::yield_now().await;
    }
    let delivery = world.delivered(1).await.remove(0);
    assert_eq!(delivery.report.end, End::Exited { code: 7 });
    let output = delivery.output();
    assert!(output.starts_with("/dev/pts/0\r\n33 101\r\n"), "{output:?}");
    assert!(output.contains("\u{1b}[31mred"), "{output:?}");
    let recording = String::from_utf8(delivery.files["recording.cast"].clone()).unwrap();
    let mut lines = recording.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(
        (header["version"].clone(), header["width"].clone(), header["height"].clone()),
        (2.into(), 101.into(), 33.into())
    );
    let played: String = lines
        .inspect(|event| assert_eq!(event[1], "o"))
        .map(|event| event[2].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(played, output);
    world.reaches(&spec.run.uid, Stage::Released).await;
}
