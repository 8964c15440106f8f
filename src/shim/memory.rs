//! Memory of processes, and what the kernel did when there was too little of it.

use std::fs;

/// Where a container sees the counters of its control group: version 2, then version 1 (cgroups(7)).
const COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Bytes of memory that are a process' own: what it shares as mapped files is the kernel's to drop. `proc_pid_status(5)`.
/// Nothing, for one that has ended.
#[must_use]
pub fn own_memory(pid: i32) -> u64 {
    own(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

fn own(status: &str) -> u64 {
    let kilobytes =
        |line: &str| line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    let counts = |line: &&str| line.starts_with("RssAnon:") || line.starts_with("RssShmem:");
    status.lines().filter(counts).filter_map(kilobytes).sum::<u64>() * 1024
}

/// Processes that the kernel killed in this control group for want of memory; `None` where it does not say.
pub(super) fn killed() -> Option<u64> {
    COUNTERS.iter().find_map(|path| count(&fs::read_to_string(path).ok()?))
}

fn count(counters: &str) -> Option<u64> {
    counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_are_not_the_process_own() {
        let status =
            "Name:\tx\nVmRSS:\t 9000 kB\nRssAnon:\t    100 kB\nRssFile:\t 8000 kB\nRssShmem:\t 20 kB\n";
        assert_eq!(own(status), 120 * 1024);
    }

    #[test]
    fn both_versions_of_control_groups_count_their_kills() {
        assert_eq!(count("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None, "Linux before 4.13");
    }
}
