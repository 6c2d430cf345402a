//! Port ranges for worker pools that no other test uses, in this process or another one on this
//! machine.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Below the range from which the system takes ports for outgoing connections.
const FIRST: u16 = 12_000;
const LAST: u16 = 30_000;
/// Ranges begin at multiples of this.
const SLOT: u16 = 50;

/// A range of ports. It is ours while this lives.
#[derive(Debug)]
pub(crate) struct PortRange {
    range: Range<u16>,
    _claim: File,
}

impl PortRange {
    /// Claims `count` ports, all of them free now.
    pub(crate) fn claim(count: u16) -> Self {
        assert!(count <= SLOT, "a slot has {SLOT} ports");
        let folder = std::env::temp_dir().join("phoebe-server-test-ports");
        fs::create_dir_all(&folder).unwrap();
        // Other users of this machine run tests too. Only the folder's owner can say so.
        let _ = fs::set_permissions(&folder, Permissions::from_mode(0o1777));
        for start in (FIRST..LAST).step_by(usize::from(SLOT)) {
            let Ok(claim) = claim_file(&folder.join(start.to_string())) else { continue };
            if claim.try_lock().is_err() {
                continue;
            }
            let range = start..start + count;
            if bound(range.clone()).is_empty() {
                return Self { range, _claim: claim };
            }
        }
        panic!("no {count} free ports in a row between {FIRST} and {LAST}");
    }

    pub(crate) fn range(&self) -> Range<u16> {
        self.range.clone()
    }
}

/// The file whose lock is the claim: whoever can read it can lock it.
fn claim_file(path: &Path) -> io::Result<File> {
    File::open(path).or_else(|_| {
        File::create_new(path)?;
        File::open(path)
    })
}

/// Those of `ports` that something holds now.
pub(crate) fn bound(ports: Range<u16>) -> Vec<u16> {
    ports.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err()).collect()
}
