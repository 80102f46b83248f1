//! What the system says about this process, its memory and its disk.

use std::path::Path;

use crate::config::Config;

/// Resident memory of this process in bytes.
pub(super) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Free bytes on the disk of the data folder.
pub(super) fn disk_free(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |s| s.f_bavail * s.f_frsize)
}

/// Resident memory above which publishers are held back.
pub(super) fn memory_limit(config: &Config) -> u64 {
    let m = &config.memory;
    if m.high_watermark_bytes.0 != 0 {
        return m.high_watermark_bytes.0;
    }
    memory_total().map_or(u64::MAX, |bytes| {
        (bytes as f64 * m.high_watermark_relative) as u64
    })
}

/// The alarms that cannot be raised, as the system does not say what they are about.
pub(super) fn no_alarms(resident: u64, limit: u64, free: u64) -> Vec<&'static str> {
    let unknown = [
        (resident == 0 || limit == u64::MAX, "memory"),
        (free == u64::MAX, "disk"),
    ];
    let unknown = unknown.into_iter().filter(|(unknown, _)| *unknown);
    unknown.map(|(_, what)| what).collect()
}

/// Bytes of memory that there are for this process: the machine's, or less if its control group may
/// not have more. A container that takes its machine's memory for its own is killed before it raises an
/// alarm.
pub(super) fn memory_total() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let allowed = group_limit(Path::new("/sys/fs/cgroup"), &groups);
    Some(allowed.unwrap_or(u64::MAX).min(kib * 1024))
}

/// The least that a control group of this process, or one that it is in, may have, in bytes. `groups` is
/// `/proc/self/cgroup`; in a container it may name folders that are not to be seen there, but the
/// container's own is always at the top.
fn group_limit(mounted: &Path, groups: &str) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (top, file) = if controllers.is_empty() {
            (mounted.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            (mounted.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = top.join(path.trim_start_matches('/'));
        let within = group.ancestors().take_while(|a| a.starts_with(&top));
        for folder in within {
            // No file, or `max`: no limit there.
            let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            if let Ok(bytes) = text.trim().parse::<u64>() {
                least = Some(least.map_or(bytes, |l: u64| l.min(bytes)));
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn the_least_of_all_groups_above_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        let groups = "0::/system.slice/leveret.service\n";
        assert_eq!(group_limit(root, groups), None);
        put(root, "system.slice/leveret.service/memory.max", "max\n");
        assert_eq!(group_limit(root, groups), None);
        put(root, "system.slice/memory.max", "2147483648\n");
        assert_eq!(group_limit(root, groups), Some(2 << 30));
        put(
            root,
            "system.slice/leveret.service/memory.max",
            "536870912\n",
        );
        assert_eq!(group_limit(root, groups), Some(512 << 20));
    }

    #[test]
    fn a_container_finds_its_own_at_the_top() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        put(root, "memory.max", "1073741824\n");
        assert_eq!(group_limit(root, "0::/\n"), Some(1 << 30));
        assert_eq!(
            group_limit(root, "0::/../seen/from/outside\n"),
            Some(1 << 30)
        );
        // Version 1, where each controller has a tree, and "no limit" is a large number.
        put(root, "memory/memory.limit_in_bytes", "268435456\n");
        put(
            root,
            "memory/docker/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        let groups = "5:cpu,memory:/docker/1234\n3:cpuset:/\n1:name=systemd:/\nno line\n";
        assert_eq!(group_limit(root, groups), Some(256 << 20));
    }

    #[test]
    fn this_process_has_memory_and_a_disk() {
        let (used, total) = (resident_bytes(), memory_total().expect("Linux"));
        assert!(used > 0 && used < total);
        assert!(disk_free(Path::new("/")) > 0);
        assert_eq!(disk_free(Path::new("/no such folder")), u64::MAX);
    }

    #[test]
    fn what_the_system_does_not_say_is_known() {
        assert!(no_alarms(1, 2, 3).is_empty());
        assert_eq!(no_alarms(0, 2, u64::MAX), ["memory", "disk"]);
        assert_eq!(no_alarms(1, u64::MAX, 3), ["memory"]);
    }
}
