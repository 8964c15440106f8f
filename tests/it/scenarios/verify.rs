//! `ostler verify results` on a ledger that `ostler up` wrote, and on ones that somebody changed.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::{ledger::BRANCH, manifests::commits, world::World};
use crate::servers::repo::{command, git};

const RESULT: &str = "runs/default/2c/hello/result.yaml";

fn verify(world: &World, repository: &Path) -> Output {
    world.ostler().args(["verify", "results"]).arg(repository).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// A copy of the ledger whose last commit holds another result; `sign`: what `git commit` is told besides.
fn forged(world: &World, name: &str, sign: &[&str]) -> std::path::PathBuf {
    let copy = world.path(name);
    let from = world.ledger.display().to_string();
    git(&world.path(""), &["clone", "--quiet", "--branch", BRANCH, &from, name]);
    let result = copy.join(RESULT);
    let honest = std::fs::read_to_string(&result).unwrap();
    let forged = honest.replace("Succeeded", "Failed");
    assert_ne!(honest, forged);
    std::fs::write(&result, forged).unwrap();
    let committed = command(&copy)
        .args(sign)
        .args(["commit", "--quiet", "--all", "--amend", "--no-edit"])
        .args(if sign.is_empty() { &[][..] } else { &["--gpg-sign"] })
        .output()
        .unwrap();
    assert!(committed.status.success(), "{}", text(&committed));
    copy
}

#[test]
fn verify_accepts_what_up_wrote_and_names_what_was_forged() {
    let world = World::new();
    world.push_run("hello", &commits("WORK", "done"));
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.text);

    let good = verify(&world, &world.ledger);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));

    let unsigned = verify(&world, &forged(&world, "unsigned", &[]));
    assert_eq!(unsigned.status.code(), Some(1), "{}", text(&unsigned));
    assert!(text(&unsigned).contains(RESULT), "{}", text(&unsigned));

    let key = world.path("foreign");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let signing = format!("user.signingKey={}", key.display());
    let foreign =
        verify(&world, &forged(&world, "foreign-signed", &["-c", "gpg.format=ssh", "-c", &signing]));
    assert_eq!(foreign.status.code(), Some(1), "{}", text(&foreign));
    assert!(text(&foreign).contains(RESULT), "{}", text(&foreign));

    let signers = world.signers();
    let stranger = |arguments: &[&str]| {
        let mut command = world.ostler();
        command.env("HOME", world.path("nobody")).args(["verify", "results"]).arg(&world.ledger);
        command.args(arguments).output().unwrap()
    };
    let nobody = stranger(&[]);
    assert_eq!(nobody.status.code(), Some(2), "whose signatures count? {}", text(&nobody));
    assert!(text(&nobody).contains("--signers"), "{}", text(&nobody));
    let told = stranger(&["--signers", signers.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told));
}
