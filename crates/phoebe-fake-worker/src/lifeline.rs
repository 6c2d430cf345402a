//! The promise that no worker outlives the server, kept even by a worker that ignores signals.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process_group, setsid};

/// Makes this process a group leader and kills the whole group as soon as the other end of
/// `lifeline` closes.
pub(crate) fn arm(lifeline: Arc<OwnedFd>) {
    // Fails only where this process leads a group already, which is what is wanted.
    let _ = setsid();
    thread::spawn(move || {
        while let Err(Errno::INTR) = poll(&mut [PollFd::new(&*lifeline, PollFlags::empty())], None)
        {
        }
        let _ = kill_process_group(getpid(), Signal::KILL);
    });
}
