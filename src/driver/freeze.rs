//! Takes the processor from a group of processes, and gives it back.
//!
//! By signals, which nobody can catch and which need no permission. A grandchild that left the group is not
//! reached. The end of the proxy is as sure as ever: SIGKILL ends what is stopped.

use rustix::process::{Pid, Signal, kill_process_group};

/// Stops the group. One that is gone already needs no signal.
pub(super) fn freeze(group: Pid) {
    let _ = kill_process_group(group, Signal::STOP);
}

/// Lets it go on; it makes no difference to one that runs.
pub(super) fn thaw(group: Pid) {
    let _ = kill_process_group(group, Signal::CONT);
}
