//! `make bench-cluster`: ostler with its objects on a real API server of the bench's own, with played nodes, and on a real one.
//!
//! Writes `target/bench-cluster.json` and a section of `docs/benchmarks.md`. It judges nothing: the figures are for people.

#[path = "../ostler/figures.rs"]
#[allow(dead_code, reason = "shared with the other bench")]
mod figures;
mod kwok;
#[path = "../ostler/manifests.rs"]
#[allow(dead_code, reason = "shared with the other bench")]
mod manifests;
mod node;
mod objects;
#[path = "../ostler/report.rs"]
#[allow(dead_code, reason = "shared with the other bench")]
mod report;
mod requests;
mod section;
#[path = "../ostler/stage.rs"]
#[allow(dead_code, reason = "shared with the other bench")]
mod stage;
#[path = "../ostler/up.rs"]
#[allow(dead_code, reason = "shared with the other bench")]
mod up;
#[path = "../../tests/it"]
#[allow(clippy::panic, reason = "the fixture is that of the tests, and panics when no server comes up")]
mod it {
    pub(crate) mod cluster;
}

use std::{path::Path, time::Instant};

use anyhow::Result;

use self::it::cluster;

fn main() -> Result<()> {
    let machine = report::Machine::look()?;
    let began = Instant::now();
    // cargo says what this is; who says `runs` wants a quick look at that part
    let only_runs = std::env::args().any(|argument| argument == "runs");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if only_runs {
        for figure in kwok::measure(&runtime)? {
            println!("{}: {}", figure.what, figure.value);
        }
        return Ok(());
    }
    let (server, objects) = {
        let cluster = runtime.block_on(async {
            let cluster = cluster::Cluster::start_own().await;
            cluster.install_crds().await;
            cluster
        });
        let version = runtime.block_on(cluster.server_version()).git_version;
        (version, objects::measure(&cluster, &runtime)?)
    };
    let runs = kwok::measure(&runtime)?;
    let node = node::measure()?;
    let measured = section::Measured { server, objects, runs, node, took: began.elapsed() };
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-cluster.json");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let text = section::write(&json, &page, &machine, &measured)?;
    println!("{text}");
    println!("written: {} and {}", json.display(), page.display());
    Ok(())
}
