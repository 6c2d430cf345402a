//! The JSON form of a session.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::v1::jobs::JobBody;
use crate::config::SessionSettings;
use crate::session::{DiskView, SessionView, Status};

/// The largest `metadata` of a session, in KiB of JSON.
pub(super) const METADATA_KIB: usize = 16;

/// A session. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// UUID v4.
    #[schema(example = "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11")]
    session_id: String,
    created_at: f64,
    /// Time of the last use.
    last_activity: f64,
    /// Memory in MiB (proportional set size); 0 while asleep.
    mem_used: f64,
    /// The worker's port; null while asleep.
    #[schema(example = 6560)]
    port: Option<u16>,
    /// The owner's id; null on a server without users.
    user_id: Option<String>,
    /// The owner's name; only on a server with users.
    #[serde(skip_serializing_if = "Option::is_none")]
    full_name: Option<String>,
    #[schema(example = "Algol")]
    project_name: Option<String>,
    user_first_name: Option<String>,
    user_last_name: Option<String>,
    user_email: Option<String>,
    /// First and last name, else the owner's name, else the e-mail address.
    user_display_name: Option<String>,
    /// `starting`, `awake`, `asleep` or `ended`.
    #[schema(value_type = String, example = "awake")]
    status: Status,
    /// False while the last change is not on disk; otherwise missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<bool>,
    /// A message for the user, such as why the session is not saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    /// Time at which the unused session ends; shown some time before.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<f64>,
    /// The other fields given at the start.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    metadata: BTreeMap<String, serde_json::Value>,
    /// True if a list leaves `metadata` out because it is larger than 16 KiB, from an earlier
    /// server. `GET /v1/sessions/{session_id}` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_omitted: Option<bool>,
    /// Bytes on the server's disk; only where one session is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
    /// The limit for `disk_bytes`; missing without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_limit_bytes: Option<u64>,
    /// Bytes on disk of all sessions of the user; only on a server with users.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_disk_bytes: Option<u64>,
    /// The limit for `user_disk_bytes`; missing without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_disk_limit_bytes: Option<u64>,
    /// The job that runs, or the first that waits; only where one session is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobBody>,
}

impl Session {
    /// Adds the job that runs or waits.
    pub(super) fn with_job(self, job: Option<JobBody>) -> Self {
        Self { job, ..self }
    }

    /// Adds the disk usage.
    pub(super) fn with_disk(self, disk: Option<DiskView>) -> Self {
        let Some(DiskView { bytes, user_bytes, bounds }) = disk else { return self };
        let limit = |bound: u64| (bound > 0).then_some(bound);
        Self {
            disk_bytes: Some(bytes),
            disk_limit_bytes: limit(bounds.session),
            user_disk_bytes: user_bytes,
            user_disk_limit_bytes: user_bytes.and_then(|_| limit(bounds.user)),
            ..self
        }
    }

    /// Leaves out large metadata, for lists.
    pub(super) fn in_a_list(mut self) -> Self {
        let bytes = serde_json::to_vec(&self.metadata).map_or(0, |json| json.len());
        if bytes > METADATA_KIB * 1024 {
            self.metadata.clear();
            self.metadata_omitted = Some(true);
        }
        self
    }

    /// Returns the session as shown to `caller`.
    pub(super) fn seen_by(caller: &Caller, view: SessionView, settings: &SessionSettings) -> Self {
        let warned_from = now() + settings.retention_warning_seconds;
        let owner_name = view.owner.as_ref().map(|owner| owner.full_name.clone());
        let user_display_name = display_name(&view);
        Self {
            session_id: view.session_id,
            created_at: view.created_at,
            last_activity: view.last_activity,
            mem_used: view.mem_used,
            port: view.port,
            full_name: caller.0.as_ref().map(|_| owner_name.unwrap_or_default()),
            user_id: view.owner.map(|owner| owner.user_id),
            project_name: view.project_name,
            user_display_name,
            user_first_name: view.user_info.first_name,
            user_last_name: view.user_info.last_name,
            user_email: view.user_info.email,
            status: view.status,
            saved: view.unsaved.is_some().then_some(false),
            notice: view
                .unsaved
                .map(|why| format!("The last change is not saved: {why}"))
                .or(view.notice),
            expires_at: view.expires_at.filter(|end| *end <= warned_from),
            metadata: view.metadata,
            metadata_omitted: None,
            disk_bytes: None,
            disk_limit_bytes: None,
            user_disk_bytes: None,
            user_disk_limit_bytes: None,
            job: None,
        }
    }
}

/// Returns the name shown to the session's own user.
fn display_name(view: &SessionView) -> Option<String> {
    let email = view.user_info.email.clone().filter(|email| !email.is_empty());
    given_name(view).or(account_name(view)).or(email)
}

/// Returns the name shown to other users. It prefers the account's name, because users can enter
/// any name for a session. It is never an e-mail address.
pub(super) fn public_name(view: &SessionView) -> Option<String> {
    account_name(view).or(given_name(view))
}

fn account_name(view: &SessionView) -> Option<String> {
    view.owner.as_ref().map(|owner| owner.full_name.clone()).filter(|name| !name.is_empty())
}

/// Returns the name that the session's user has entered.
fn given_name(view: &SessionView) -> Option<String> {
    let info = &view.user_info;
    let names: Vec<&str> = [&info.first_name, &info.last_name]
        .into_iter()
        .filter_map(|name| name.as_deref())
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    Some(names.join(" ")).filter(|name| !name.is_empty())
}

/// Unix seconds.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;
    use crate::session::{Owner, UserInfo};

    fn view() -> SessionView {
        SessionView {
            session_id: "s".to_owned(),
            created_at: 1.5,
            last_activity: 2.5,
            mem_used: 3.0,
            port: None,
            owner: None,
            project_name: Some("Algol".to_owned()),
            user_info: UserInfo::default(),
            metadata: BTreeMap::new(),
            status: Status::Asleep,
            unsaved: None,
            notice: None,
            expires_at: None,
        }
    }

    #[test]
    fn without_a_user_there_is_no_full_name() {
        let json = serde_json::to_value(Session::seen_by(
            &Caller(None),
            view(),
            &SessionSettings::default(),
        ))
        .unwrap();
        let expected = serde_json::json!({
            "session_id": "s", "created_at": 1.5, "last_activity": 2.5, "mem_used": 3.0,
            "port": null, "user_id": null, "project_name": "Algol", "user_first_name": null,
            "user_last_name": null, "user_email": null, "user_display_name": null,
            "status": "asleep",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn an_authenticated_user_sees_the_owners_name() {
        let identity = Identity { full_name: "Ada L".to_owned(), ..Identity::default() };
        let owner = Owner { user_id: "1".to_owned(), full_name: "Ada L".to_owned() };
        let mut view = SessionView { owner: Some(owner), ..view() };
        view.metadata.insert("course".to_owned(), 7.into());
        let (caller, settings) = (Caller(Some(identity)), SessionSettings::default());
        let json = serde_json::to_value(Session::seen_by(&caller, view, &settings)).unwrap();
        assert_eq!(json["full_name"], "Ada L");
        assert_eq!(json["user_id"], "1");
        assert_eq!(json["user_display_name"], "Ada L");
        assert_eq!(json["metadata"], serde_json::json!({"course": 7}));
    }

    #[test]
    fn expires_at_is_shown_some_time_before_the_end() {
        let settings =
            SessionSettings { retention_warning_seconds: 3600.0, ..SessionSettings::default() };
        let shown = |seconds: f64| {
            let view = SessionView { expires_at: Some(now() + seconds), ..view() };
            Session::seen_by(&Caller(None), view, &settings).expires_at.is_some()
        };
        assert_eq!([4000.0, 3000.0, -10.0].map(shown), [false, true, true]);
    }

    #[test]
    fn the_display_name_prefers_names_to_the_email() {
        let name = |first: Option<&str>, last: Option<&str>, email: Option<&str>| {
            let user_info = UserInfo {
                first_name: first.map(str::to_owned),
                last_name: last.map(str::to_owned),
                email: email.map(str::to_owned),
            };
            display_name(&SessionView { user_info, ..view() })
        };
        assert_eq!(name(Some("Ada"), Some("L"), Some("a@x")).as_deref(), Some("Ada L"));
        assert_eq!(name(None, Some("L"), None).as_deref(), Some("L"));
        assert_eq!(name(Some(""), None, Some("a@x")).as_deref(), Some("a@x"));
        assert_eq!(name(None, None, None), None);
    }

    #[test]
    fn others_see_the_accounts_name_first() {
        let named = UserInfo { first_name: Some("Prof. Curie".to_owned()), ..UserInfo::default() };
        let owner = Owner { user_id: "1".to_owned(), full_name: "Bob B".to_owned() };
        let of_account = SessionView { user_info: named.clone(), owner: Some(owner), ..view() };
        assert_eq!(public_name(&of_account).as_deref(), Some("Bob B"));
        let of_nobody = SessionView { user_info: named, ..view() };
        assert_eq!(public_name(&of_nobody).as_deref(), Some("Prof. Curie"));
        assert_eq!(display_name(&of_account).as_deref(), Some("Prof. Curie"));
    }
}
