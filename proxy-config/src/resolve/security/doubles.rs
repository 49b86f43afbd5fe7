//! PeerAuthentications of one level for the same workloads, of which only one can count.

use crate::api::istio::PeerAuthentication;
use crate::report::{Level, Problem};

/// Of several the oldest counts; files know no age, so the first in their order.
pub(super) fn check(all: &[&PeerAuthentication], problems: &mut Vec<Problem>) {
    for (i, peer) in all.iter().enumerate() {
        let same = |other: &&&PeerAuthentication| {
            other.meta.object.namespace == peer.meta.object.namespace
                && other.selection.labels == peer.selection.labels
        };
        let Some(first) = all[..i].iter().find(same) else { continue };
        let message = format!(
            "{} ({}:{}) is for the same workloads and goes first; this one does not count",
            first.meta.object,
            first.meta.file.display(),
            first.meta.at.line
        );
        let help = "of several the oldest counts; files have no age, so the first of them is taken";
        let meta = &peer.meta;
        let problem = meta.problem(Level::Warning, "SC023", "spec", meta.name_at, message);
        problems.push(problem.with_help(help));
    }
}
