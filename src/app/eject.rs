//! Endpoints that were left out for their errors come back: when their time is over, and when a reload has taken away
//! the rule they were left out by.

use crate::cluster::Members;
use crate::snapshot::Snapshot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Looks at each cluster at its own interval; `swept` is when that was done last. To be called every second.
pub(super) fn sweep(snapshot: &Snapshot, swept: &mut HashMap<Arc<str>, Instant>, now: Instant) {
    swept.retain(|name, _| snapshot.destinations.contains_key(name));
    // Clusters of one function have the same members, and one of them may have a rule where another has none.
    let mut ruled: HashSet<*const Members> = HashSet::new();
    let tell = |name: &str, back: usize| {
        if back > 0 {
            tracing::info!(cluster = %name, back, "ejected endpoints taken back");
        }
    };
    for (name, destination) in &snapshot.destinations {
        let cluster = &destination.cluster;
        let Some(outlier) = &cluster.policy.outlier else { continue };
        ruled.insert(Arc::as_ptr(&cluster.members));
        let last = swept.entry(name.clone()).or_insert(now);
        if now.saturating_duration_since(*last) >= outlier.interval {
            *last = now;
            tell(name, cluster.members.sweep(now, outlier.interval));
        }
    }
    for (name, destination) in &snapshot.destinations {
        let members = &destination.cluster.members;
        if destination.cluster.policy.outlier.is_none() && !ruled.contains(&Arc::as_ptr(members)) {
            tell(name, members.forgive());
        }
    }
}
