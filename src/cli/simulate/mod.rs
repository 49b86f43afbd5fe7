//! `pilotlight simulate`: what a day of traffic would have cost under each scaling policy.
//!
//! Traces are read or made up, function by function replayed under each policy by a clock that is wound by
//! hand, and counted. The code that decides is the code that runs functions. It opens no socket, starts no
//! thread and never sleeps.

mod generate;
mod moments;
mod policy;
mod report;
#[cfg(test)]
mod tests;
mod trace;
mod world;

use super::values;
use crate::clock;
use generate::Generate;
use moments::{Arrivals, MINUTE, Moments};
use policy::{Kind, Policy};
use proxy_config::model::Scale;
use report::Tally;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use trace::{Files, Function};
use world::{Rules, World};

/// So many trains of calls, or a minute more, are drawn before they are replayed.
const TRAINS: usize = 2048;

/// Arguments of `pilotlight simulate`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "docs/simulate.md tells what is simulated and what is not.")]
pub struct SimulateArgs {
    /// Invocations per function and minute, one file a day: HashOwner,HashApp,HashFunction,Trigger,1..1440
    #[arg(value_name = "TRACE", required_unless_present = "generate", conflicts_with = "generate")]
    pub traces: Vec<PathBuf>,

    /// Make functions up after published distributions: seed=1,functions=1000,days=1
    #[arg(long, value_name = "KEY=N,…")]
    pub generate: Option<Generate>,

    /// Execution times of the functions of TRACE [default: drawn]
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub durations: Vec<PathBuf>,

    /// Memory of the applications of TRACE [default: drawn]
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub memory: Vec<PathBuf>,

    /// Of what TRACE does not say
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// containerConcurrency of every function; 0: no limit, and 100 at a time are aimed at
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub concurrency: u32,

    /// From the order of an instance until it is ready
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub start: Duration,

    /// Instances of one function, at most; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_scale: u32,

    /// The stable window of the autoscalers
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = window)]
    pub window: Duration,

    /// When the calls of a minute come
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,

    /// Print comma-separated values instead of a table
    #[arg(long)]
    pub csv: bool,
}

fn window(text: &str) -> Result<Duration, String> {
    let window = values::duration(text)?;
    let allowed = Duration::from_secs(6)..=Duration::from_secs(3600);
    if allowed.contains(&window) { Ok(window) } else { Err("from 6s to 1h".to_owned()) }
}

/// Simulates and prints.
pub fn run(args: &SimulateArgs) -> ExitCode {
    match simulate(args) {
        Ok(text) => {
            use std::io::Write;
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("pilotlight simulate: {message}");
            ExitCode::from(2)
        }
    }
}

/// The report.
///
/// # Errors
/// What is wrong with a file.
pub fn simulate(args: &SimulateArgs) -> Result<String, String> {
    let tallies = match args.generate {
        Some(generate) => replay(args, generate.days * generate::DAY, generate.functions()),
        None => {
            let files = Files { invocations: &args.traces, durations: &args.durations, memory: &args.memory };
            let trace = trace::read(files, args.seed)?;
            replay(args, trace.minutes, trace.functions.into_iter())
        }
    };
    Ok(if args.csv { report::csv(&tallies) } else { report::table(&tallies) })
}

fn replay(
    args: &SimulateArgs,
    minutes: u32,
    functions: impl Iterator<Item = Function>,
) -> Vec<(&'static str, Tally)> {
    replay_with(args, minutes, functions, true)
}

fn replay_with(
    args: &SimulateArgs,
    minutes: u32,
    functions: impl Iterator<Item = Function>,
    lulls: bool,
) -> Vec<(&'static str, Tally)> {
    let scale = Scale { max: args.max_scale, window: args.window, ..Scale::default() };
    let rules = Rules {
        concurrency: args.concurrency,
        // A year at most by the flag's parser, which fits.
        start: u64::try_from(args.start.as_micros()).unwrap_or(u64::MAX / 4),
        arrivals: args.arrivals,
        minutes,
        origin: clock::now(),
        lulls,
    };
    let mut tallies = Kind::ALL.map(|kind| (kind, Tally::default()));
    let mut trains = Vec::new();
    for function in functions {
        let mut worlds = tallies.each_mut().map(|(kind, tally)| {
            let policy = Policy::new(*kind, &scale, args.concurrency, rules.origin, lulls);
            World::new(rules, policy, &function, tally)
        });
        // All policies meet the same calls, so many at a time that they stay at hand.
        let mut moments = Moments::new(rules.arrivals, function.seed);
        let mut counts = function.counts.iter().peekable();
        while counts.peek().is_some() {
            trains.clear();
            while trains.len() < TRAINS
                && let Some((minute, count)) = counts.next()
            {
                trains.extend_from_slice(moments.of(u64::from(*minute) * MINUTE, u64::from(*count)));
            }
            worlds.iter_mut().for_each(|world| world.pass_by(&trains));
        }
        worlds.into_iter().for_each(|world| world.end_of_trace(&function));
    }
    tallies.into_iter().map(|(kind, tally)| (kind.name(), tally)).collect()
}
