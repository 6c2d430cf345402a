//! The limits of every worker.

/// The size of a scratch directory in MiB.
pub(super) const SCRATCH_MB: u64 = 256;
/// Files that each process of a worker may hold open.
pub(super) const OPEN_FILES: u64 = 1024;
/// Processes and threads of a worker besides one for each core.
const PROCESSES: u64 = 64;

/// Returns the limit of processes and threads of a worker: its own threads, those of ZeroMQ, a
/// runner, and a helper for each core.
pub(in crate::worker) fn most_processes() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    cores + PROCESSES
}
