//! What must outlive a process: the SQLite log of sessions, commands, metrics and users.
//!
//! ```text
//!  log() ─────────► queue ──► writer thread ──► SQLite (WAL)
//!  create_user() ───► │            │ commits in batches      ▲
//!                     └ bounded    └ retries, then loses     │
//!  user_by_email() ──────────────► reader ───────────────────┘
//! ```
//!
//! One thread owns the writing connection and commits in batches. Log records are sent and forgotten: no request waits
//! for them; only calls whose answer depends on the database wait. A database that cannot be written costs log records,
//! after a bounded patience, and nothing else. Nothing here knows HTTP or processes.

mod accounts;
pub(crate) mod api_keys;
pub mod archive;
pub(crate) mod audit;
mod batch;
mod bounds;
pub mod data_directory;
mod database;
mod error;
mod fault;
mod filter;
pub(crate) mod groups;
mod health;
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
pub use audit::Deed;
pub use data_directory::{DataDirectory, DataDirectoryError, DataDirectoryView, Presence};
pub(crate) use database::with_suffix;
pub use error::StoreError;
pub(crate) use fault::Fault;
pub use filter::CommandFilter;
pub use record::LogRecord;
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

/// Creates the database at `path`, or brings one of an earlier form up to date.
///
/// # Errors
/// [`StoreError::Database`], naming the file and what to do.
pub fn create(path: &Path) -> Result<(), StoreError> {
    Database::create(path, Bounds::default()).map(drop)
}

/// Handle to the database; cheap to clone. When the last one is dropped, what is queued is committed and the writer ends.
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
    /// [`StoreError::Database`]: not SQLite, another program's, of a newer version, locked, not writable. The file is
    /// left as it was.
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

    /// Closes rows left `active` by a server that died; returns how many. Their end is the last moment in which they
    /// are known to have lived.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close_stale_sessions(&self, reason: &'static str) -> Result<usize, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push_barrier(Barrier::CloseStale { reason, reply });
        self.answered(answer).await
    }

    /// When each session that is not over was used last, in Unix seconds.
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

    /// Whether the filter lets this command into the log.
    #[must_use]
    pub fn logs_command(&self, name: &str) -> bool {
        self.inner.filter.admits(name)
    }

    /// Remembers `record`; never blocks. Dropped and counted when too many wait (see [`Store::lost_records`]).
    pub fn log(&self, record: LogRecord) {
        if let LogRecord::Command { name, .. } = &record
            && !self.inner.filter.admits(name)
        {
            return;
        }
        match self.inner.queue.push_record(record.shortened()) {
            Pushed::Queued => {}
            Pushed::Full => {
                self.inner.health.trouble("records arrive faster than they can be written");
                self.inner.health.lose(1);
            }
            Pushed::Closed => self.inner.health.lose(1),
        }
    }

    /// Logs what somebody did with another's things, in the database and in the server's log.
    pub fn log_deed(&self, deed: Deed) {
        let Deed { actor, action, subject, detail } = &deed;
        tracing::info!(actor, action, subject, detail, "audit");
        self.log(LogRecord::Deed(deed));
    }

    /// Records that could not be kept since the store was opened.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.inner.health.lost()
    }

    /// Waits until everything logged so far is committed (or has been reported as lost).
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push_barrier(Barrier::Flush { reply });
        // An error means that the writer has ended, and with it everything it had.
        let _ = answer.await;
    }

    /// Creates an account.
    ///
    /// # Errors
    /// [`StoreError::EmailTaken`], also when the address differs in case only.
    pub async fn create_user(&self, user: NewUser) -> Result<User, StoreError> {
        self.change(move |transaction| users::create(transaction, user)).await
    }

    /// The account with this address; upper and lower case count the same, an exact match first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        let email = email.to_owned();
        self.read(move |connection| users::by_email(connection, &email)).await
    }

    /// The account with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_by_id(&self, id: i64) -> Result<Option<User>, StoreError> {
        self.read(move |connection| users::by_id(connection, id)).await
    }

    /// Ids, as text, of the students who share a group with this account.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn students_of(&self, id: i64) -> Result<HashSet<String>, StoreError> {
        self.read(move |connection| groups::students_of(connection, id)).await
    }

    /// Keeps an API key; `None` if its holder has `limit` keys already.
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

    /// The API key with this public beginning, if it is not revoked.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn api_key(&self, prefix: &str) -> Result<Option<ApiKey>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| api_keys::by_prefix(connection, &prefix)).await
    }

    /// A user's API keys that are not revoked, oldest first.
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

    /// Ends an API key; returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_api_key(&self, id: i64) -> Result<bool, StoreError> {
        self.change(move |transaction| Ok(api_keys::revoke(transaction, id)?)).await
    }

    /// Whether the database can be read and written now. It writes one page.
    ///
    /// # Errors
    /// [`StoreError::Database`] with the reason.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.write(|connection| Ok(migrations::touch(connection)?)).await
    }

    /// Commits what is queued and ends the writer. Later records are lost, later calls fail.
    pub async fn close(&self) {
        self.inner.queue.close();
        let Some(thread) = self.inner.take_writer() else { return };
        // The thread ends within the patience of a batch that is awaited; a panic there was reported by the hook.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    /// Makes a change whole or not at all.
    async fn change<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.write(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    /// Has the writer do something, and waits for it.
    async fn write<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let reader = Arc::clone(&self.inner.reader);
        self.inner.queue.push_call(Box::new(move |connection| {
            let done = connection
                .and_then(|connection| work(connection).map_err(|fault| fault.at(reader.path())));
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(done);
        }));
        self.answered(answer).await
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
                // Deleted under the server: only the writer may make a new one.
                Err(_) if may_renew && !self.inner.reader.is_in_place() => self.check().await?,
                outcome => return outcome,
            }
        }
        Err(self.inner.reader.error("the file vanishes again and again"))
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
