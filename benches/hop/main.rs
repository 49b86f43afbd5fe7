//! What one hop through the proxy costs, beside what it could cost at least.
//!
//! `cargo bench --bench hop` starts an upstream and, one worker each, a raw epoll relay of TCP bytes, a minimal
//! hyper proxy without features, and `pilotlight run`; gives each in turn the same HTTP/1.1 load from 64 keep-alive
//! connections; and prints what each took, side by side, with the bars the project holds itself to. Nothing has to be
//! installed; with valgrind it also counts user instructions, which noise cannot move.
//!
//! `cargo bench --profile release --bench hop` measures the binary that is shipped. `-- --quick` is a smoke test of
//! the rig itself: its numbers mean little. Proxies are pinned to one core, and upstream and load to the others.

mod handshakes;
mod instructions;
mod load;
mod minimal;
mod policy;
mod process;
mod relay;
mod report;
mod rounds;
mod tls;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The same allocator and tuning as pilotlight's, so that the floor stands on the same ground.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As in `src/main.rs`.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 115] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never,\
tcache_nslots_small_min:128,tcache_gc_incr_bytes:16777216\0";

/// The bench's command line.
#[derive(Parser, Debug, Clone)]
#[command(name = "hop")]
struct Args {
    /// A part of the rig, in a process of its own
    #[command(subcommand)]
    part: Option<Part>,

    /// A short run that proves the rig; its numbers mean little
    #[arg(long)]
    quick: bool,

    /// Rounds; each gives every proxy one load, and ratios are medians over rounds
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Requests of one load
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,

    /// Leave a proxy out (repeatable)
    #[arg(long, value_name = "PROXY")]
    without: Vec<Proxy>,

    /// Measure this pilotlight instead of the one cargo built
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pilotlight"))]
    pilotlight: String,

    /// Put mutual TLS on both sides of pilotlight; the others stay in plaintext
    #[arg(long)]
    mtls: bool,

    /// Give every request a token, and pilotlight a policy of ten rules that asks for it
    #[arg(long, requires = "mtls")]
    policy: bool,

    /// Measure full handshakes of mutual TLS instead, beside a bare acceptor
    #[arg(long, conflicts_with_all = ["mtls", "policy"])]
    handshakes: bool,

    /// Exit with 1 when a bar is missed
    #[arg(long)]
    enforce: bool,

    /// What cargo passes; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the rig runs in processes of its own.
#[derive(Subcommand, Debug, Clone)]
enum Part {
    /// Answers every request with the same small body
    Upstream,
    /// Moves bytes between TCP connections
    Relay { to: SocketAddr },
    /// Forwards HTTP/1.1 and does nothing else
    Minimal { to: SocketAddr },
    /// Encrypts what it carries
    Wrap { to: SocketAddr, certificates: PathBuf },
    /// Opens what it carries
    Unwrap { to: SocketAddr, certificates: PathBuf },
    /// Does handshakes and nothing else
    Accept { certificates: PathBuf },
}

/// What is compared.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Relay,
    Minimal,
    Pilotlight,
}

impl Proxy {
    const ALL: [Proxy; 3] = [Proxy::Relay, Proxy::Minimal, Proxy::Pilotlight];

    fn name(self) -> &'static str {
        match self {
            Proxy::Relay => "relay",
            Proxy::Minimal => "minimal",
            Proxy::Pilotlight => "pilotlight",
        }
    }
}

/// How much of everything is done.
#[derive(Debug, Clone, Copy)]
struct Scale {
    rounds: u32,
    /// Of one load, after `warmup` that are not counted.
    requests: u32,
    warmup: u32,
    /// Of one round.
    handshakes: u32,
    /// The two loads whose difference is what the instructions of one request are taken from.
    instructions: (u32, u32),
    /// The two numbers of idle connections whose difference is what the memory of one is taken from.
    idle: (usize, usize),
    /// How long a proxy settles before its memory is read.
    settle: Duration,
}

impl Scale {
    fn of(args: &Args) -> Scale {
        let full = Scale {
            rounds: 9,
            requests: 30_000,
            warmup: 2_000,
            handshakes: 1_000,
            instructions: (3_000, 13_000),
            idle: (1_000, 2_000),
            settle: Duration::from_millis(1500),
        };
        let quick = Scale {
            rounds: 2,
            requests: 3_000,
            warmup: 300,
            handshakes: 100,
            instructions: (500, 1_500),
            idle: (100, 200),
            settle: Duration::from_millis(100),
        };
        let scale = if args.quick { quick } else { full };
        Scale {
            rounds: args.rounds.unwrap_or(scale.rounds),
            requests: args.requests.unwrap_or(scale.requests),
            ..scale
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.part {
        Some(Part::Upstream) => upstream::serve(),
        Some(Part::Relay { to }) => relay::serve(*to),
        Some(Part::Minimal { to }) => minimal::serve(*to),
        Some(Part::Wrap { to, certificates }) => tls::wrap(*to, certificates),
        Some(Part::Unwrap { to, certificates }) => tls::unwrap(*to, certificates),
        Some(Part::Accept { certificates }) => tls::accept(certificates),
        None => return compare(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hop: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything and prints the table; a proxy that does not run is left out of it and is a failure.
fn compare(args: &Args) -> ExitCode {
    let scale = Scale::of(args);
    process::raise_descriptor_limit();
    if args.handshakes {
        return match handshakes::compare(args, &scale) {
            Ok(met) if met || !args.enforce => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("hop: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if args.policy
        && let Err(error) = policy::issue()
    {
        eprintln!("hop: {error}");
        return ExitCode::FAILURE;
    }
    let measured = match rounds::measure(args, &scale) {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("hop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let passed = report::print(args, &measured, &scale);
    if measured.complete && (passed || !args.enforce) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
