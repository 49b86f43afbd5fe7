//! Choosing an endpoint: pure functions of what is there and one random number.
//!
//! Least request is the power of two choices: two members drawn by weight, the one with fewer exchanges
//! for its weight wins. Round robin follows a smooth weighted schedule that is made when members change.

use super::Endpoint;
use std::sync::Arc;

/// The worker's source of randomness for choices that need not be unpredictable.
pub type Rng = fastrand::Rng;

const MAX_SCHEDULE: usize = 1024;

/// Members as balancing needs them, made anew when they change.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// Running sums of weights; empty where all weigh the same.
    sums: Vec<u64>,
    /// Indices for round robin.
    schedule: Vec<u32>,
}

impl List {
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>) -> List {
        let uniform = endpoints.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let mut sums = Vec::new();
        if !uniform {
            let mut sum = 0;
            sums.extend(endpoints.iter().map(|e| {
                sum += u64::from(e.weight);
                sum
            }));
        }
        let schedule = if uniform {
            (0..endpoints.len() as u32).collect()
        } else {
            schedule(&endpoints.iter().map(|e| e.weight).collect::<Vec<_>>())
        };
        List { endpoints, sums, schedule }
    }

    /// One member drawn by weight.
    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        match self.sums.last() {
            None => rng.usize(..self.endpoints.len()),
            Some(&total) => {
                let at = rng.u64(..total);
                self.sums.partition_point(|&sum| sum <= at)
            }
        }
    }

    /// The better of two draws.
    #[inline]
    pub(super) fn least_of_two(&self, rng: &mut Rng) -> usize {
        let (a, b) = (self.draw(rng), self.draw(rng));
        let (x, y) = (&self.endpoints[a], &self.endpoints[b]);
        let load = |e: &Endpoint| u64::from(e.active()) + 1;
        // a/wa > b/wb without division
        if load(x) * u64::from(y.weight) > load(y) * u64::from(x.weight) { b } else { a }
    }

    /// The `turn`-th member in turn.
    #[inline]
    pub(super) fn in_turn(&self, turn: usize) -> usize {
        self.schedule[turn % self.schedule.len()] as usize
    }
}

/// Smooth weighted round robin (as nginx does it), unrolled over one period.
fn schedule(weights: &[u32]) -> Vec<u32> {
    let gcd = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<i64> = weights.iter().map(|w| i64::from(w / gcd)).collect();
    let total: i64 = weights.iter().sum();
    if total > MAX_SCHEDULE as i64 {
        // Keep proportions to within the schedule's length rather than grow without bound.
        for w in &mut weights {
            *w = (*w * MAX_SCHEDULE as i64 / total).max(1);
        }
    }
    let total: i64 = weights.iter().sum();
    let mut current = vec![0_i64; weights.len()];
    let mut out = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for i in 0..weights.len() {
            current[i] += weights[i];
            if current[i] > current[best] {
                best = i;
            }
        }
        current[best] -= total;
        out.push(best as u32);
    }
    out
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_keeps_weights_and_spreads_them() {
        for (weights, expected) in [
            (vec![5, 1, 1], vec![0, 0, 1, 0, 2, 0, 0]),
            (vec![10, 20], vec![1, 0, 1]),
            (vec![3, 3], vec![0, 1]),
        ] {
            assert_eq!(schedule(&weights), expected, "{weights:?}");
        }
        assert!(schedule(&[1, 1_000_000]).len() <= MAX_SCHEDULE + 2);
    }

    #[test]
    fn draws_follow_weights() {
        let list =
            List::new([1, 3].map(|w| Endpoint::new("127.0.0.1:1".parse().unwrap(), "e".into(), w, 0)).into());
        let mut rng = Rng::with_seed(7);
        let second = (0..10_000).filter(|_| list.draw(&mut rng) == 1).count();
        assert!((7_200..7_800).contains(&second), "{second}");
    }
}
