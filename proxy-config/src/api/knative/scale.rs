//! Annotations of a revision template: autoscaling, and what a local process runs.

use super::holding;
use crate::api::shape::nearest;
use crate::decode::Cursor;
use crate::model::{Holding, Scale};
use crate::report::At;
use crate::units;
use std::time::Duration;

/// Shell words of the command that serves on this host.
const LOCAL_COMMAND: &str = "pilotlight.dev/local-command";

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

/// Reads them all; those of others (Istio's, the user's) are left alone.
pub(super) fn annotations(map: &Cursor<'_>) -> (Scale, Holding, Option<At<Vec<String>>>) {
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
        } else if let Some(name) = key.value.strip_prefix(holding::PREFIX) {
            if holding::KEYS.contains(&name) {
                holding::one(name, &value, &mut holding);
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
    (scale, holding, command)
}

/// An annotation of ours that means nothing.
fn unknown(name: &str, value: &Cursor<'_>) {
    let message = format!("unknown annotation \"{}{name}\"", holding::PREFIX);
    let own = LOCAL_COMMAND.strip_prefix(holding::PREFIX);
    let help = match nearest(name, holding::KEYS.into_iter().chain(own)) {
        Some(near) => format!("did you mean `{}{near}`?", holding::PREFIX),
        None => format!("known here: {LOCAL_COMMAND}, {}{}", holding::PREFIX, holding::KEYS.join(", ")),
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
    let inert = |what: &str| value.warn("SC007", format!("{what} does not act yet"));
    match name {
        "min-scale" => scale.min = count(value, text, 0).unwrap_or(scale.min),
        "max-scale" => scale.max = count(value, text, 0).unwrap_or(scale.max),
        "initial-scale" => scale.initial = count(value, text, 0).unwrap_or(scale.initial),
        "activation-scale" => scale.activation = count(value, text, 2).unwrap_or(scale.activation),
        "window" => {
            let range = (Duration::from_secs(6), Duration::from_secs(3600));
            scale.window = length(value, text, range).unwrap_or(scale.window);
        }
        "scale-down-delay" => {
            let range = (Duration::ZERO, Duration::from_secs(3600));
            scale.down_delay = length(value, text, range).unwrap_or(scale.down_delay);
        }
        "scale-to-zero-pod-retention-period" => {
            let range = (Duration::ZERO, Duration::MAX);
            scale.retention = length(value, text, range).unwrap_or(scale.retention);
        }
        "target" => match text.parse::<f64>() {
            Ok(target) if target.is_finite() && target >= 0.01 => scale.target = target,
            _ => value.error(E, format!("target {text} should be at least 0.01")),
        },
        "class" if text == "kpa.autoscaling.knative.dev" => {}
        "class" => inert(&format!("autoscaling class {text:?}")),
        "metric" if text == "concurrency" => {}
        "metric" if matches!(text, "rps" | "cpu" | "memory") => inert(&format!("scaling by {text}")),
        "metric" => value.error(E, format!("invalid metric {text:?}; known: concurrency, rps, cpu, memory")),
        "target-utilization-percentage" => inert("a target utilisation"),
        "target-burst-capacity" => inert("a burst capacity"),
        "panic-window-percentage" | "panic-threshold-percentage" => inert("the panic window"),
        _ => inert("an aggregation algorithm"),
    }
}

fn count(value: &Cursor<'_>, text: &str, min: u32) -> Option<u32> {
    let max = i32::MAX.unsigned_abs();
    match text.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Some(number),
        _ => {
            value.error(E, format!("expected {min} <= {text} <= {max}"));
            None
        }
    }
}

fn length(value: &Cursor<'_>, text: &str, (min, max): (Duration, Duration)) -> Option<Duration> {
    match units::duration(text) {
        Ok(length) if (min..=max).contains(&length) => Some(length),
        Ok(_) if max == Duration::MAX => None,
        Ok(_) => {
            let message = format!("expected {}s <= {text} <= {}s", min.as_secs(), max.as_secs());
            value.error(E, message);
            None
        }
        Err(message) => {
            value.error(E, message);
            None
        }
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
