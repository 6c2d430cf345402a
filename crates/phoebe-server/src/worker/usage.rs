//! What a worker's processes cost in memory, from `/proc`.

use std::fs;

/// MiB of memory that process `pid` and all its descendants really cost: the sum of their proportional set sizes, in which a page
/// shared by n processes counts 1/n for each (`proc_pid_smaps_rollup(5)`). `None` when the process is gone.
///
/// Walks page tables: some milliseconds for a worker. Not for an asynchronous thread.
pub(crate) fn proportional_set_size(pid: i32) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let children: f64 = children(pid).into_iter().filter_map(proportional_set_size).sum();
    Some(kib / 1024.0 + children)
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
        assert!(proportional_set_size(i32::MAX).is_none());
    }
}
