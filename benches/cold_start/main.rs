//! What a cold start costs beside what it could cost at least.
//!
//! `cargo bench --bench cold_start` starts `pilotlight run` over functions at zero and a bare loop that does fork,
//! exec and connect of the same program, and prints, side by side, how long after the program's own listen() the
//! request is at the program and answered, what one start costs in CPU, and how long a frozen function takes to
//! answer. The program, a part of this executable, says by the monotonic clock when it listened and when the
//! request was there.
//!
//! `cargo bench --profile release --bench cold_start` measures the binary that is shipped; `-- --quick` is a smoke
//! test of the rig itself.

mod bare;
mod function;
mod measure;
mod pilotlight;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The bench's command line.
#[derive(Parser, Debug, Clone)]
#[command(name = "cold_start")]
struct Args {
    /// A part of the rig, in a process of its own
    #[command(subcommand)]
    part: Option<Part>,

    /// A short run that proves the rig; its numbers mean little
    #[arg(long)]
    quick: bool,

    /// Cold starts of each kind
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    starts: u32,

    /// Functions that take turns; one that was used starts again once it has been stopped
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    functions: u32,

    /// Milliseconds after which the program listens (repeatable)
    #[arg(long, value_name = "MILLISECONDS", default_values_t = [0, 50, 500])]
    after: Vec<u64>,

    /// Leave the frozen functions out
    #[arg(long)]
    without_freeze: bool,

    /// Measure this pilotlight instead of the one cargo built
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pilotlight"))]
    pilotlight: String,

    /// Exit with 1 when a bar is missed
    #[arg(long)]
    enforce: bool,

    /// What cargo passes; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the rig runs in processes of its own.
#[derive(Subcommand, Debug, Clone, Copy)]
enum Part {
    /// Starts the program again and again and connects to it
    Bare { after: u64, count: u32 },
}

fn main() -> ExitCode {
    // Before anything else: what the program costs itself is in every number.
    if let Some(after) = function::asked() {
        return function::serve(after);
    }
    let mut args = Args::parse();
    if let Some(Part::Bare { after, count }) = args.part {
        return bare::run(Duration::from_millis(after), count);
    }
    if args.quick {
        (args.starts, args.functions) = (args.starts.min(6), args.functions.min(3));
    }
    match measured(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) if !args.enforce => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cold_start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything and prints it; true when no bar was missed.
fn measured(args: &Args) -> std::io::Result<bool> {
    let mut rows = Vec::new();
    for after in &args.after {
        eprintln!("cold_start: {} starts of a program that listens after {after} ms", args.starts);
        // In halves, so that both see the same machine.
        let mut bare = bare::measure(*after, args.starts / 2)?;
        let own = pilotlight::cold(args, *after)?;
        bare.add(bare::measure(*after, args.starts - args.starts / 2)?);
        rows.push(report::Row { after: *after, bare, own });
    }
    let frozen = if args.without_freeze { None } else { Some(pilotlight::frozen(args)?) };
    Ok(report::print(args, &rows, frozen.as_ref()))
}
