//! The database: a log of sessions, commands and metrics, and the accounts.
//!
//! ```text
//!  log() ─────────► queue ──► writer thread ──► SQLite (WAL)
//!  create_user() ───► │            │ commits in batches      ▲
//!                     └ bounded    └ retries, then loses     │
//!  user_by_email() ──────────────► reader ───────────────────┘
//! ```
//!
//! One thread owns the writing connection and commits in batches. Log records are queued without
//! waiting; only calls that need an answer wait. If the database cannot be written, log records are
//! dropped after a while, and nothing else fails.

mod accounts;
pub(crate) mod api_keys;
pub mod archive;
pub(crate) mod audit;
mod batch;
mod bounds;
pub mod data_directory;
mod database;
mod error;
pub(crate) mod groups;
mod health;
mod jobs;
mod migrations;
mod queue;
mod reader;
mod record;
pub mod snapshots;
pub(crate) mod users;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use accounts::Accounts;
pub use api_keys::{ApiKey, Holder, NewApiKey};
pub use audit::AuditEntry;
pub use data_directory::{
    DataDirectory, DataDirectoryError, DataDirectoryProbe, DataDirectoryView,
};
pub(crate) use database::with_suffix;
pub(crate) use error::QueryError;
pub use error::StoreError;
pub use jobs::{JobFilter, JobRetention, StoredJob};
pub use record::{CommandFilter, LogRecord};
pub use users::{NewUser, User};

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use bounds::Bounds;
use database::Database;
use health::Health;
use queue::{Barrier, Pushed, Queue};
use reader::Reader;
use writer::Writer;

/// Creates the database at `path`, or migrates an existing one.
///
/// # Errors
/// [`StoreError::Database`] names the file and the remedy.
pub fn create(path: &Path) -> Result<(), StoreError> {
    Database::create(path, Bounds::default()).map(drop)
}

/// A handle to the database; cheap to clone. Dropping the last one commits the queue and ends the
/// writer.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    health: Arc<Health>,
    reader: Arc<Reader>,
    filter: CommandFilter,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or creates the database, migrates it, and starts the writer.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the file is not an SQLite database, belongs to another program
    /// or a later release, is locked or not writable. The file is not changed.
    pub fn open(path: &Path, filter: CommandFilter) -> Result<Self, StoreError> {
        Self::open_bounded(path, filter, Bounds::default())
    }

    pub(crate) fn open_bounded(
        path: &Path,
        filter: CommandFilter,
        bounds: Bounds,
    ) -> Result<Self, StoreError> {
        let database = Database::create(path, bounds)?;
        let queue = Arc::new(Queue::new(bounds));
        let health = Arc::new(Health::new(path));
        let reader = Arc::new(Reader::new(path, database.identity(), bounds));
        let writer = Writer::new(
            database,
            Arc::clone(&queue),
            Arc::clone(&health),
            Arc::clone(&reader),
            bounds,
        );
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::new(path, format!("no writer thread: {error}")))?;
        let writer = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { queue, health, reader, filter, writer }) })
    }

    /// Closes the rows that a crashed server left `active`. Returns their number. Their end is the
    /// time of their last activity.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close_stale_sessions(&self, reason: &'static str) -> Result<usize, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push_barrier(Barrier::CloseStale { reason, reply });
        self.answered(answer).await
    }

    /// Returns the last use of each active session in Unix seconds.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn active_sessions(&self) -> Result<HashMap<String, f64>, StoreError> {
        self.read(|connection| {
            let mut rows = connection.prepare(
                "SELECT session_id, COALESCE(last_activity, created_at) FROM sessions
                 WHERE status = 'active' AND destroyed_at IS NULL",
            )?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .await
    }

    /// Returns whether the filter admits this command.
    #[must_use]
    pub fn logs_command(&self, name: &str) -> bool {
        self.inner.filter.admits(name)
    }

    /// Queues `record`; never blocks. If the queue is full, the record is dropped and counted (see
    /// [`Store::lost_records`]).
    pub fn log(&self, record: LogRecord) {
        if let LogRecord::Command { name, .. } = &record
            && !self.inner.filter.admits(name)
        {
            return;
        }
        match self.inner.queue.push_record(record.shortened()) {
            Pushed::Queued => {}
            Pushed::Full => {
                self.inner.health.report_failure("records arrive faster than they can be written");
                self.inner.health.count_lost(1);
            }
            Pushed::Closed => self.inner.health.count_lost(1),
        }
    }

    /// Writes an audit entry to the database and to the server's log.
    pub fn log_audit(&self, entry: AuditEntry) {
        let AuditEntry { actor, action, subject, detail } = &entry;
        tracing::info!(actor, action, subject, detail, "audit");
        self.log(LogRecord::Audit(entry));
    }

    /// Returns the number of records dropped since the store was opened.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.inner.health.lost()
    }

    /// Returns the number of records that wait for the writer.
    #[must_use]
    pub fn queued_records(&self) -> usize {
        self.inner.queue.records()
    }

    /// Returns the size of the database and its write-ahead log in bytes; `None` if there is no
    /// database at its path. Blocks on the disk.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        let path = self.inner.reader.path();
        let log = path.with_file_name({
            let mut name = path.file_name()?.to_owned();
            name.push("-wal");
            name
        });
        let size = |path: &Path| path.metadata().ok().map(|metadata| metadata.len());
        Some(size(path)? + size(&log).unwrap_or(0))
    }

    /// Waits until all queued records are committed or dropped.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push_barrier(Barrier::Flush { reply });
        // An error means that the writer has ended, and that the queue is empty.
        let _ = answer.await;
    }

    /// Creates an account.
    ///
    /// # Errors
    /// [`StoreError::EmailTaken`], also if the address differs in case only.
    pub async fn create_user(&self, user: NewUser) -> Result<User, StoreError> {
        self.change(move |transaction| users::create(transaction, user)).await
    }

    /// Returns the account with this address. Case is ignored; an exact match comes first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        let email = email.to_owned();
        self.read(move |connection| users::by_email(connection, &email)).await
    }

    /// Returns the account with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_by_id(&self, id: i64) -> Result<Option<User>, StoreError> {
        self.read(move |connection| users::by_id(connection, id)).await
    }

    /// Returns the ids, as text, of the students who share a group with this account.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn students_of(&self, id: i64) -> Result<HashSet<String>, StoreError> {
        self.read(move |connection| groups::students_of(connection, id)).await
    }

    /// Stores an API key. Returns `None` if the holder already has `limit` keys.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn create_api_key(
        &self,
        key: NewApiKey,
        limit: usize,
    ) -> Result<Option<ApiKey>, StoreError> {
        self.change(move |transaction| Ok(api_keys::insert(transaction, &key, limit)?)).await
    }

    /// Returns the API key with this prefix, unless it is revoked.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn api_key(&self, prefix: &str) -> Result<Option<ApiKey>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| api_keys::by_prefix(connection, &prefix)).await
    }

    /// Returns a user's API keys that are not revoked, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn api_keys_of(
        &self,
        mode: &'static str,
        user_id: &str,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let user_id = user_id.to_owned();
        self.read(move |connection| api_keys::of_user(connection, mode, &user_id)).await
    }

    /// Revokes an API key. Returns whether it existed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_api_key(&self, id: i64) -> Result<bool, StoreError> {
        self.change(move |transaction| Ok(api_keys::revoke(transaction, id)?)).await
    }

    /// Stores a job, before it is accepted. Returns the session's job with the same idempotency key
    /// instead, if there is one. The write begins at once, before those that are asked for later.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn insert_job(
        &self,
        job: StoredJob,
    ) -> impl Future<Output = Result<Option<StoredJob>, StoreError>> + Send + use<> {
        self.change(move |transaction| Ok(jobs::insert(transaction, &job)?))
    }

    /// Stores a job's new state. The write begins at once, as [`Self::insert_job`]'s does.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn update_job(
        &self,
        job: StoredJob,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.change(move |transaction| Ok(jobs::update(transaction, &job)?))
    }

    /// Returns the jobs that are not done, in their order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn open_jobs(&self) -> Result<Vec<StoredJob>, StoreError> {
        self.read(jobs::not_done).await
    }

    /// Returns jobs without their commands, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn jobs(&self, filter: JobFilter) -> Result<Vec<StoredJob>, StoreError> {
        self.read(move |connection| jobs::list(connection, &filter)).await
    }

    /// Returns a session's job without its command.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn job(&self, session: &str, job: &str) -> Result<Option<StoredJob>, StoreError> {
        let (session, job) = (session.to_owned(), job.to_owned());
        self.read(move |connection| jobs::find(connection, &session, &job)).await
    }

    /// Removes a job that is done. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn remove_job(&self, session: &str, job: &str) -> Result<bool, StoreError> {
        let (session, job) = (session.to_owned(), job.to_owned());
        self.change(move |transaction| Ok(jobs::remove(transaction, &session, &job)?)).await
    }

    /// Removes all jobs of a session. The write begins at once, as [`Self::insert_job`]'s does.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_jobs_of(
        &self,
        session: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let session = session.to_owned();
        self.change(move |transaction| Ok(jobs::remove_all(transaction, &session)?))
    }

    /// Removes a session's jobs that are not kept any more, and returns their ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn expire_jobs(
        &self,
        session: &str,
        retention: JobRetention,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send + use<> {
        let session = session.to_owned();
        self.change(move |transaction| Ok(jobs::expire(transaction, &session, retention)?))
    }

    /// Checks that the database can be read and written. Writes one page.
    ///
    /// # Errors
    /// [`StoreError::Database`] with the reason.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.write(|connection| Ok(migrations::touch(connection)?)).await
    }

    /// Commits the queue and ends the writer. Later records are dropped, later calls fail.
    pub async fn close(&self) {
        self.inner.queue.close();
        let Some(thread) = self.inner.take_writer() else { return };
        // The thread ends within `patience_when_awaited`. A panic was reported by the panic hook.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    /// Runs `work` in one transaction, whether or not the result is waited for.
    fn change<T, W>(
        &self,
        work: W,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Transaction<'_>) -> Result<T, QueryError> + Send + 'static,
    {
        self.write(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// Runs `work` on the writer thread, whether or not the result is waited for.
    fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> Result<T, QueryError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let reader = Arc::clone(&self.inner.reader);
        self.inner.queue.push_call(Box::new(move |connection| {
            let done = connection
                .and_then(|connection| work(connection).map_err(|error| error.at(reader.path())));
            // The caller may have gone.
            let _ = reply.send(done);
        }));
        let reader = Arc::clone(&self.inner.reader);
        async move { answer.await.unwrap_or_else(|_| Err(reader.error("it is closed"))) }
    }

    async fn read<T, Q>(&self, query: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: Fn(&rusqlite::Connection) -> rusqlite::Result<T> + Send + Sync + 'static,
    {
        let query = Arc::new(query);
        for may_renew in [true, false] {
            let (reader, query) = (Arc::clone(&self.inner.reader), Arc::clone(&query));
            let outcome = tokio::task::spawn_blocking(move || reader.read(query.as_ref()))
                .await
                .map_err(|error| self.inner.reader.error(format!("the read failed: {error}")))?;
            match outcome {
                // The file was deleted. Only the writer may create a new one.
                Err(_) if may_renew && !self.inner.reader.is_in_place() => self.check().await?,
                outcome => return outcome,
            }
        }
        Err(self.inner.reader.error("the file is deleted repeatedly"))
    }

    async fn answered<T>(
        &self,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        answer.await.unwrap_or_else(|_| Err(self.inner.reader.error("it is closed")))
    }
}

impl Inner {
    fn take_writer(&self) -> Option<JoinHandle<()>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.take_writer() {
            let _ = thread.join();
        }
    }
}
