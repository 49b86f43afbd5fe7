//! Whether new work is shed because memory is short. One relaxed load for those who ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Shedding ends so many parts of a hundred below where it began, so that it does not flutter.
const SLACK: u64 = 5;

/// Whether memory is short.
#[derive(Debug, Default)]
pub struct Pressure(AtomicBool);

impl Pressure {
    /// It is not.
    pub fn none() -> Arc<Pressure> {
        Arc::default()
    }

    /// Whether new work is shed.
    #[inline]
    pub fn sheds(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// `used` of `most` bytes are in use, and shedding begins at `percent`. `Some`: it has begun, or ended, now.
    pub fn look(&self, used: u64, most: u64, percent: u8) -> Option<bool> {
        let sheds = self.sheds();
        let percent = u64::from(percent);
        let bound = if sheds { percent.saturating_sub(SLACK) } else { percent };
        let short = u128::from(used) * 100 >= u128::from(most) * u128::from(bound);
        self.0.store(short, Relaxed);
        (short != sheds).then_some(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shedding_begins_at_the_mark_and_ends_below_it() {
        let pressure = Pressure::none();
        for (used, changed, sheds) in [
            (89, None, false),
            (90, Some(true), true),
            (100, None, true),
            (86, None, true),
            (84, Some(false), false),
            (89, None, false),
            (u64::MAX, Some(true), true),
        ] {
            assert_eq!((pressure.look(used, 100, 90), pressure.sheds()), (changed, sheds), "{used}");
        }
    }
}
