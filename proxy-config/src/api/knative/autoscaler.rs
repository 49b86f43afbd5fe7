//! ConfigMap `config-autoscaler` of namespace `knative-serving`: what revisions scale by unless their
//! annotations say otherwise.

use super::scale::{Fault, burst, count, length, number, percent, target};
use crate::api::Meta;
use crate::api::shape::nearest;
use crate::decode::Cursor;
use crate::model::Scale;
use std::time::Duration;

/// Its namespace and name.
const OBJECT: (&str, &str) = ("knative-serving", "config-autoscaler");
const E: &str = "IST0106";

/// ConfigMap `config-autoscaler`.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaler {
    /// Identity.
    pub meta: Meta,
    /// Knative's defaults with what it says.
    pub defaults: Scale,
}

const KEYS: [&str; 20] = [
    "activator-capacity",
    "allow-zero-initial-scale",
    "container-concurrency-target-default",
    "container-concurrency-target-percentage",
    "enable-scale-to-zero",
    "initial-scale",
    "max-scale",
    "max-scale-down-rate",
    "max-scale-limit",
    "max-scale-up-rate",
    "min-scale",
    "panic-threshold-percentage",
    "panic-window-percentage",
    "pod-autoscaler-class",
    "requests-per-second-target-default",
    "scale-down-delay",
    "scale-to-zero-grace-period",
    "scale-to-zero-pod-retention-period",
    "stable-window",
    "target-burst-capacity",
];

/// Whether a ConfigMap is this one.
pub(crate) fn is(meta: &Meta) -> bool {
    (meta.object.namespace.as_str(), meta.object.name.as_str()) == OBJECT
}

/// Reads it.
pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> Autoscaler {
    let mut defaults = Scale::default();
    let mut to_zero = true;
    for (key, value) in root.field("data").entries() {
        // Knative's own installs it with its documentation as a value.
        if key.value == "_example" {
            continue;
        }
        let Some(text) = value.text() else { continue };
        match set(key.value, text.trim(), &mut defaults, &mut to_zero) {
            Ok(()) => {}
            Err(Fault::Wrong(message)) => value.error(E, message),
            Err(Fault::Idle(_)) if !KEYS.contains(&key.value) => {
                let message = format!("unknown key {:?}", key.value);
                match nearest(key.value, KEYS.iter().copied()) {
                    Some(near) => value.warn_with_help("IST0108", message, format!("did you mean `{near}`?")),
                    None => value.warn("IST0108", message),
                }
            }
            Err(Fault::Idle(what)) => value.warn("SC007", format!("{what} does not act yet")),
        }
    }
    if !to_zero {
        defaults.min = defaults.min.max(1);
    }
    Autoscaler { meta, defaults }
}

fn set(key: &str, text: &str, scale: &mut Scale, to_zero: &mut bool) -> Result<(), Fault> {
    let (hour, any) = (Duration::from_secs(3600), (Duration::ZERO, Duration::MAX));
    let rate = || number(text, |rate| rate > 1.0, "greater than 1");
    let global = &mut scale.global;
    match key {
        "activator-capacity" => {
            number(text, |capacity| capacity >= 1.0, "at least 1")?;
            return Err(Fault::Idle("a number of activators".to_owned()));
        }
        "container-concurrency-target-default" => global.concurrency_target = target(text)?,
        "requests-per-second-target-default" => global.rps_target = target(text)?,
        "max-scale-up-rate" => global.up_rate = rate()?,
        "max-scale-down-rate" => global.down_rate = rate()?,
        "scale-to-zero-grace-period" => {
            global.grace = length(text, (Duration::from_secs(1), Duration::MAX))?;
        }
        "container-concurrency-target-percentage" => {
            let share = number(text, |share| share > 0.0 && share <= 100.0, "above 0 and at most 100")?;
            // Fractions are allowed as of old.
            scale.utilization = if share > 1.0 { share / 100.0 } else { share };
        }
        "target-burst-capacity" => scale.burst_capacity = burst(text)?,
        "panic-window-percentage" => scale.panic_window = percent(text, (1.0, 100.0))?,
        "panic-threshold-percentage" => scale.panic_threshold = percent(text, (110.0, 1000.0))?,
        "stable-window" => scale.window = length(text, (Duration::from_secs(6), hour))?,
        "scale-to-zero-pod-retention-period" => scale.retention = length(text, any)?,
        "scale-down-delay" => scale.down_delay = length(text, (Duration::ZERO, hour))?,
        "initial-scale" => scale.initial = count(text, 0)?,
        "min-scale" => scale.min = count(text, 0)?,
        "max-scale" => scale.max = count(text, 0)?,
        "enable-scale-to-zero" => *to_zero = boolean(text)?,
        // An initial scale of zero is allowed anyway: nothing is started before it is asked for.
        "allow-zero-initial-scale" => boolean(text).map(|_| ())?,
        "pod-autoscaler-class" if text == "kpa.autoscaling.knative.dev" => {}
        "pod-autoscaler-class" => return Err(Fault::Idle(format!("autoscaling class {text:?}"))),
        "max-scale-limit" if text == "0" => {}
        "max-scale-limit" => return Err(Fault::Idle("a limit of max-scale".to_owned())),
        _ => return Err(Fault::Idle(String::new())),
    }
    Ok(())
}

fn boolean(text: &str) -> Result<bool, Fault> {
    text.parse().map_err(|_| Fault::Wrong(format!("{text:?} should be \"true\" or \"false\"")))
}
