//! `make bench`: the real `ostler up` on real repositories, set against what `git` and `bwrap` take by hand.
//!
//! Writes `target/bench.json` and `docs/benchmarks.md`. It judges nothing: the figures are for people.

mod by_hand;
mod figures;
mod ledger;
mod manifests;
mod objects;
mod report;
mod stage;
mod starts;
mod up;
mod write_back;

use std::{path::Path, time::Instant};

use anyhow::Result;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let machine = report::Machine::look()?;
    let began = Instant::now();
    let mut figures = Vec::new();
    for (name, measure) in MEASURES {
        eprintln!("bench: {name}");
        figures.extend(measure()?);
    }
    // Cargo's folder for files of benches lies in the target folder.
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench.json");
    let page = root.join("docs/benchmarks.md");
    let text = report::write(&json, &page, &machine, &figures, began.elapsed())?;
    println!("{text}");
    println!("written: {} and {}", json.display(), page.display());
    Ok(())
}

type Measure = fn() -> Result<Vec<figures::Figure>>;

const MEASURES: [(&str, Measure); 3] =
    [("starts", starts::measure), ("objects", objects::measure), ("write-back", write_back::measure)];
