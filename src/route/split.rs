//! Weighted choice among the destinations of a route.
//!
//! Pure: the caller brings the random number, this says which share it falls into.

/// Relative weights, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Running sums; the last is the total. Empty for a single destination.
    bounds: Box<[u64]>,
}

impl Split {
    /// Nothing to choose from but one.
    pub fn single() -> Split {
        Split { bounds: [].into() }
    }

    /// Compiles relative weights. The weight of a single destination does not matter.
    ///
    /// # Errors
    /// No destination, or several whose weights sum to zero.
    pub fn compile(weights: &[u32]) -> Result<Split, String> {
        if weights.len() == 1 {
            return Ok(Split::single());
        }
        let bounds: Box<[u64]> = weights
            .iter()
            .scan(0u64, |sum, weight| {
                *sum += u64::from(*weight);
                Some(*sum)
            })
            .collect();
        match bounds.last() {
            None => Err("a route needs at least one destination".into()),
            Some(0) => Err("total destination weight = 0".into()),
            Some(_) => Ok(Split { bounds }),
        }
    }

    /// Whether there is nothing to choose, so that no random number is needed.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.bounds.is_empty()
    }

    /// The index of the destination that a uniform random number falls to.
    #[inline]
    pub fn pick(&self, random: u64) -> usize {
        let Some(total) = self.bounds.last() else { return 0 };
        // Multiply-shift maps the number onto 0..total without a division; what it is off by is below 2^-32.
        let point = ((u128::from(random) * u128::from(*total)) >> 64) as u64;
        self.bounds.partition_point(|bound| *bound <= point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[u32], wanted: &[usize]) {
        let split = Split::compile(weights).unwrap();
        let mut counts = vec![0; weights.len()];
        let rounds = 1000u64;
        for round in 0..rounds {
            counts[split.pick(round * (u64::MAX / rounds) + u64::MAX / rounds / 2)] += 1;
        }
        assert_eq!(counts, wanted, "{weights:?}");
    }

    #[test]
    fn each_destination_gets_its_share_of_uniform_numbers() {
        check(&[90, 10], &[900, 100]);
        check(&[1, 1, 2], &[250, 250, 500]);
        check(&[1, 0, 1], &[500, 0, 500]);
        check(&[7], &[1000]);
        check(&[0], &[1000]);
        check(&[u32::MAX, u32::MAX], &[500, 500]);
    }

    #[test]
    fn the_ends_of_the_range_fall_to_the_first_and_last_with_weight() {
        let split = Split::compile(&[0, 3, 5, 0]).unwrap();
        assert_eq!((split.pick(0), split.pick(u64::MAX)), (1, 2));
    }

    #[test]
    fn weights_without_a_sum_are_refused() {
        assert!(Split::compile(&[]).is_err());
        assert!(Split::compile(&[0, 0]).is_err());
    }
}
