//! What processes cost in memory and file descriptors, from `/proc`: never the server's own word
//! for it.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// Memory of a process and its descendants in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Proportional set size: a page shared by n processes counts 1/n.
    pub(crate) pss: f64,
    /// Unique set size: what would be free again if it ended.
    pub(crate) uss: f64,
    /// Resident set size: all its pages, whoever else has them.
    pub(crate) rss: f64,
}

/// Memory of process `pid` alone.
pub(crate) fn of_process(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mebibytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        let value = value.and_then(|value| value.trim().strip_suffix("kB"));
        let kib: f64 = value.with_context(|| format!("{path} has no {name}"))?.trim().parse()?;
        anyhow::Ok(kib / 1024.0)
    };
    let uss = mebibytes("Private_Clean:")? + mebibytes("Private_Dirty:")?;
    Ok(Memory { pss: mebibytes("Pss:")?, uss, rss: mebibytes("Rss:")? })
}

/// Memory of process `pid` and all that descend from it.
pub(crate) fn of_tree(pid: i32) -> Result<Memory> {
    let mut sum = of_process(pid)?;
    for descendant in descendants(pid) {
        // One that has just ended costs nothing.
        let memory = of_process(descendant).unwrap_or_default();
        sum.pss += memory.pss;
        sum.uss += memory.uss;
        sum.rss += memory.rss;
    }
    Ok(sum)
}

/// All that descend from process `pid`, parents before children.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// How many file descriptors process `pid` has open.
pub(crate) fn descriptors(pid: i32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| path.clone())?.count())
}

/// The process that serves each local port, among those that descend from `pid`.
pub(crate) fn holders(pid: i32) -> Result<HashMap<u16, i32>> {
    let ports = local_ports(&fs::read_to_string("/proc/net/tcp")?);
    let mut found = HashMap::new();
    for pid in descendants(pid) {
        for port in sockets(pid).iter().filter_map(|inode| ports.get(inode)) {
            found.entry(*port).or_insert(pid);
        }
    }
    Ok(found)
}

/// Inode → local port of every socket in the text of `/proc/net/tcp` that listens or is connected:
/// a worker ceases to listen once its server is there.
fn local_ports(table: &str) -> HashMap<u64, u16> {
    const ESTABLISHED: &str = "01";
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, port) = fields.get(1)?.split_once(':')?;
        let inode = fields.get(9)?.parse().ok()?;
        let serves = [ESTABLISHED, LISTEN].contains(&fields[3]);
        serves.then_some((inode, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().filter_map(socket).collect()
}

fn sockets(pid: i32) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    descriptors
        .flatten()
        .filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found: Vec<i32> = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>()
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_costs_at_least_what_is_its_own() {
        let own = i32::try_from(std::process::id()).unwrap();
        let memory = of_process(own).unwrap();
        assert!(memory.uss > 0.0 && memory.uss <= memory.pss && memory.pss <= memory.rss);
    }

    #[test]
    fn sockets_that_serve_are_told_from_others() {
        let table = "  sl  local_address rem_address   st tx rx tr retrnsmt   uid  timeout inode
   0: 0100007F:19A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 x
   1: 0100007F:19A1 0100007F:0016 01 00000000:00000000 00:00000000 00000000  0  0 4712 1 x
   2: 0100007F:19A2 0100007F:0016 06 00000000:00000000 00:00000000 00000000  0  0 4713 1 x";
        assert_eq!(local_ports(table), HashMap::from([(4711, 6560), (4712, 6561)]));
    }
}
