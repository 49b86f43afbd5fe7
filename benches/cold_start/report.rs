//! The table, and the bars with their verdicts.

use crate::Args;
use crate::measure::{Taken, percentile};
use crate::pilotlight::Frozen;

/// Starts of one kind.
pub struct Row {
    /// Milliseconds after which the program listens.
    pub after: u64,
    /// By the bare loop.
    pub bare: Taken,
    /// By the proxy.
    pub own: Taken,
}

/// A bar: what is measured, and the most it may be.
struct Bar {
    what: String,
    most: f64,
    value: f64,
}

/// Prints everything; true when no bar was missed.
pub fn print(args: &Args, rows: &[Row], frozen: Option<&Frozen>) -> bool {
    println!(
        "\n{} cold starts of each kind, {} functions, one request at a time; µs",
        args.starts, args.functions
    );
    println!("listen(): the program's own readiness. CPU: who starts + the program, per start\n");
    println!(
        "{:>9} {:<11}{:>24}{:>24}{:>22}{:>9}",
        "listens", "", "to arrival p50 / p99", "to answer p50 / p99", "CPU", "ratio"
    );
    let mut bars = Vec::new();
    for Row { after, bare, own } in rows {
        let (starter, programs) = bare.cpu();
        let (own_starter, own_programs) = own.cpu();
        let ratio = (own_starter + own_programs) / (starter + programs);
        line(*after, "bare loop", bare, "");
        line(*after, "pilotlight", own, &format!("{ratio:.2}"));
        let mut bar =
            |what, most, value| bars.push(Bar { what: format!("after {after} ms: {what}"), most, value });
        bar("answered after listen(), p50 µs", 1_000.0, percentile(&own.answer, 50.0));
        bar("answered after listen(), p99 µs", 5_000.0, percentile(&own.answer, 99.0));
        bar("CPU per start, times the bare loop's", 1.3, ratio);
    }
    if let Some(Frozen { thawed, warm }) = frozen {
        println!("\n{:<30}{:>9} / p99", "", "p50");
        for (what, values) in [("request to a frozen function", thawed), ("the same right afterwards", warm)]
        {
            println!("{what:<30}{:>9.0} / {:.0}", percentile(values, 50.0), percentile(values, 99.0));
        }
        let what = "a frozen function answers, p50 µs".to_owned();
        bars.push(Bar { what, most: 1_000.0, value: percentile(thawed, 50.0) });
    }
    println!("\nBars:");
    let mut passed = true;
    for Bar { what, most, value } in bars {
        let verdict = if value <= most { "pass" } else { "MISS" };
        passed &= value <= most;
        println!("  {verdict}  {what:<54}{value:>10.2}  at most {most}");
    }
    passed
}

fn line(after: u64, who: &str, taken: &Taken, ratio: &str) {
    let pair = |values: &[f64]| format!("{:.0} / {:.0}", percentile(values, 50.0), percentile(values, 99.0));
    let (starter, programs) = taken.cpu();
    let cpu = format!("{starter:.0} + {programs:.0}");
    println!(
        "{after:>6} ms {who:<11}{:>24}{:>24}{cpu:>22}{ratio:>9}",
        pair(&taken.arrival),
        pair(&taken.answer)
    );
}
