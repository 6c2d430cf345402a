//! Processes as `/proc` shows them.

use std::fs;

/// The variable by which the server's Python processes are known as those of one data directory.
const INSTANCE_VARIABLE: &str = "PHOEBE_SERVER_INSTANCE";

/// A living process.
#[derive(Debug, Clone)]
pub(crate) struct ProcessInfo {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// `S`, `R`, `Z`, …
    pub(crate) state: char,
    pub(crate) command_line: String,
    environment: Vec<u8>,
}

impl ProcessInfo {
    /// Reads process `pid`; `None` when it is gone.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        Some(Self { pid, parent, state, command_line, environment })
    }

    /// Whether it carries the id of a data directory.
    pub(crate) fn is_of_instance(&self, instance: &str) -> bool {
        let entry = format!("{INSTANCE_VARIABLE}={instance}");
        self.environment.split(|byte| *byte == 0).any(|one| one == entry.as_bytes())
    }

    /// Its mode, the last argument: `zygote`, `spawn`, …
    pub(crate) fn mode(&self) -> &str {
        self.command_line.split_ascii_whitespace().next_back().unwrap_or_default()
    }
}

fn all() -> impl Iterator<Item = ProcessInfo> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(ProcessInfo::read)
        .filter(|process| process.state != 'Z')
}

/// All living processes that carry the id of a data directory.
pub(crate) fn processes_of_instance(instance: &str) -> Vec<ProcessInfo> {
    all().filter(|process| process.is_of_instance(instance)).collect()
}

/// All living processes below `ancestor`.
pub(crate) fn descendants(ancestor: i32) -> Vec<ProcessInfo> {
    let all: Vec<_> = all().collect();
    let mut found: Vec<ProcessInfo> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        for child in children {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}
