//! Tiny traces with answers that can be reckoned by hand, and whole ones that must come out the same.

use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;

fn args(line: &str) -> SimulateArgs {
    let words = ["pilotlight", "simulate"].into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).expect("a command line").command {
        Command::Simulate(args) => *args,
        other => panic!("{other:?}"),
    }
}

/// Calls of one function of `duration` seconds -> the tallies of fixed, Knative and ours.
fn replayed(line: &str, counts: &[(u32, u32)], duration: f64) -> Vec<(&'static str, Tally)> {
    let function = Function { counts: counts.to_vec(), duration, memory: 1024.0, seed: 1 };
    replay(&args(&format!("--generate days=1 --arrivals even {line}")), 120, std::iter::once(function))
}

/// -> (instances started, requests held) by each policy.
fn check(name: &str, line: &str, counts: &[(u32, u32)], duration: f64, want: [(u64, u64); 3]) {
    let tallies = replayed(line, counts, duration);
    let got: Vec<(u64, u64)> = tallies.iter().map(|(_, tally)| (tally.starts, tally.held)).collect();
    assert_eq!(got, want, "{name}");
    for (_, tally) in &tallies {
        let calls: u64 = counts.iter().map(|(_, count)| u64::from(*count)).sum();
        assert_eq!(tally.requests, calls, "{name}: every call is counted");
    }
}

#[test]
fn what_is_started_and_who_waits_can_be_reckoned() {
    check("one call, alone", "--concurrency 1", &[(3, 1)], 0.1, [(1, 1), (2, 1), (1, 1)]);
    check("one call, shared", "", &[(3, 1)], 0.1, [(1, 1), (1, 1), (1, 1)]);
    check("again within all windows", "", &[(3, 1), (4, 1)], 0.1, [(1, 1), (1, 1), (1, 1)]);
    check("after a minute of silence", "", &[(3, 1), (6, 1)], 0.1, [(1, 1), (2, 2), (2, 2)]);
    check("after ten", "", &[(3, 1), (14, 1)], 0.1, [(2, 2), (2, 2), (2, 2)]);
    // Ten a second, ready after one: ten or eleven wait, and one instance takes them all.
    check("many share", "", &[(3, 600)], 0.05, [(1, 10), (1, 10), (1, 10)]);
    // A window of ten minutes is the fixed policy.
    check("a long window", "--window 10m", &[(3, 1), (12, 1)], 0.1, [(1, 1); 3]);
}

#[test]
fn memory_over_time_is_of_instances_that_answer_and_that_do_not() {
    let tallies = replayed("", &[(3, 1)], 2.0);
    for ((name, tally), kept) in tallies.iter().zip([600.0, 62.0, 60.0]) {
        assert!((tally.used - 2.0).abs() < 0.01, "{name}: {tally:?}");
        // One second of starting, then idle.
        assert!((tally.wasted - 1.0 - kept).abs() < 3.0, "{name}: {tally:?}");
        assert!((tally.waits.quantile(1.0) - 1.0).abs() < 0.01, "{name}");
    }
}

#[test]
fn counts_reckoned_in_stretches_are_those_of_one_call_at_a_time() {
    // A limit that is never met makes long stretches; the work is the same.
    for duration in [0.02, 0.7, 5.0, 90.0] {
        let counts: Vec<(u32, u32)> = (0..100).map(|minute| (minute, 12)).collect();
        let work = 1200.0 * duration;
        for (name, tally) in replayed("--concurrency 1", &counts, duration) {
            let used = tally.used;
            assert!((used - work).abs() < work * 0.02 + 1.0, "{name} {duration}: {used} of {work}");
        }
    }
}

#[test]
fn calls_at_random_are_as_many_as_even_ones_and_work_as_long() {
    let counts: Vec<(u32, u32)> = (0..100).map(|minute| (minute, [20, 600][minute as usize % 2])).collect();
    let function = Function { counts, duration: 0.5, memory: 1024.0, seed: 1 };
    let replayed = |arrivals: &str| {
        let args = args(&format!("--generate days=1 --concurrency 1 --max-scale 8 --arrivals {arrivals}"));
        let tallies = replay(&args, 120, std::iter::once(function.clone()));
        tallies.into_iter().map(|(_, tally)| (tally.requests, tally.used)).collect::<Vec<_>>()
    };
    for (calls, used) in replayed("poisson").into_iter().chain(replayed("even")) {
        assert_eq!(calls, 31_000);
        assert!((used - 15_500.0).abs() < 400.0, "{used}");
    }
}

#[test]
fn a_maximum_makes_others_wait_and_is_kept() {
    let tallies = replayed("--concurrency 1 --max-scale 2", &[(3, 60)], 4.0);
    for (name, tally) in &tallies {
        assert_eq!((tally.starts, tally.requests), (2, 60), "{name}");
        // 60 calls of 4 s on two take 120 s.
        let longest = tally.waits.quantile(1.0);
        assert!((58.0..66.0).contains(&longest), "{name}: {longest}");
        assert!((tally.used - 240.0).abs() < 8.0, "{name}: {}", tally.used);
    }
}

#[test]
fn a_seed_gives_the_same_table_again() {
    let once =
        || simulate(&args("--generate seed=3,functions=40,days=1 --concurrency 1 --csv")).expect("a table");
    assert_eq!(once(), once());
}

/// Made-up functions, one by one, with and without lulls: the same decisions, counts and waits.
/// PILOTLIGHT_LULLS: so many of each kind, for a whole day.
#[test]
fn lulls_are_what_asking_at_each_call_comes_to() {
    let many = std::env::var("PILOTLIGHT_LULLS").ok().and_then(|many| many.parse().ok());
    let (functions, minutes) = many.map_or((20, 180), |many: u32| (many, 1440));
    let rest = [
        "",
        "--window 30s --start 3s",
        "--max-scale 2 --arrivals even",
        "--window 90s --start 200ms",
        "--arrivals even --window 7s",
    ];
    for (seed, concurrency) in (1..).zip([0, 1, 2, 10].repeat(2)) {
        for rest in rest {
            lulls_change_nothing(
                &format!("--generate seed={seed},functions={functions} --concurrency {concurrency} {rest}"),
                minutes,
            );
        }
    }
}

fn lulls_change_nothing(line: &str, minutes: u32) {
    let args = args(line);
    for (number, mut function) in args.generate.expect("given").functions().enumerate() {
        function.counts.retain(|(minute, _)| *minute < minutes);
        let of = |lulls| replay_with(&args, minutes, std::iter::once(function.clone()), lulls);
        for ((name, quick), (_, slow)) in of(true).into_iter().zip(of(false)) {
            let what = format!("{line}: function {number}, {name}, calls of {} s", function.duration);
            let counts = |tally: &Tally| (tally.requests, tally.held, tally.refused, tally.starts);
            assert_eq!(counts(&quick), counts(&slow), "{what}");
            assert_eq!(quick.waits, slow.waits, "{what}");
            // Sums of the same numbers in another order.
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (a + b);
            assert!(near(quick.used, slow.used), "{what}: {} {}", quick.used, slow.used);
            assert!(near(quick.wasted, slow.wasted), "{what}: {} {}", quick.wasted, slow.wasted);
        }
    }
}

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("pilotlight-simulate-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    directory
}

fn invocations(rows: &[(&str, &[(usize, u32)])]) -> String {
    let minutes: Vec<String> = (1..=1440).map(|minute| minute.to_string()).collect();
    let mut text = format!("HashOwner,HashApp,HashFunction,Trigger,{}\n", minutes.join(","));
    for (id, counts) in rows {
        let mut cells = vec!["0".to_owned(); 1440];
        counts.iter().for_each(|(minute, count)| cells[*minute] = count.to_string());
        text.push_str(&format!("{id},http,{}\n", cells.join(",")));
    }
    text
}

#[test]
fn a_tiny_trace_gives_the_table_that_it_always_gave() {
    let directory = directory("tiny");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let rows: [(&str, &[(usize, u32)]); 2] = [("o,a,f", &[(0, 1), (5, 1), (30, 3)]), ("o,a,g", &[(10, 120)])];
    let trace = file("invocations.csv", &invocations(&rows));
    let durations = file(
        "durations.csv",
        "HashOwner,HashApp,HashFunction,Average,Count\no,a,f,500,5\no,a,g,2000,120\nx,y,z,1,1\n",
    );
    let memory = file("memory.csv", "HashOwner,HashApp,SampleCount,AverageAllocatedMb\no,a,1,512\n");
    let line = format!("{trace} --arrivals even --concurrency 1 --durations {durations} --memory {memory}");
    let text = simulate(&args(&line)).expect("a table");
    std::fs::remove_dir_all(&directory).expect("removed");
    assert_eq!(text, GOLDEN, "\n{text}");
}

const GOLDEN: &str = "\
policy      requests  cold starts  held  held percent  refused  wait p50 s  wait p90 s  wait p99 s  wait p999 s  used gb s  wasted gb s
fixed-10m        125            8     9        7.2000        0       0.000       0.000       1.001        1.001      121.2       2598.5
knative          125           16    16       12.8000        0       0.000       1.001       2.003        2.507      121.2        484.8
pilotlight       125            9    10        8.0000        0       0.000       0.000       1.001        1.001      121.2        351.2
";

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let directory = directory("wrong");
    for (number, (text, wanted)) in [
        ("", "1: the file is empty"),
        ("a,b\n", "1: there is no column \"HashOwner\""),
        ("HashOwner,HashApp,HashFunction,Trigger,1\no,a,f,http,x\n", "2: \"x\" is not a number of calls"),
        ("HashOwner,HashApp,HashFunction,Trigger,1\no,a\n", "2: only 2 columns"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.join(format!("{number}.csv"));
        std::fs::write(&path, text).expect("a file");
        let error = simulate(&args(&path.display().to_string())).expect_err("refused");
        assert!(error.contains(wanted), "{error}");
    }
    std::fs::remove_dir_all(&directory).expect("removed");
    assert!(simulate(&args("/nowhere.csv")).is_err());
}
