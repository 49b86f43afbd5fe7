//! Weights: a split of splits as one split, exactly.

/// One destination of a rule: how much of the traffic, and how that share is divided further.
pub(crate) struct Share<T> {
    /// Relative to its siblings.
    pub weight: u64,
    /// Relative to each other; never empty.
    pub parts: Vec<(T, u64)>,
}

/// One flat split with the proportions of the nested one. Entries without weight are dropped; where all are
/// without weight every entry counts the same. Weights fit in `u32` and are at least 1.
pub(crate) fn flatten<T>(shares: Vec<Share<T>>) -> Vec<(T, u32)> {
    let level = shares.iter().all(|share| share.weight == 0);
    let shares: Vec<Share<T>> = shares
        .into_iter()
        .filter_map(|share| {
            let weight = if level { 1 } else { share.weight };
            let parts = live_parts(share.parts);
            (weight > 0 && !parts.is_empty()).then_some(Share { weight, parts })
        })
        .collect();
    let Some(multiple) = least_multiple(&shares) else {
        return approximate(shares);
    };
    let mut flat = Vec::new();
    for share in shares {
        let sum = total(&share.parts);
        for (part, weight) in share.parts {
            flat.push((part, u128::from(share.weight) * u128::from(weight) * (multiple / sum)));
        }
    }
    narrow(flat)
}

fn live_parts<T>(parts: Vec<(T, u64)>) -> Vec<(T, u64)> {
    if parts.iter().all(|(_, weight)| *weight == 0) {
        return parts.into_iter().map(|(part, _)| (part, 1)).collect();
    }
    parts.into_iter().filter(|(_, weight)| *weight > 0).collect()
}

fn total<T>(parts: &[(T, u64)]) -> u128 {
    parts.iter().map(|(_, weight)| u128::from(*weight)).sum()
}

/// The least common multiple of the sums of all shares, where arithmetic with it stays within `u128`.
fn least_multiple<T>(shares: &[Share<T>]) -> Option<u128> {
    let mut multiple: u128 = 1;
    for share in shares {
        let sum = total(&share.parts);
        multiple = (multiple / gcd(multiple, sum)).checked_mul(sum)?;
    }
    // A weight times a part of it times `multiple` is what is computed next.
    (multiple < 1 << 60 && shares.iter().all(|s| s.weight < 1 << 32 && total(&s.parts) < 1 << 36))
        .then_some(multiple)
}

/// Weights beyond exact arithmetic: proportions to a part in two billion.
fn approximate<T>(shares: Vec<Share<T>>) -> Vec<(T, u32)> {
    let whole: f64 = shares.iter().map(|share| share.weight as f64).sum();
    let mut flat = Vec::new();
    for share in shares {
        let sum = total(&share.parts) as f64;
        for (part, weight) in share.parts {
            let exact = share.weight as f64 / whole * (weight as f64 / sum);
            flat.push((part, ((exact * 2e9) as u32).max(1)));
        }
    }
    flat
}

/// Brings exact weights into `u32`: as they are where they fit, else in lowest terms, else halved until they do.
/// A single one is 1.
fn narrow<T>(mut flat: Vec<(T, u128)>) -> Vec<(T, u32)> {
    if let [(_, only)] = flat.as_mut_slice() {
        *only = 1;
    }
    const CEILING: u128 = u32::MAX as u128 / 2;
    let sum: u128 = flat.iter().map(|(_, weight)| weight).sum();
    let divisor =
        if sum <= CEILING { 1 } else { flat.iter().fold(0, |d, (_, weight)| gcd(d, *weight)).max(1) };
    let mut shift = 0;
    while (sum / divisor) >> shift > CEILING {
        shift += 1;
    }
    flat.into_iter().map(|(part, weight)| (part, (((weight / divisor) >> shift) as u32).max(1))).collect()
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(shares: &[(u64, &[(&'static str, u64)])], expected: &[(&str, u32)]) {
        let shares =
            shares.iter().map(|(weight, parts)| Share { weight: *weight, parts: parts.to_vec() }).collect();
        assert_eq!(flatten(shares), expected);
    }

    #[test]
    fn plain_weights_stay_as_written() {
        check(&[(90, &[("a", 1)]), (10, &[("b", 1)])], &[("a", 90), ("b", 10)]);
        check(&[(1, &[("a", 90), ("b", 10)])], &[("a", 90), ("b", 10)]);
    }

    #[test]
    fn weights_multiply_through_exactly() {
        check(&[(50, &[("a", 90), ("b", 10)]), (50, &[("c", 1)])], &[("a", 4500), ("b", 500), ("c", 5000)]);
        check(
            &[(1, &[("a", 1), ("b", 2)]), (1, &[("c", 1), ("d", 1)])],
            &[("a", 2), ("b", 4), ("c", 3), ("d", 3)],
        );
    }

    #[test]
    fn what_has_no_weight_gets_nothing_unless_nothing_has() {
        check(&[(0, &[("a", 1)]), (10, &[("b", 1)])], &[("b", 1)]);
        check(&[(0, &[("a", 1)])], &[("a", 1)]);
        check(&[(1, &[("a", 0), ("b", 100)])], &[("b", 1)]);
        check(&[(1, &[("a", 0), ("b", 0)])], &[("a", 1), ("b", 1)]);
    }

    proptest! {
        #[test]
        fn proportions_hold_whatever_the_weights(
            shares in prop::collection::vec((0u64..5_000_000_000, prop::collection::vec(0u64..4_000_000_000, 1..5)), 1..6)
        ) {
            let nested = |()| shares.iter().map(|(weight, parts)| Share {
                weight: *weight,
                parts: parts.iter().map(|part| ((), *part)).collect(),
            }).collect::<Vec<_>>();
            let flat = flatten(nested(()));
            prop_assert!(!flat.is_empty());
            prop_assert!(flat.iter().all(|(_, weight)| *weight >= 1));
            prop_assert!(flat.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>() <= u64::from(u32::MAX));
        }
    }
}
