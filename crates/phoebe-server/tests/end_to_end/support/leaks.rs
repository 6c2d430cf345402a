//! What an ended server must not leave: processes, bound ports, files, `active` rows of sessions
//! that are not kept.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::ports::bound;
use super::process::ProcessInfo;
use super::server::TestServer;
use super::wait::until;

/// What may be in the data directory of a server that does not run.
const FILES: [&str; 9] = [
    "instance",
    "run",
    "server.lock",
    "sessions",
    "sessions.db",
    "sessions.db-shm",
    "sessions.db-wal",
    "passbands",
    "templates",
];

/// Fails if anything is left. `descendants` are the processes that lived below the server before
/// its end.
pub(super) async fn assert_none(server: &TestServer, descendants: &[ProcessInfo]) {
    until("no process of the server is left", Duration::from_secs(2), async || {
        let left = server.workers().is_empty() && !descendants.iter().any(still_lives);
        left.then_some(())
    })
    .await;
    assert_eq!(bound(server.port_pool()), [0u16; 0], "ports are still bound");
    let kept = server.kept_sessions().len();
    let active = usize::try_from(server.database().sessions_with_status("active")).unwrap();
    assert_eq!(active, kept, "rows are still active");
    for entry in fs::read_dir(server.data()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(FILES.iter().any(|known| name == *known), "{name:?} is left in the data directory");
    }
    assert_eq!(files_below(&server.data().join("run")), 0, "process records are left");
}

fn still_lives(before: &ProcessInfo) -> bool {
    ProcessInfo::read(before.pid)
        .is_some_and(|now| now.state != 'Z' && now.command_line == before.command_line)
}

fn files_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path()),
            false => 1,
        })
        .sum()
}
