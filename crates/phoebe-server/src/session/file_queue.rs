//! A session's files: every read and write of them, one after the other and off the driver's
//! thread. The queue is bounded; it decides nothing.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::error;

use super::state::WRITES_MAX;
use crate::store::snapshots::SessionFolder;

type Job = Box<dyn FnOnce(&mut SessionFolder) + Send>;

/// What the driver may have under way beside the work that its state machine counts: one running
/// command, one copy of the Bundle, what a new worker reads.
const RESERVE: usize = 16;
/// Jobs of others that may be in the queue at once; more wait outside.
const OTHERS_MAX: usize = 16;

/// Does a session's file jobs in the order in which it gets them. After the last handle is dropped
/// it still does the jobs that it has.
#[derive(Clone)]
pub(super) struct FileQueue {
    jobs: mpsc::Sender<Job>,
    others: Arc<Semaphore>,
}

impl FileQueue {
    /// A queue that works on `folder`.
    pub(super) fn new(folder: SessionFolder) -> Self {
        let (jobs, given) = mpsc::channel(WRITES_MAX + RESERVE + OTHERS_MAX);
        tokio::spawn(work(folder, given));
        Self { jobs, others: Arc::new(Semaphore::new(OTHERS_MAX)) }
    }

    /// Puts a job of the session's driver into the queue. Returns what it returns; it is done
    /// whether that is waited for or not.
    ///
    /// # Errors
    /// The job panicked, or the queue is full. The next job is done all the same.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |folder| {
            // The driver does not wait for every result.
            let _ = done.send(job(folder));
        });
        let given = self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::other("too many writes wait for the disk"),
            TrySendError::Closed(_) => job_failed(),
        });
        Box::pin(async move {
            given?;
            result.await.map_err(|_| job_failed())
        })
    }

    /// Does a job that others may ask for in any number, once few enough of those are in the
    /// queue.
    ///
    /// # Errors
    /// See [`Self::submit`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> io::Result<T> {
        let turn = Arc::clone(&self.others).acquire_owned().await.map_err(|_| job_failed())?;
        // Whoever leaves takes nothing out of the queue, so the turn stays with the job.
        let done = self.submit(move |folder| {
            let result = job(folder);
            drop(turn);
            result
        });
        done.await
    }
}

fn job_failed() -> io::Error {
    io::Error::other("a job on the session's files has failed")
}

async fn work(mut folder: SessionFolder, mut given: mpsc::Receiver<Job>) {
    while let Some(job) = given.recv().await {
        let done = tokio::task::spawn_blocking(move || {
            // A half-done job leaves the folder as a failed write does.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::snapshots::{Rules, SessionRecord, SnapshotStore};

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_and_the_next_ones_are_done() {
        let root = tempfile::tempdir().unwrap();
        let rules = Rules { fsync: false, history: 1 };
        let store = SnapshotStore::open(root.path(), rules).unwrap();
        let queue = FileQueue::new(store.session("a"));
        let record = SessionRecord { session_id: "a".to_owned(), ..SessionRecord::default() };

        let panicked = queue.submit::<()>(|_| panic!("on purpose"));
        let written = queue.submit({
            let record = record.clone();
            move |folder| folder.write_record(&record)
        });

        assert!(panicked.await.is_err());
        written.await.unwrap().unwrap();
        assert_eq!(store.session("a").record().unwrap(), record);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_for_its_driver_and_others_wait_outside() {
        let root = tempfile::tempdir().unwrap();
        let rules = Rules { fsync: false, history: 1 };
        let store = SnapshotStore::open(root.path(), rules).unwrap();
        let queue = FileQueue::new(store.session("a"));
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let blocked = queue.submit(move |_| wait.recv().unwrap());
        let others: Vec<_> = (0..6 * OTHERS_MAX)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.run(|_| ()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        // Half of them leave: their jobs stay, and let no more in.
        let mut gone = others;
        let others = gone.split_off(3 * OTHERS_MAX);
        gone.iter().for_each(tokio::task::JoinHandle::abort);
        tokio::task::yield_now().await;
        let (mut accepted, mut refused) = (Vec::new(), 0);
        for number in 0..4 * (WRITES_MAX + RESERVE + OTHERS_MAX) {
            let submitted = queue.submit(move |_| number);
            match futures::FutureExt::now_or_never(submitted) {
                Some(Err(_)) => refused += 1,
                _ => accepted.push(number),
            }
        }
        assert!(accepted.len() >= WRITES_MAX + RESERVE - 1, "{}", accepted.len());
        assert!(accepted.len() <= WRITES_MAX + RESERVE + OTHERS_MAX && refused > 0);
        go_on.send(()).unwrap();
        blocked.await.unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
    }
}
