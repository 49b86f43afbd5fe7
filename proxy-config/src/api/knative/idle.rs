//! Annotations `pilotlight.dev/…` of a revision template about instances that are not needed.

use crate::api::shape::nearest;
use crate::decode::Cursor;
use crate::model::Idle;
use crate::units;
use std::time::Duration;

/// Without the prefix of `holding`.
pub(super) const KEYS: [&str; 2] = ["idle", "freeze-for"];
const E: &str = "IST0106";
const KINDS: [&str; 2] = ["stop", "freeze"];

/// What both annotations say together.
#[derive(Debug, Default)]
pub(super) struct Read<'a> {
    freeze: bool,
    most: Option<(Duration, Cursor<'a>)>,
}

impl<'a> Read<'a> {
    /// Reads the annotation `name`, one of [`KEYS`].
    pub(super) fn one(&mut self, name: &str, value: Cursor<'a>) {
        let Some(text) = value.text() else { return };
        match name {
            "idle" => match text {
                "stop" => self.freeze = false,
                "freeze" => self.freeze = true,
                _ => {
                    let help = match nearest(text, KINDS.into_iter()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "`stop` ends an instance that is not needed, `freeze` keeps it asleep".into(),
                    };
                    value.error_with_help(E, format!("expected \"stop\" or \"freeze\", not {text}"), help);
                }
            },
            _ => match units::duration(text) {
                Ok(most) if (Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&most) => {
                    self.most = Some((most, value));
                }
                Ok(_) => value.error(E, format!("expected 1s <= {text} <= 24h")),
                Err(message) => value.error(E, message),
            },
        }
    }

    /// What they mean.
    pub(super) fn meaning(self) -> Idle {
        match (self.freeze, self.most) {
            (true, most) => Idle::Freeze { most: most.map_or(Idle::FREEZE_FOR, |(most, _)| most) },
            (false, None) => Idle::Stop,
            (false, Some((_, value))) => {
                let message = "freeze-for says nothing where idle instances are stopped";
                value.warn_with_help("IST0108", message, "write pilotlight.dev/idle: freeze beside it");
                Idle::Stop
            }
        }
    }
}
