//! What becomes of instances that are not needed.

use std::time::Duration;

/// `pilotlight.dev/idle` and `pilotlight.dev/freeze-for`, of one revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// They are ended.
    #[default]
    Stop,
    /// They keep their memory and their port and use no processor.
    Freeze {
        /// After this long without being needed they are ended.
        most: Duration,
    },
}

impl Idle {
    /// `freeze-for` where it is not written.
    pub const FREEZE_FOR: Duration = Duration::from_secs(15 * 60);
}
