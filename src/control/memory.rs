//! How much memory this process and its functions may have and have: what the kernel counts for their control group
//! and those above it. Read a few times a second, on the control thread.

use crate::clock::Duration;
use crate::limit::Pressure;
use crate::telemetry::Metrics;
use std::fs;
use std::path::{Path, PathBuf};

/// Between looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where version 2 is mounted, alone or beside version 1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const OLD: &str = "/sys/fs/cgroup/memory";

/// The control groups that bound this process.
#[derive(Debug)]
pub struct Memory {
    groups: Vec<PathBuf>,
}

impl Memory {
    /// Of this process.
    pub fn own() -> Memory {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut groups = Vec::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let roots: &[&str] = match controllers {
                "" => &UNIFIED,
                _ if controllers.split(',').any(|name| name == "memory") => &[OLD],
                _ => continue,
            };
            for root in roots {
                // Within a container the group is the root of what is seen, whatever its path is called outside.
                let below = Path::new(root).join(path.trim_start_matches('/'));
                let up = below.ancestors().take_while(|group| group.starts_with(root));
                groups.extend(up.map(Path::to_owned));
            }
        }
        groups.retain(|group| limit(group).is_some());
        groups.dedup();
        Memory { groups }
    }

    /// Of the control group in this directory.
    pub fn of(group: &Path) -> Memory {
        Memory { groups: vec![group.to_owned()] }
    }

    /// Bytes in use and the most there may be, of the group that is nearest to its end; `None`: nothing bounds
    /// it. What the kernel can drop at once, files read long ago, is not in use.
    pub fn look(&self) -> Option<(u64, u64)> {
        let found = self.groups.iter().filter_map(|group| Some((used(group)?, limit(group)?)));
        found.max_by(|(a, most_a), (b, most_b)| {
            (u128::from(*a) * u128::from(*most_b)).cmp(&(u128::from(*b) * u128::from(*most_a)))
        })
    }

    /// Looks as long as it is awaited, and says when shedding begins and ends. Never ends.
    pub async fn watch(self, pressure: &Pressure, metrics: &Metrics, percent: u8) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some((used, most)) = self.look() else { continue };
            metrics.memory_used.set(i64::try_from(used).unwrap_or(i64::MAX));
            metrics.memory_limit.set(i64::try_from(most).unwrap_or(i64::MAX));
            let changed = if percent == 0 { None } else { pressure.look(used, most, percent) };
            metrics.shedding.set(pressure.sheds().into());
            match changed {
                Some(true) => tracing::warn!(used, limit = most, "memory is short: new requests get 503"),
                Some(false) => tracing::info!(used, limit = most, "memory suffices again"),
                None => {}
            }
        }
    }
}

/// `memory.max` or `memory.high`, whichever is less; the number of version 1 that means none is not taken.
fn limit(group: &Path) -> Option<u64> {
    let names = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    names.iter().filter_map(|name| number(&group.join(name))).filter(|bytes| *bytes < 1 << 60).min()
}

fn used(group: &Path) -> Option<u64> {
    let current =
        number(&group.join("memory.current")).or_else(|| number(&group.join("memory.usage_in_bytes")))?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let field =
        |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let idle = field("total_inactive_file ").or_else(|| field("inactive_file ")).unwrap_or(0);
    Some(current.saturating_sub(idle))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_is_nearest_to_its_end_counts_and_files_read_long_ago_do_not() {
        let root = std::env::temp_dir().join(format!("pilotlight-memory-{}", std::process::id()));
        let write = |group: &str, file: &str, text: &str| {
            fs::create_dir_all(root.join(group)).unwrap();
            fs::write(root.join(group).join(file), text).unwrap();
        };
        write("new", "memory.max", "1000\n");
        write("new", "memory.high", "max\n");
        write("new", "memory.current", "900\n");
        write("new", "memory.stat", "anon 100\ninactive_file 300\n");
        assert_eq!(Memory::of(&root.join("new")).look(), Some((600, 1000)));
        write("new", "memory.high", "800\n");
        assert_eq!(Memory::of(&root.join("new")).look(), Some((600, 800)));
        write("old", "memory.limit_in_bytes", "2000\n");
        write("old", "memory.usage_in_bytes", "1900\n");
        write("old", "memory.stat", "inactive_file 5\ntotal_inactive_file 100\n");
        let both = Memory { groups: vec![root.join("new"), root.join("old")] };
        assert_eq!(both.look(), Some((1800, 2000)));
        write("free", "memory.limit_in_bytes", "9223372036854771712\n");
        write("free", "memory.usage_in_bytes", "1\n");
        assert_eq!(Memory::of(&root.join("free")).look(), None);
        assert_eq!(Memory::of(&root.join("nowhere")).look(), None);
        fs::remove_dir_all(root).unwrap();
    }
}
