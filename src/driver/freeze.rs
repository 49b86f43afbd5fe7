//! Takes the processor from an instance, and gives it back.
//!
//! By its control group, where it has one of its own; that reaches all it started. Else by signals to its process
//! group, which nobody can catch and which need no permission, but do not reach a grandchild that left the group. The
//! end of the proxy is as sure as ever: SIGKILL ends what is stopped, either way.

use super::cgroup::Group;
use rustix::process::{Pid, Signal, kill_process_group};

/// Stops it. One that is gone already needs nothing.
pub(super) fn freeze(group: Pid, cgroup: Option<&Group>) {
    if !cgroup.is_some_and(Group::freeze) {
        let _ = kill_process_group(group, Signal::STOP);
    }
}

/// Lets it go on; it makes no difference to one that runs.
pub(super) fn thaw(group: Pid, cgroup: Option<&Group>) {
    if let Some(cgroup) = cgroup {
        cgroup.thaw();
    }
    let _ = kill_process_group(group, Signal::CONT);
}
