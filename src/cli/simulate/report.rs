//! What a policy came to: counts, waits and memory over time, as a table or as CSV.

use std::fmt::Write;

/// Sub-buckets of each power of two: waits are told to within half a percent.
const SUB: usize = 256;
const SUB_BITS: u32 = SUB.trailing_zeros();

/// How long requests waited: a histogram over microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { counts: vec![0; (64 - SUB_BITS as usize + 1) * SUB], total: 0 }
    }
}

impl Waits {
    /// `count` requests waited `micros` each.
    pub fn add(&mut self, micros: u64, count: u64) {
        self.counts[Waits::place(micros)] += count;
        self.total += count;
    }

    fn place(micros: u64) -> usize {
        if micros < SUB as u64 {
            return micros as usize;
        }
        let shift = 63 - micros.leading_zeros() - SUB_BITS;
        // The shifted value is in SUB..2 * SUB.
        (shift as usize) * SUB + (micros >> shift) as usize
    }

    /// The highest wait of a bucket, in microseconds.
    fn upper(place: usize) -> u64 {
        if place < 2 * SUB {
            return place as u64;
        }
        let shift = place / SUB - 1;
        let next = ((place % SUB + SUB + 1) as u128) << shift;
        u64::try_from(next - 1).unwrap_or(u64::MAX)
    }

    /// The wait that the fraction `q` of all requests does not exceed, in seconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (self.total as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Waits::upper(place) as f64 / 1e6;
            }
        }
        0.0
    }
}

/// What one policy came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Of them, those that were held.
    pub held: u64,
    /// Of them, those that were refused: the hold was full or they waited too long.
    pub refused: u64,
    /// Instances that were started.
    pub starts: u64,
    /// How long requests waited; those not held, not at all.
    pub waits: Waits,
    /// Memory over time in instances that were answering, in GB-seconds.
    pub used: f64,
    /// The same in instances that were starting or idle.
    pub wasted: f64,
}

impl Tally {
    fn row(&self, policy: &str) -> Vec<String> {
        let share = |part: u64| 100.0 * part as f64 / self.requests.max(1) as f64;
        let wait = |q| format!("{:.3}", self.waits.quantile(q));
        vec![
            policy.to_owned(),
            self.requests.to_string(),
            self.starts.to_string(),
            self.held.to_string(),
            format!("{:.4}", share(self.held)),
            self.refused.to_string(),
            wait(0.5),
            wait(0.9),
            wait(0.99),
            wait(0.999),
            format!("{:.1}", self.used),
            format!("{:.1}", self.wasted),
        ]
    }
}

const COLUMNS: [&str; 12] = [
    "policy",
    "requests",
    "cold_starts",
    "held",
    "held_percent",
    "refused",
    "wait_p50_s",
    "wait_p90_s",
    "wait_p99_s",
    "wait_p999_s",
    "used_gb_s",
    "wasted_gb_s",
];

/// The tallies as rows of numbers with commas between.
pub fn csv(tallies: &[(&str, Tally)]) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for (policy, tally) in tallies {
        text.push_str(&tally.row(policy).join(","));
        text.push('\n');
    }
    text
}

/// The tallies for people.
pub fn table(tallies: &[(&str, Tally)]) -> String {
    let head: Vec<String> = COLUMNS.iter().map(|name| name.replace('_', " ")).collect();
    let rows: Vec<Vec<String>> =
        std::iter::once(head).chain(tallies.iter().map(|(policy, tally)| tally.row(policy))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_from_above() {
        for micros in [0, 1, 31, 32, 33, 63, 64, 65, 1_000, 999_999, 1_000_000, u64::MAX / 3, u64::MAX] {
            let mut waits = Waits::default();
            waits.add(micros, 3);
            let (got, want) = (waits.quantile(0.5) * 1e6, micros as f64);
            assert!(got >= want * 0.999_999 && got <= want * 1.005, "{micros}: {got}");
        }
        let mut waits = Waits::default();
        waits.add(0, 990);
        waits.add(2_000_000, 10);
        assert_eq!(waits.quantile(0.99), 0.0);
        assert!((waits.quantile(0.991) - 2.0).abs() < 0.01);
        assert_eq!(Waits::default().quantile(0.5), 0.0);
    }
}
