//! Where the figures were taken: the machine, how busy it was, and the versions of all that took
//! part.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

/// A description to stand beside the figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// Server, PHOEBE, Python, NumPy, from `/system/info`.
    pub(crate) versions: Value,
    /// Load of one minute before the first measurement.
    pub(crate) load_before: f64,
    /// Load of one minute after the last: of the measurement itself, and of what else ran.
    pub(crate) load_after: f64,
    /// Unix seconds at the start of the run.
    pub(crate) taken_at: u64,
    /// Seconds that the run took.
    pub(crate) seconds: f64,
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processor's name.
pub(crate) fn processor() -> Result<String> {
    Ok(field("/proc/cpuinfo", "model name").unwrap_or_else(|_| std::env::consts::ARCH.to_owned()))
}

/// Memory in GiB.
pub(crate) fn memory_gib() -> Result<f64> {
    let text = field("/proc/meminfo", "MemTotal")?;
    let kib: f64 = text.trim_end_matches("kB").trim().parse()?;
    Ok(kib / f64::from(1 << 20))
}

/// The kernel's version.
pub(crate) fn kernel() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Load average of the last minute.
pub(crate) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split_ascii_whitespace().next().context("/proc/loadavg is empty")?;
    Ok(first.parse()?)
}

fn field(path: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(path)?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .with_context(|| format!("{path} has no {name}"))
}
