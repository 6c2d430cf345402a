//! Jobs: one row each, with the job as JSON and what rows are looked up by. A row keeps the
//! command until its job is done.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// A job as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredJob {
    /// The job's id; later jobs have greater ids.
    pub job_id: String,
    /// The session's id.
    pub session_id: String,
    /// The session's owner, if it has one.
    pub user_id: Option<String>,
    /// The state in one word.
    pub state: String,
    /// When it was done, in Unix seconds; `None` before.
    pub ended_at: Option<f64>,
    /// The client's name for the request.
    pub idempotency_key: Option<String>,
    /// The command's bytes, until the job is done.
    pub command: Option<Vec<u8>>,
    /// The job as JSON.
    pub record: String,
}

/// Which jobs a list has.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Of this session.
    pub session_id: Option<String>,
    /// Of this user's sessions.
    pub user_id: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// With a smaller id than this.
    pub before: Option<String>,
    /// So many at the most.
    pub limit: usize,
}

/// How long jobs are kept after they are done.
#[derive(Debug, Clone, Copy)]
pub struct JobRetention {
    /// Jobs that were done before, in Unix seconds, are removed.
    pub done_before: f64,
    /// Of one session so many are kept.
    pub count: usize,
    /// But those that were done after, in Unix seconds, are kept.
    pub recent_after: f64,
}

const COLUMNS: &str =
    "job_id, session_id, user_id, state, ended_at, idempotency_key, command, record";

/// Inserts a job. Returns the job of this session with the same idempotency key instead, if there
/// is one.
pub(super) fn insert(
    connection: &Connection,
    job: &StoredJob,
) -> rusqlite::Result<Option<StoredJob>> {
    if let Some(key) = &job.idempotency_key {
        let sql =
            format!("SELECT {COLUMNS} FROM jobs WHERE session_id = ?1 AND idempotency_key = ?2");
        let mut known = connection.prepare_cached(&sql)?;
        let known = known.query_row(params![job.session_id, key], read).optional()?;
        if known.is_some() {
            return Ok(known);
        }
    }
    let sql = format!("INSERT INTO jobs ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    connection.prepare_cached(&sql)?.execute(params![
        job.job_id,
        job.session_id,
        job.user_id,
        job.state,
        job.ended_at,
        job.idempotency_key,
        job.command,
        job.record,
    ])?;
    Ok(None)
}

/// Stores a job's new state. The command is dropped once it is done.
pub(super) fn update(connection: &Connection, job: &StoredJob) -> rusqlite::Result<()> {
    let sql = "UPDATE jobs SET state = ?2, ended_at = ?3, record = ?4,
                   command = CASE WHEN ?3 IS NULL THEN command END
               WHERE job_id = ?1";
    let fields = params![job.job_id, job.state, job.ended_at, job.record];
    connection.prepare_cached(sql)?.execute(fields).map(drop)
}

/// Returns the jobs that are not done, in their order.
pub(super) fn not_done(connection: &Connection) -> rusqlite::Result<Vec<StoredJob>> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE ended_at IS NULL ORDER BY job_id");
    connection.prepare_cached(&sql)?.query_map([], read)?.collect()
}

/// Returns jobs without their commands, newest first.
pub(super) fn list(
    connection: &Connection,
    filter: &JobFilter,
) -> rusqlite::Result<Vec<StoredJob>> {
    let sql = "SELECT job_id, session_id, user_id, state, ended_at, idempotency_key, NULL, record
               FROM jobs
               WHERE (?1 IS NULL OR session_id = ?1) AND (?2 IS NULL OR user_id = ?2)
                 AND (?3 IS NULL OR state = ?3) AND (?4 IS NULL OR job_id < ?4)
               ORDER BY job_id DESC LIMIT ?5";
    let JobFilter { session_id, user_id, state, before, limit } = filter;
    let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
    let fields = params![session_id, user_id, state, before, limit];
    connection.prepare_cached(sql)?.query_map(fields, read)?.collect()
}

/// Returns a session's job without its command.
pub(super) fn find(
    connection: &Connection,
    session: &str,
    job: &str,
) -> rusqlite::Result<Option<StoredJob>> {
    let sql = "SELECT job_id, session_id, user_id, state, ended_at, idempotency_key, NULL, record
               FROM jobs WHERE session_id = ?1 AND job_id = ?2";
    connection.prepare_cached(sql)?.query_row(params![session, job], read).optional()
}

/// Removes a job that is done. Returns whether there was one.
pub(super) fn remove(connection: &Connection, session: &str, job: &str) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM jobs WHERE session_id = ?1 AND job_id = ?2 AND ended_at IS NOT NULL";
    Ok(connection.prepare_cached(sql)?.execute(params![session, job])? > 0)
}

/// Removes all jobs of a session.
pub(super) fn remove_all(connection: &Connection, session: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM jobs WHERE session_id = ?1";
    connection.prepare_cached(sql)?.execute([session]).map(drop)
}

/// Removes a session's jobs that are not kept any more, and returns their ids.
pub(super) fn expire(
    connection: &Connection,
    session: &str,
    retention: JobRetention,
) -> rusqlite::Result<Vec<String>> {
    let sql = "DELETE FROM jobs WHERE session_id = ?1 AND ended_at < ?2
                 AND (ended_at < ?3 OR job_id NOT IN
                      (SELECT job_id FROM jobs WHERE session_id = ?1
                       ORDER BY job_id DESC LIMIT ?4))
               RETURNING job_id";
    let JobRetention { done_before, count, recent_after } = retention;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let fields = params![session, recent_after, done_before, count];
    connection.prepare_cached(sql)?.query_map(fields, |row| row.get(0))?.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredJob> {
    Ok(StoredJob {
        job_id: row.get(0)?,
        session_id: row.get(1)?,
        user_id: row.get(2)?,
        state: row.get(3)?,
        ended_at: row.get(4)?,
        idempotency_key: row.get(5)?,
        command: row.get(6)?,
        record: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{CommandFilter, Store};

    fn job(id: &str, ended_at: Option<f64>) -> StoredJob {
        StoredJob {
            job_id: id.to_owned(),
            session_id: "s".to_owned(),
            state: if ended_at.is_some() { "succeeded" } else { "queued" }.to_owned(),
            ended_at,
            command: Some(b"{}".to_vec()),
            record: "{}".to_owned(),
            ..StoredJob::default()
        }
    }

    #[tokio::test]
    async fn jobs_are_stored_once_for_each_key_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&folder.path().join("sessions.db"), CommandFilter::default()).unwrap();
        let first = StoredJob { idempotency_key: Some("k".to_owned()), ..job("1", None) };
        assert_eq!(store.insert_job(first.clone()).await.unwrap(), None);
        let again = StoredJob { job_id: "2".to_owned(), ..first.clone() };
        assert_eq!(store.insert_job(again.clone()).await.unwrap(), Some(first.clone()));
        let other = StoredJob { session_id: "t".to_owned(), ..again };
        assert_eq!(store.insert_job(other).await.unwrap(), None, "a key is one session's");
        assert_eq!(store.open_jobs().await.unwrap().len(), 2);

        store.update_job(job("1", Some(5.0))).await.unwrap();
        assert_eq!(store.open_jobs().await.unwrap().len(), 1);
        let done = store.job("s", "1").await.unwrap().unwrap();
        assert_eq!((done.state.as_str(), done.command), ("succeeded", None));
        assert_eq!(store.job("t", "1").await.unwrap(), None, "it is another session's");
        assert!(!store.remove_job("t", "2").await.unwrap(), "it is not done");
        assert!(store.remove_job("s", "1").await.unwrap());
        store.remove_jobs_of("t").await.unwrap();
        assert!(store.open_jobs().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn jobs_expire_by_age_and_count_but_not_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&folder.path().join("sessions.db"), CommandFilter::default()).unwrap();
        for number in 1..=8 {
            let ended = (number < 8).then_some(f64::from(number));
            store.insert_job(job(&number.to_string(), ended)).await.unwrap();
        }
        let keep =
            |done_before, count, recent_after| JobRetention { done_before, count, recent_after };
        let gone = store.expire_jobs("s", keep(2.5, 100, 50.0)).await.unwrap();
        assert_eq!(gone, ["1", "2"]);
        let gone = store.expire_jobs("s", keep(0.0, 3, 4.5)).await.unwrap();
        assert_eq!(gone, ["3", "4"], "5 is too many, and too recent");
        let filter = JobFilter { limit: 2, before: Some("8".to_owned()), ..JobFilter::default() };
        let listed = store.jobs(filter).await.unwrap();
        assert_eq!(listed.iter().map(|job| job.job_id.as_str()).collect::<Vec<_>>(), ["7", "6"]);
    }
}
