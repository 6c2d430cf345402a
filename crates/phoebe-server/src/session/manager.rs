//! All sessions by id. It creates drivers, finds them, and ends them all at shutdown; it changes no session's state itself.

use bytes::Bytes;

use super::{Answer, EndReason, PortStatus, SessionError, SessionView, StartRequest, UserInfo};
use phoebe_protocol::packet::Info;

/// Handle to all sessions; cheap to clone.
#[derive(Clone)]
pub struct SessionManager {}

impl SessionManager {
    /// Starts a session and waits until its worker answered a ping.
    ///
    /// # Errors
    /// Limits, ports, or the worker; everything is undone then.
    pub async fn start(&self, _request: StartRequest) -> Result<SessionView, SessionError> {
        todo!()
    }

    /// Ends a session and waits until its worker is gone and its port free.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn end(&self, _id: &str, _reason: EndReason) -> Result<(), SessionError> {
        todo!()
    }

    /// One session as it is now.
    #[must_use]
    pub fn get(&self, _id: &str) -> Option<SessionView> {
        todo!()
    }

    /// All sessions as they are now, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<SessionView> {
        todo!()
    }

    /// Measures a session's memory now, in MiB.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn measure_memory(&self, _id: &str) -> Result<f64, SessionError> {
        todo!()
    }

    /// Sends one command, `name` being its `command` field, and waits for the answer.
    ///
    /// # Errors
    /// Unknown session, full queue. A command that fails is an `Ok` answer that says so.
    pub async fn send(&self, _id: &str, _name: &str, _body: Bytes) -> Result<Answer, SessionError> {
        todo!()
    }

    /// Replaces the fields of the user's information that are given.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn update_user_info(&self, _id: &str, _info: UserInfo) -> Result<(), SessionError> {
        todo!()
    }

    /// The port pool as it is now.
    #[must_use]
    pub fn port_status(&self) -> PortStatus {
        todo!()
    }

    /// What the Python side says of itself: versions, passbands, commands. Waits until PHOEBE is imported.
    ///
    /// # Errors
    /// [`SessionError::StartFailed`] if it cannot be imported.
    pub async fn python_info(&self) -> Result<Info, SessionError> {
        todo!()
    }
}
