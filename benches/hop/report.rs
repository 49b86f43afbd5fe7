//! The table, and the bars with their verdicts.

use std::time::Duration;

use crate::rounds::{CONNECTIONS, Column, Measured};
use crate::{Args, Proxy, Scale, upstream};

const MIB: f64 = 1024.0 * 1024.0;
const KIB: f64 = 1024.0;

/// A bar: what is measured, and the most it may be.
struct Bar {
    what: &'static str,
    most: f64,
    /// `None` when it could not be measured.
    value: Option<f64>,
}

/// Prints everything; true when no bar was missed. What could not be measured is said and is no miss.
pub fn print(args: &Args, measured: &Measured, scale: &Scale) -> bool {
    println!(
        "\nHTTP/1.1 keep-alive, {CONNECTIONS} connections, {} bytes of body, one worker each; {} rounds of {} requests\n",
        upstream::BODY,
        scale.rounds,
        scale.requests
    );
    print_table(&measured.columns);
    if !measured.counted {
        println!("\nInstructions were not counted: valgrind is not installed.");
    }
    println!("\nBars (ratios are medians over rounds):");
    let mut passed = true;
    for Bar { what, most, value } in bars(args, &measured.columns) {
        let verdict = match value {
            None => "  ?  ",
            Some(value) if value <= most => "pass ",
            Some(_) => {
                passed = false;
                "MISS "
            }
        };
        let value = value.map_or("not measured".to_owned(), |value| figure(value, 2));
        println!("  {verdict} {what:<56} {value:>12}  at most {}", figure(most, 2));
    }
    passed
}

fn print_table(columns: &[Column]) {
    let line = |what: &str, cell: &dyn Fn(&Column) -> String| {
        let cells: String = columns.iter().map(|column| format!("{:>14}", cell(column))).collect();
        println!("{what:<34}{cells}");
    };
    line("", &|column| column.proxy.name().to_owned());
    line("CPU µs/request", &|column| figure(median(&column.cpu), 1));
    line("requests/s", &|column| figure(median(&column.rate), 0));
    line("p50 µs", &|column| figure(micros(&column.p50), 0));
    line("p99 µs", &|column| figure(micros(&column.p99), 0));
    line("user instructions/request", &|column| column.instructions.map_or("-".into(), |n| figure(n, 0)));
    line("RSS idle, MiB", &|column| figure(column.resident_idle as f64 / MIB, 1));
    line("RSS after load, MiB", &|column| figure(column.resident_after as f64 / MIB, 1));
    line("idle connection, KiB", &|column| figure(column.idle_connection / KIB, 1));
}

fn bars(args: &Args, columns: &[Column]) -> Vec<Bar> {
    let of = |proxy| columns.iter().find(|column: &&Column| column.proxy == proxy);
    let (relay, minimal, own) = (of(Proxy::Relay), of(Proxy::Minimal), of(Proxy::Pilotlight));
    let instructions = own.and_then(|own| own.instructions);
    let floor = minimal.and_then(|minimal| minimal.instructions);
    let cpu = |floor: Option<&Column>| Some(paired(&own?.cpu, &floor?.cpu));
    let bar = |what, most, value| Bar { what, most, value };
    // The others stay in plaintext: nothing compares.
    if args.policy {
        return vec![bar(
            "user instructions per request, mTLS, ten rules and a token",
            60_000.0,
            instructions,
        )];
    }
    if args.mtls {
        return vec![bar("user instructions per request, mTLS on both sides", 52_000.0, instructions)];
    }
    vec![
        bar("user instructions per request", 36_000.0, instructions),
        bar(
            "user instructions, times the minimal proxy's",
            1.5,
            instructions.zip(floor).map(|(own, floor)| own / floor),
        ),
        bar("CPU per request, times the minimal proxy's", 1.15, cpu(minimal)),
        bar("CPU per request, times the relay's", 1.6, cpu(relay)),
        bar("RSS idle, MiB", 12.0, own.map(|own| own.resident_idle as f64 / MIB)),
        bar("idle connection that has served a request, KiB", 10.0, own.map(|own| own.idle_connection / KIB)),
    ]
}

/// The median of what one is of the other in the same round.
pub fn paired(ones: &[f64], others: &[f64]) -> f64 {
    let ratios: Vec<f64> = ones.iter().zip(others).map(|(one, other)| one / other).collect();
    median(&ratios)
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

fn micros(lengths: &[Duration]) -> f64 {
    median(&lengths.iter().map(|length| length.as_secs_f64() * 1e6).collect::<Vec<_>>())
}

/// A number with at most so many decimals, its thousands set apart.
pub fn figure(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((&*text, ""), |(whole, rest)| (whole, rest));
    let rest = rest.trim_end_matches('0');
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}
