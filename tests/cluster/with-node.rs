//! Runs a command beside a test node of its own, and ends the node with it: `ostler-test-node COMMAND [ARGUMENT]...`.
//!
//! The command finds the node's kubeconfig in `KUBECONFIG`, and the images that are there in `OSTLER_IMAGE` and
//! `OSTLER_TEST_AGENT_IMAGE`. Network policies are enforced, unless `OSTLER_TEST_ENFORCER` is `off`.

#[path = "../it"]
#[allow(clippy::panic, reason = "the fixture is that of the tests, and panics when no server comes up")]
mod it {
    pub(crate) mod cluster;
    pub(crate) mod node;
}

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use self::it::{
    cluster,
    node::{Enforcer, Node},
};

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { bail!("usage: ostler-test-node COMMAND [ARGUMENT]...") };
    let enforcer = match std::env::var("OSTLER_TEST_ENFORCER").as_deref() {
        Err(_) | Ok("on") => Enforcer::Correct,
        Ok("off") => Enforcer::Off,
        Ok(other) => bail!("OSTLER_TEST_ENFORCER is {other:?}: on or off"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (node, ostler, agent) = runtime.block_on(async {
        let node = Node::start_own().await;
        node.enforcer(enforcer).await;
        let (ostler, agent) = (node.ostler_image().await, node.debian_image().await);
        (node, ostler, agent)
    });
    let kubeconfig = node.cluster().kubeconfig();
    eprintln!("KUBECONFIG={} OSTLER_IMAGE={ostler} OSTLER_TEST_AGENT_IMAGE={agent}", kubeconfig.display());
    let ended = Command::new(&program)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("OSTLER_IMAGE", ostler)
        .env("OSTLER_TEST_AGENT_IMAGE", agent)
        .status()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
