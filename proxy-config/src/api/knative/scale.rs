//! Annotations of a revision template: autoscaling, and what a local process runs.

use super::{holding, idle};
use crate::api::shape::nearest;
use crate::decode::Cursor;
use crate::model::{Aggregation, Holding, Idle, Metric, Scale};
use crate::report::At;
use crate::units;
use std::time::Duration;

/// Shell words of the command that serves on this host.
const LOCAL_COMMAND: &str = "pilotlight.dev/local-command";

/// How many instances may be starting at a time.
const STARTING: &str = "pilotlight.dev/starting-at-once";

/// Of all annotations about scaling.
pub(super) const PREFIX: &str = "autoscaling.knative.dev/";
const E: &str = "IST0106";

/// Keys and the camel-case names they once had.
const KEYS: [(&str, &str); 16] = [
    ("class", ""),
    ("min-scale", "minScale"),
    ("max-scale", "maxScale"),
    ("initial-scale", "initialScale"),
    ("activation-scale", ""),
    ("scale-down-delay", "scaleDownDelay"),
    ("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod"),
    ("metric", ""),
    ("target", ""),
    ("target-utilization-percentage", "targetUtilizationPercentage"),
    ("target-burst-capacity", "targetBurstCapacity"),
    ("window", ""),
    ("panic-window-percentage", "panicWindowPercentage"),
    ("panic-threshold-percentage", "panicThresholdPercentage"),
    ("metric-aggregation-algorithm", "metricAggregationAlgorithm"),
    ("algorithm", ""),
];

/// What all of them say.
pub(super) struct Annotations {
    pub scale: Scale,
    pub holding: Holding,
    pub idle: Idle,
    pub local_command: Option<At<Vec<String>>>,
}

/// Reads them all; those of others (Istio's, the user's) are left alone.
pub(super) fn annotations(map: &Cursor<'_>) -> Annotations {
    let mut idle = idle::Read::default();
    let mut scale = Scale::default();
    let mut holding = Holding::default();
    let mut command = None;
    let mut max = None;
    for (key, value) in map.entries() {
        if let Some(name) = key.value.strip_prefix(PREFIX) {
            let written = name;
            // Of a key and its old name the key goes first, as in Knative.
            let newer = |name: &str| written != name && map.field(&format!("{PREFIX}{name}")).is_present();
            if let Some(name) = known(written, &value).filter(|name| !newer(name)) {
                one(name, &value, &mut scale);
                if name == "max-scale" {
                    max = Some(value);
                }
            }
        } else if key.value == LOCAL_COMMAND {
            command = local_command(&value);
        } else if key.value == STARTING {
            starting(&value, &mut scale);
        } else if let Some(name) = key.value.strip_prefix(holding::PREFIX) {
            if holding::KEYS.contains(&name) {
                holding::one(name, &value, &mut holding);
            } else if idle::KEYS.contains(&name) {
                idle.one(name, value);
            } else {
                unknown(name, &value);
            }
        } else if key.value == "sidecar.istio.io/inject" {
            value.note(
                "SC050",
                "prefer the label `sidecar.istio.io/inject`: the annotation alone injects nothing",
            );
        }
    }
    if let Some(max) = max
        && scale.max > 0
        && scale.max < scale.min
    {
        max.error(E, format!("max-scale={} is less than min-scale={}", scale.max, scale.min));
    }
    Annotations { scale, holding, idle: idle.meaning(), local_command: command }
}

fn starting(value: &Cursor<'_>, scale: &mut Scale) {
    let Some(text) = value.text() else { return };
    match count(text, 0) {
        Ok(most) => scale.starting = most,
        Err(Fault::Wrong(message) | Fault::Idle(message)) => value.error(E, message),
    }
}

/// An annotation of ours that means nothing.
fn unknown(name: &str, value: &Cursor<'_>) {
    let message = format!("unknown annotation \"{}{name}\"", holding::PREFIX);
    let own = [LOCAL_COMMAND, STARTING].into_iter().filter_map(|key| key.strip_prefix(holding::PREFIX));
    let keys = [&holding::KEYS[..], &idle::KEYS[..]].concat();
    let help = match nearest(name, keys.iter().copied().chain(own)) {
        Some(near) => format!("did you mean `{}{near}`?", holding::PREFIX),
        None => format!("known here: {LOCAL_COMMAND}, {STARTING}, {}{}", holding::PREFIX, keys.join(", ")),
    };
    value.warn_with_help("IST0108", message, help);
}

fn known(name: &str, value: &Cursor<'_>) -> Option<&'static str> {
    if let Some((key, _)) = KEYS.iter().find(|(key, _)| *key == name) {
        return Some(key);
    }
    if let Some((key, _)) = KEYS.iter().find(|(_, old)| !old.is_empty() && *old == name) {
        let message = format!("{PREFIX}{name} is the old name of an annotation");
        value.warn_with_help("IST0002", message, format!("write {PREFIX}{key} instead"));
        return Some(key);
    }
    let message = format!("unknown annotation \"{PREFIX}{name}\"");
    match nearest(name, KEYS.iter().map(|(key, _)| *key)) {
        Some(near) => value.warn_with_help("IST0108", message, format!("did you mean `{PREFIX}{near}`?")),
        None => value.warn("IST0108", message),
    }
    None
}

fn one(name: &str, value: &Cursor<'_>, scale: &mut Scale) {
    let Some(text) = value.text() else { return };
    match set(name, text, scale) {
        Ok(()) => {}
        Err(Fault::Wrong(message)) => value.error(E, message),
        Err(Fault::Idle(what)) => value.warn("SC007", format!("{what} does not act yet")),
    }
}

/// The annotations again, over other defaults. What is wrong with them was told when they were read.
pub(crate) fn over(defaults: &Scale, annotations: &[(At<String>, At<String>)]) -> Scale {
    let mut scale = defaults.clone();
    let named = |wanted: &str| {
        let is = |key: &str| !wanted.is_empty() && key.strip_prefix(PREFIX) == Some(wanted);
        annotations.iter().find(|(key, _)| is(&key.value)).map(|(_, value)| value.value.as_str())
    };
    for (key, old) in KEYS {
        if let Some(text) = named(key).or_else(|| named(old)) {
            // What is wrong leaves what was.
            let _ = set(key, text, &mut scale);
        }
    }
    let starting = annotations.iter().find(|(key, _)| key.value == STARTING);
    scale.starting = starting.and_then(|(_, value)| count(&value.value, 0).ok()).unwrap_or_default();
    scale
}

/// Why a value is not taken.
pub(super) enum Fault {
    /// It is wrong.
    Wrong(String),
    /// It is known and does nothing here.
    Idle(String),
}

/// Takes one value.
fn set(name: &str, text: &str, scale: &mut Scale) -> Result<(), Fault> {
    let hour = Duration::from_secs(3600);
    match name {
        "min-scale" => scale.min = count(text, 0)?,
        "max-scale" => scale.max = count(text, 0)?,
        "initial-scale" => scale.initial = count(text, 0)?,
        "activation-scale" => scale.activation = count(text, 2)?,
        "window" => scale.window = length(text, (Duration::from_secs(6), hour))?,
        "scale-down-delay" => scale.down_delay = length(text, (Duration::ZERO, hour))?,
        "scale-to-zero-pod-retention-period" => {
            scale.retention = length(text, (Duration::ZERO, Duration::MAX))?;
        }
        "target" => scale.target = Some(target(text)?),
        "class" if text == "kpa.autoscaling.knative.dev" => {}
        "class" => return Err(Fault::Idle(format!("autoscaling class {text:?}"))),
        "metric" => match text {
            "concurrency" => scale.metric = Metric::Concurrency,
            "rps" => scale.metric = Metric::Rps,
            "cpu" | "memory" => return Err(Fault::Idle(format!("scaling by {text}"))),
            _ => {
                let message = format!("invalid metric {text:?}; known: concurrency, rps, cpu, memory");
                return Err(Fault::Wrong(message));
            }
        },
        "target-utilization-percentage" => scale.utilization = percent(text, (1.0, 100.0))?,
        "target-burst-capacity" => scale.burst_capacity = burst(text)?,
        "panic-window-percentage" => scale.panic_window = percent(text, (1.0, 100.0))?,
        "panic-threshold-percentage" => scale.panic_threshold = percent(text, (110.0, 1000.0))?,
        "metric-aggregation-algorithm" => match text {
            "linear" => scale.aggregation = Aggregation::Linear,
            "weighted-exponential" => scale.aggregation = Aggregation::WeightedExponential,
            _ => {
                let message = format!("invalid algorithm {text:?}; known: linear, weighted-exponential");
                return Err(Fault::Wrong(message));
            }
        },
        _ => return Err(Fault::Idle("an algorithm of another autoscaler".to_owned())),
    }
    Ok(())
}

/// A finite number that `good` likes; `wanted` says which.
pub(super) fn number(text: &str, good: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, Fault> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && good(number) => Ok(number),
        _ => Err(Fault::Wrong(format!("{text} should be {wanted}"))),
    }
}

pub(super) fn target(text: &str) -> Result<f64, Fault> {
    number(text, |target| target >= 0.01, "at least 0.01")
}

pub(super) fn burst(text: &str) -> Result<f64, Fault> {
    number(text, |burst| burst >= 0.0 || burst == -1.0, "-1 or at least 0")
}

/// A percentage within bounds, as a fraction.
pub(super) fn percent(text: &str, (min, max): (f64, f64)) -> Result<f64, Fault> {
    match text.parse::<f64>() {
        Ok(percent) if (min..=max).contains(&percent) => Ok(percent / 100.0),
        _ => Err(Fault::Wrong(format!("expected {min} <= {text} <= {max}"))),
    }
}

pub(super) fn count(text: &str, min: u32) -> Result<u32, Fault> {
    let max = i32::MAX.unsigned_abs();
    match text.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Fault::Wrong(format!("expected {min} <= {text} <= {max}"))),
    }
}

pub(super) fn length(text: &str, (min, max): (Duration, Duration)) -> Result<Duration, Fault> {
    match units::duration(text) {
        Ok(length) if (min..=max).contains(&length) => Ok(length),
        Ok(_) if max == Duration::MAX => {
            Err(Fault::Wrong(format!("{text} should be at least {}s", min.as_secs())))
        }
        Ok(_) => Err(Fault::Wrong(format!("expected {}s <= {text} <= {}s", min.as_secs(), max.as_secs()))),
        Err(message) => Err(Fault::Wrong(message)),
    }
}

fn local_command(value: &Cursor<'_>) -> Option<At<Vec<String>>> {
    let text = value.text()?;
    match shlex::split(text) {
        Some(words) if !words.is_empty() && !text.contains('\0') => Some(At::new(words, value.at())),
        Some(_) => {
            value.error(E, "the command is empty");
            None
        }
        None => {
            value.error_with_help(
                E,
                "a quote is not closed",
                "the command is split into words as a shell would",
            );
            None
        }
    }
}
