//! Waiting for conditions, with a deadline.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `probe` until it has an answer, and fails with `what` after `deadline`.
pub(crate) async fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asserts that `holds` holds now and for all of `duration`.
pub(crate) async fn stays(what: &str, duration: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < duration {
        assert!(holds().await, "no longer after {:?}: {what}", started.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
}
