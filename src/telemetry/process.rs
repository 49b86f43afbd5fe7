//! What the process costs its host, under the names that every Prometheus client uses. Read from `/proc`
//! when somebody scrapes; what cannot be read is left out.

use super::access_log::Epoch;
use super::exposition::single;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::fs;

/// Linux counts CPU time for user space in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// The `process_*` metrics.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

impl Process {
    /// For a process that began at `epoch`.
    pub(super) fn new(epoch: Epoch) -> Process {
        Process { started: epoch.since_1970().as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => single(encoder, name, help, &ConstGauge::new(value)),
            None => Ok(()),
        };
        gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970",
            Some(self.started),
        )?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (resident, total) = (field(&status, "VmRSS:"), field(&status, "VmSize:"));
        gauge("process_resident_memory_bytes", "Memory in use", resident.map(|kib| kib * 1024.0))?;
        gauge("process_virtual_memory_bytes", "Address space in use", total.map(|kib| kib * 1024.0))?;
        gauge("process_threads", "Threads running", field(&status, "Threads:"))?;
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as f64).ok();
        gauge("process_open_fds", "File descriptors open", open)?;
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        gauge("process_max_fds", "File descriptors that may be open", most.map(|most| most as f64))?;
        match fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
            Some(used) => {
                let counter = ConstCounter::new(used);
                single(encoder, "process_cpu_seconds", "CPU time used, by user and system", &counter)
            }
            None => Ok(()),
        }
    }
}

/// The number behind `name` in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time in `/proc/self/stat`: fields 14 and 15, counted behind the name in parentheses,
/// which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 3 4 20 0 1 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (a"), None);
    }
}
