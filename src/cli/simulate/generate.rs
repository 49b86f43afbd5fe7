//! Functions made up under a seed, after the distributions that a large provider published.
//!
//! Source: Shahrad et al., "Serverless in the Wild: Characterizing and Optimizing the Serverless Workload
//! at a Large Cloud Provider", USENIX ATC 2020. Taken from it:
//! - Rates span eight orders of magnitude: 45 % of functions are called once an hour or less, 81 % once a
//!   minute or less. Below these points rates are even on a logarithmic scale from one call a day; the
//!   rest falls off as a power (exponent 0.7) up to 10⁸ calls a day, so that the busiest fifth has nearly
//!   all calls, as there.
//! - Triggers: 55 % HTTP, 16 % timers, the rest queues, events and others. Timers call evenly; all others
//!   at random around a daily wave over a constant base of half.
//! - Average execution times are lognormal with a log mean of −0.38 and a deviation of 2.36 (seconds).
//! - Allocated memory is Burr XII distributed with c = 11.652, k = 0.221 and scale 107.083 (MB).
//!
//! Each function depends on the seed and its own number only, so more functions change none.

use super::trace::Function;
use fastrand::Rng;
use libm::{cos, exp, log, pow, sin};
use std::f64::consts::TAU;
use std::str::FromStr;

/// Minutes of a day.
pub const DAY: u32 = 1440;
/// Longer executions are cut off by providers.
const LONGEST: f64 = 600.0;
/// Calls a day of the busiest, and where the power begins.
const BUSIEST: f64 = 1e8;
const BUSY: f64 = DAY as f64;
const POWER: f64 = 0.7;
const TIMERS: f64 = 0.16;

/// `seed=1,functions=1000,days=1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generate {
    /// Of the random numbers.
    pub seed: u64,
    /// How many.
    pub functions: u32,
    /// For how long.
    pub days: u32,
}

impl FromStr for Generate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut generate = Generate { seed: 1, functions: 1000, days: 1 };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or("write seed=N,functions=N,days=N")?;
            let number = |max: u64| match value.parse::<u64>() {
                Ok(number) if (1..=max).contains(&number) => Ok(number),
                _ => Err(format!("{key} should be a number from 1 to {max}, not {value:?}")),
            };
            match key {
                "seed" => {
                    generate.seed = value.parse().map_err(|_| format!("seed {value:?} is no number"))?
                }
                // The bounds fit into u32.
                "functions" => generate.functions = number(10_000_000)? as u32,
                "days" => generate.days = number(366)? as u32,
                _ => return Err(format!("unknown key {key:?}; known: seed, functions, days")),
            }
        }
        Ok(generate)
    }
}

impl Generate {
    /// The functions, one at a time.
    pub fn functions(self) -> impl Iterator<Item = Function> {
        (0..self.functions).map(move |number| one(self, number))
    }
}

/// A generator for one thing under a seed.
pub fn random(seed: u64, number: u64) -> Rng {
    // Neighbouring seeds must not give neighbouring sequences.
    let mut mixed = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Rng::with_seed(mixed.u64(..))
}

fn one(generate: Generate, number: u32) -> Function {
    let mut random = random(generate.seed, number.into());
    let daily = rate(random.f64());
    let timer = random.f64() < TIMERS;
    let (duration, memory) = body(&mut random);
    let minutes = generate.days * DAY;
    let counts =
        if timer { evenly(&mut random, daily, minutes) } else { at_random(&mut random, daily, minutes) };
    Function { counts, duration, memory, seed: random.u64(..) }
}

/// Average execution time in seconds and memory in MB of some function.
pub fn body(random: &mut Rng) -> (f64, f64) {
    let duration = exp(-0.38 + 2.36 * normal(random)).clamp(0.001, LONGEST);
    let rest = (1.0 - random.f64()).max(1e-9);
    let memory = 107.083 * pow(pow(rest, -1.0 / 0.221) - 1.0, 1.0 / 11.652);
    (duration, memory.clamp(16.0, 4096.0))
}

/// Calls a day at a place in the distribution, `0.0..1.0`.
fn rate(place: f64) -> f64 {
    let between =
        |(from, to): (f64, f64), (low, high): (f64, f64)| low * pow(high / low, (place - from) / (to - from));
    if place < 0.45 {
        between((0.0, 0.45), (1.0, 24.0))
    } else if place < 0.81 {
        between((0.45, 0.81), (24.0, BUSY))
    } else {
        // The inverse of a power law between two bounds.
        let left = 1.0 - (place - 0.81) / 0.19;
        let end = pow(BUSY / BUSIEST, POWER);
        BUSY * pow(end + left * (1.0 - end), -1.0 / POWER)
    }
}

fn normal(random: &mut Rng) -> f64 {
    let radius = (-2.0 * log(1.0 - random.f64())).sqrt();
    radius * cos(TAU * random.f64())
}

/// Every so many minutes, or so many each minute.
fn evenly(random: &mut Rng, daily: f64, minutes: u32) -> Vec<(u32, u32)> {
    let each = daily / BUSY;
    if each >= 1.0 {
        return (0..minutes).map(|minute| (minute, each.round() as u32)).collect();
    }
    let period = (1.0 / each).round().max(1.0) as u32;
    (random.u32(0..period)..minutes).step_by(period as usize).map(|minute| (minute, 1)).collect()
}

/// At random around a daily wave.
fn at_random(random: &mut Rng, daily: f64, minutes: u32) -> Vec<(u32, u32)> {
    let phase = random.f64() * TAU;
    let wave = |minute: f64| 1.0 + 0.5 * sin(TAU * minute / BUSY + phase);
    let each = daily / BUSY;
    let mut counts: Vec<(u32, u32)> = Vec::new();
    if each >= 0.5 {
        for minute in 0..minutes {
            let count = poisson(random, each * wave(minute.into()));
            if count > 0 {
                counts.push((minute, count));
            }
        }
        return counts;
    }
    // Few: from call to call, some of them left out so that the wave remains.
    let highest = each * 1.5;
    let mut at = 0.0;
    loop {
        at -= log(1.0 - random.f64()) / highest;
        if at >= f64::from(minutes) {
            return counts;
        }
        if random.f64() * 1.5 >= wave(at) {
            continue;
        }
        let minute = at as u32;
        match counts.last_mut().filter(|(last, _)| *last == minute) {
            Some((_, count)) => *count += 1,
            None => counts.push((minute, 1)),
        }
    }
}

fn poisson(random: &mut Rng, mean: f64) -> u32 {
    if mean > 30.0 {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0) as u32;
    }
    let (limit, mut product, mut count) = (exp(-mean), random.f64(), 0);
    while product > limit {
        product *= random.f64();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_points_are_met() {
        let all = Generate { seed: 7, functions: 4_000, days: 1 };
        let mut daily: Vec<f64> = Vec::new();
        let (mut durations, mut memory) = (Vec::new(), Vec::new());
        for number in 0..all.functions {
            let mut random = random(all.seed, number.into());
            daily.push(rate(random.f64()));
            let (duration, megabytes) = body(&mut random);
            durations.push(duration);
            memory.push(megabytes);
        }
        let at_most = |limit: f64| daily.iter().filter(|rate| **rate <= limit).count() as f64 / 4_000.0;
        assert!((at_most(24.0) - 0.45).abs() < 0.03, "{}", at_most(24.0));
        assert!((at_most(1440.0) - 0.81).abs() < 0.03, "{}", at_most(1440.0));
        let sum = |rates: &[f64]| rates.iter().sum::<f64>();
        daily.sort_by(f64::total_cmp);
        assert!(sum(&daily[3_240..]) / sum(&daily) > 0.95);
        assert!((0.99..1.01).contains(&rate(0.0)) && rate(0.999_999_999) > 1e7);
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        assert!((0.55..0.85).contains(&median(durations)), "e^-0.38 is 0.68 s");
        assert!((130.0..150.0).contains(&median(memory)));
    }

    #[test]
    fn counts_are_about_as_many_as_the_rate_says() {
        for (daily, timer) in [(24.0, true), (48.0, false), (1440.0, true), (14_400.0, false)] {
            let mut random = random(3, 1);
            let of = if timer { evenly } else { at_random };
            let counts = of(&mut random, daily, 10 * DAY);
            let sum: u64 = counts.iter().map(|(_, count)| u64::from(*count)).sum();
            let want = daily * 10.0;
            assert!((sum as f64 - want).abs() < want.sqrt() * 4.0 + want * 0.02, "{daily}: {sum}");
            assert!(counts.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }

    #[test]
    fn a_seed_makes_the_same_functions_and_more_change_none() {
        let of = |functions| Generate { seed: 5, functions, days: 1 }.functions().collect::<Vec<_>>();
        assert_eq!(of(20), of(20));
        assert_eq!(of(20)[..5], of(5)[..]);
        assert_ne!(of(1), Generate { seed: 6, functions: 1, days: 1 }.functions().collect::<Vec<_>>());
    }

    #[test]
    fn its_flag_says_what_it_wants() {
        let of = |text: &str| text.parse::<Generate>();
        assert_eq!(of("functions=9,seed=4"), Ok(Generate { seed: 4, functions: 9, days: 1 }));
        for (text, wanted) in [
            ("functions", "write seed=N"),
            ("functions=0", "from 1 to"),
            ("days=many", "from 1 to"),
            ("hours=1", "known: seed, functions, days"),
        ] {
            assert!(of(text).unwrap_err().contains(wanted), "{text}");
        }
    }
}
