//! Annotations `pilotlight.dev/…` of a revision template about held requests.

use crate::decode::Cursor;
use crate::model::Holding;
use crate::units;
use std::time::Duration;

/// What the annotations begin with.
pub(super) const PREFIX: &str = "pilotlight.dev/";
const E: &str = "IST0106";

/// Without the prefix.
pub(super) const KEYS: [&str; 6] =
    ["hold-count", "hold-bytes", "hold-age", "overflow-status", "server-timing", "half-close"];

/// Reads the annotation `name`, one of [`KEYS`].
pub(super) fn one(name: &str, value: &Cursor<'_>, holding: &mut Holding) {
    let Some(text) = value.text() else { return };
    match name {
        "hold-count" => match text.parse::<u32>() {
            Ok(count) if count <= 1_000_000 => holding.count = count,
            _ => value.error(E, format!("expected 0 <= {text} <= 1000000")),
        },
        "hold-bytes" => match units::quantity_millis(text) {
            Ok(millis) if millis % 1000 == 0 && millis / 1000 <= 1 << 40 => {
                holding.bytes = u64::try_from(millis / 1000).unwrap_or(u64::MAX);
            }
            Ok(_) => value.error(E, format!("expected whole bytes up to 1Ti, not {text}")),
            Err(message) => value.error(E, message),
        },
        "hold-age" => match units::duration(text) {
            Ok(age) if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&age) => {
                holding.age = age;
            }
            Ok(_) => value.error(E, format!("expected 1ms <= {text} <= 1h")),
            Err(message) => value.error(E, message),
        },
        "overflow-status" => match text {
            "503" => holding.overflow_status = 503,
            "429" => holding.overflow_status = 429,
            _ => value.error(E, format!("expected 503 or 429, not {text}")),
        },
        "half-close" => match text {
            "keep" => holding.half_close = true,
            "leave" => holding.half_close = false,
            _ => value.error(E, format!("expected keep or leave, not {text}")),
        },
        _ => match text {
            "true" => holding.server_timing = true,
            "false" => holding.server_timing = false,
            _ => value.error(E, format!("expected \"true\" or \"false\", not {text}")),
        },
    }
}
