//! argv → command → exit code.

use clap::Parser;
use pilotlight::cli::{Cli, Command};
use pilotlight::control::process::raise_open_files;
use std::process::ExitCode;

/// Measured against mimalloc: less than half the memory of an idle connection.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc before `main`; `_RJEM_MALLOC_CONF` in the environment still wins.
///
/// Few arenas: memory freed by one worker should serve another, and the thread caches keep contention
/// low. Freed pages go back to the system after a second, at once from the second stage: a sidecar is
/// judged by what it holds when idle. No huge pages: they round the resident size up by megabytes.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 57] = b"narenas:8,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never\0";

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => pilotlight::app::run(*args),
        Command::Check(args) => pilotlight::cli::check::run(&args),
        Command::Echo(args) => {
            // Fewer connections are no reason not to start.
            let _ = raise_open_files();
            pilotlight::cli::echo::run(args)
        }
        Command::Watchdog => pilotlight::driver::watchdog::run(),
    }
}
