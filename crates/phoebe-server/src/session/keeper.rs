//! A session's files: every write and read of them, one after the other and off the driver's thread. It decides nothing.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::store::snapshots::SessionFolder;

type Job = Box<dyn FnOnce(&mut SessionFolder) + Send>;

/// Does a session's file work in the order in which it is given. When the last handle is gone, what was given is still done.
#[derive(Clone)]
pub(super) struct Keeper {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Keeper {
    /// Works on `folder`.
    pub(super) fn new(folder: SessionFolder) -> Self {
        let (jobs, given) = mpsc::unbounded_channel();
        tokio::spawn(work(folder, given));
        Self { jobs }
    }

    /// Gives a job; what it returns can be waited for, and need not be. One that panics gives an
    /// error, and the next one is done all the same.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |folder| {
            let _nobody_waits = done.send(job(folder));
        });
        let gone = || io::Error::other("a job on the session's files has failed");
        let given = self.jobs.send(job).map_err(|_| gone());
        Box::pin(async move {
            given?;
            result.await.map_err(|_| gone())
        })
    }
}

async fn work(mut folder: SessionFolder, mut given: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = given.recv().await {
        let done = tokio::task::spawn_blocking(move || {
            // What it leaves half done is as after a failed write: the next job goes on from there.
            let outcome = catch_unwind(AssertUnwindSafe(|| job(&mut folder)));
            (folder, outcome)
        });
        // Only a runtime that shuts down takes no such work.
        let Ok((back, outcome)) = done.await else { return };
        folder = back;
        if outcome.is_err() {
            error!(folder = %folder.path().display(), "a job on a session's files panicked");
        }
    }
}

/// File work whose end the driver waits for beside everything else.
pub(super) struct Pending<T> {
    work: futures::stream::FuturesOrdered<BoxFuture<'static, T>>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { work: futures::stream::FuturesOrdered::new() }
    }
}

impl<T> Pending<T> {
    pub(super) fn push(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.work.push_back(work.boxed());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// The next that is done; for ever if there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> T {
        match futures::StreamExt::next(&mut self.work).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::snapshots::{Rules, SessionRecord, SnapshotStore};

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_and_the_next_ones_are_done() {
        let root = tempfile::tempdir().unwrap();
        let rules = Rules { fsync: false, history: 1 };
        let store = SnapshotStore::open(root.path(), rules).unwrap();
        let keeper = Keeper::new(store.session("a"));
        let record = SessionRecord { session_id: "a".to_owned(), ..SessionRecord::default() };

        let panicked = keeper.run::<()>(|_| panic!("as a test wants it"));
        let written = keeper.run({
            let record = record.clone();
            move |folder| folder.write_record(&record)
        });

        assert!(panicked.await.is_err());
        written.await.unwrap().unwrap();
        assert_eq!(store.session("a").record().unwrap(), record);
    }
}
