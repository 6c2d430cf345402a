//! What a worker's processes cost in memory, from `/proc`.

use std::fs;

/// MiB of memory that process `pid` and all its descendants really cost: the sum of their
/// proportional set sizes, in which a page shared by n processes counts 1/n for each
/// (`proc_pid_smaps_rollup(5)`). `None` when the process is gone.
///
/// Walks page tables: some milliseconds for a worker. Not for an asynchronous thread.
pub(crate) fn proportional_set_size(pid: i32) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let own = kib_of(&rollup, "Pss:")? / 1024.0;
    let children: f64 = children(pid).into_iter().filter_map(proportional_set_size).sum();
    Some(own + children)
}

/// MiB of memory of process `pid` that belongs to no file (`proc_pid_status(5)`, `RssAnon`). `None`
/// when the process is gone.
pub(crate) fn anonymous_memory(pid: i32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib_of(&status, "RssAnon:").map(|kib| kib / 1024.0)
}

fn kib_of(fields: &str, name: &str) -> Option<f64> {
    let value = fields.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_this_process_and_nobody_else() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(proportional_set_size(own).unwrap() > 0.1);
        assert!(anonymous_memory(own).unwrap() > 0.1);
        assert!(proportional_set_size(i32::MAX).is_none());
        assert!(anonymous_memory(i32::MAX).is_none());
    }
}
