//! Sessions: who has which, in what state, and the one task that may change it.
//!
//! | file | job |
//! |---|---|
//! | `manager` | all sessions by id: start, find, ask, end |
//! | `driver` | one task a session: performs what its state machine decides |
//! | `state` | the state machine: states, transitions, queue, what is saved; no I/O |
//! | `start` | from an id to a worker that has its Bundle |
//! | `eviction` | chooses idle sessions that sleep when ports or memory run out |
//! | `ports`, `cores` | what sessions share: leases that free themselves |
//! | `turns` | who computes next; no I/O |
//! | `job` | what is known of a long command: its states, progress, reasons; no I/O |
//! | `job_queries` | submits, finds, waits for and cancels jobs |
//! | `events` | what happened in a session, as numbered events |
//! | `metrics` | what a monitoring system is told of sessions |
//! | `file_queue` | a session's files: one job after the other, bounded |
//!
//! [`SessionManager`] knows all sessions and nothing of Bundles. Others send a driver requests and
//! read what it publishes. Nothing here knows HTTP.

mod admission;
mod cores;
mod crash_counter;
mod driver;
mod error;
mod events;
mod eviction;
mod file_queue;
mod job;
mod job_queries;
mod manager;
mod memory;
mod metrics;
mod ports;
mod reply;
mod request;
mod script;
mod shared;
mod start;
mod state;
mod turns;
mod view;

pub use error::SessionError;
pub use events::{EventReader, EventsLost, Happened, SessionEvent};
pub use job::{Best, Job, JobError, JobState, NewJob, Progress, Reason, Requester, WaitingFor};
pub use job_queries::{FeedChange, JobQuery, SessionFeed};
pub use manager::SessionManager;
pub use request::Accepted;
// For the benchmarks.
#[doc(hidden)]
pub use state::CommandQueue;
pub use view::{
    Answer, CopyOf, DiskView, EndReason, Owner, PortStatus, SessionView, StartRequest, Status,
    UserInfo,
};
