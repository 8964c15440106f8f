//! `ostler verify results` accepts what we wrote and names what others did.

use clap::Parser;
use ostler::{
    cli::verify::{self, Verify},
    git::sign::SigningKey,
    ledger::File,
    report::Receipt,
};

use super::stage::{Stage, path};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    verify: Verify,
}

/// The exit code, and what was printed.
pub(super) fn verify(stage: &Stage) -> (u8, String) {
    let (repo, signers) = (stage.repo.bare(), stage.signers());
    let line = Line::parse_from([
        "verify",
        "results",
        repo.to_str().unwrap(),
        "--signers",
        signers.to_str().unwrap(),
    ]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = verify::run(&line.verify, &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap() + &String::from_utf8(err).unwrap())
}

async fn recorded() -> Stage {
    let stage = Stage::new().await;
    let running = stage.start();
    let run = stage.claiming("fix").await;
    assert_eq!(running.handle.deliver(stage.output(&run)).await, Receipt::Recorded);
    running.stop().await;
    stage
}

fn edit(stage: &Stage) {
    let file = stage.checkout().join(path("fix", File::Result));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, text.replace("Succeeded", "Failed")).unwrap();
}

#[tokio::test]
async fn what_we_wrote_is_accepted() {
    let stage = recorded().await;
    let (code, text) = verify(&stage);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("ok: 1 runs"), "{text}");
}

#[tokio::test]
async fn an_unsigned_amend_is_named() {
    let stage = recorded().await;
    edit(&stage);
    stage.repo.git(&["commit", "--quiet", "-a", "--amend", "--no-edit"]);
    stage.push();
    let (code, text) = verify(&stage);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("{}: unsigned", path("fix", File::Result))), "{text}");
}

#[tokio::test]
async fn a_foreign_signature_is_named() {
    let stage = recorded().await;
    edit(&stage);
    let key = stage.folder.path().join("foreign");
    SigningKey::generate("foreign").unwrap().store(&key).unwrap();
    let key = format!("user.signingKey={}", key.display());
    stage.repo.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-a", "-S", "-m", "better"]);
    stage.push();
    let (code, text) = verify(&stage);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("{}: unknown signer", path("fix", File::Result))), "{text}");
}

#[tokio::test]
async fn changed_bulk_is_named() {
    let stage = recorded().await;
    stage.repo.git(&["checkout", "--quiet", "--orphan", "bulk"]);
    stage.repo.git(&["rm", "-r", "--quiet", "--force", "."]);
    stage.repo.commit(&[("output.log", "something else\n")], "bulk");
    stage.repo.git(&["push", "--quiet", "--force", "origin", "bulk:refs/ostler/runs/team/fix"]);
    let (code, text) = verify(&stage);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("refs/ostler/runs/team/fix:output.log: bulk digest mismatch"), "{text}");
}

#[tokio::test]
async fn our_own_key_without_trailers_or_index_is_named() {
    let stage = recorded().await;
    edit(&stage);
    let key = stage.folder.path().join("ours");
    stage.key.store(&key).unwrap();
    let key = format!("user.signingKey={}", key.display());
    stage.repo.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-a", "-S", "-m", "by hand"]);
    stage.push();
    let (code, text) = verify(&stage);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("has no trailers for it"), "{text}");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_an_error() {
    let stage = Stage::new().await;
    let (code, text) = verify(&stage);
    assert_eq!(code, 2, "{text}");
    assert!(text.starts_with("error: "), "{text}");
}
