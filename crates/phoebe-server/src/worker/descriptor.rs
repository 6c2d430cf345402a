//! Owned descriptors under the runtime's watch: the one place that vouches for the runtime's demand
//! on them.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
#[allow(unsafe_code, reason = "the safe constructors accept any type and are deprecated for it")]
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the `OwnedFd`, which is open, gives the same number at each call,
    // and is closed by nobody else as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn sees_data_and_lets_go_of_the_descriptor() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let watched = watch(read, Interest::READABLE).unwrap();
        std::fs::File::from(write).write_all(b"x").unwrap();
        assert!(watched.readable().await.unwrap().ready().is_readable());
        // Taken back and dropped, the number may be used again and watched again.
        drop(watched.into_inner());
        let (read, _write) = rustix::pipe::pipe().unwrap();
        watch(read, Interest::READABLE).unwrap();
    }
}
