//! Bundles and scripts as files to take away or to bring.

use std::fs::File;
use std::io::{self, Seek, Write};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::stream;
use phoebe_protocol::command::SnapshotFormat;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::history::History;
use crate::api::body::Whole;
use crate::api::caller::OwnedSession;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError};
use crate::session::SessionView;
use crate::store::snapshots::{Format, OnDisk, SnapshotError};

/// Bytes of a file that are in memory until they are sent.
const PIECE: usize = 64 << 10;
/// Downloads of more bytes are in a file while they are sent.
const SMALL: usize = 1 << 20;

/// The kept form that a path names.
#[derive(Deserialize)]
pub(super) struct Form {
    format: String,
}

/// Download the Bundle
///
/// A `.phoebe` file that PHOEBE opens with `phoebe.load`.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/bundle", tag = "files", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 409, description = "PHOEBE cannot write the Bundle, and says why", body = ErrorBody),
        (status = 503, description = "The session cannot be woken now", body = ErrorBody),
    )
)]
pub(super) async fn download_bundle(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Response, HttpError> {
    let sessions = &context.app.sessions;
    let file = sessions.export(&session.session_id, SnapshotFormat::File).await?;
    let content = Content::of(file, &context).await?;
    Ok(attachment(&session, "phoebe", "application/octet-stream", content))
}

/// Upload a Bundle
///
/// The body is a file that PHOEBE imports: a `.phoebe` file of PHOEBE 2, or a file of PHOEBE 1. It takes the Bundle's place; that
/// is a change like others and can be undone. A file that PHOEBE refuses changes nothing. Where not all of a file of another
/// version could be taken over, the answer's `notice` says what, and so does the session's.
#[utoipa::path(
    put, path = "/v1/sessions/{session_id}/bundle", tag = "files", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file"),
    responses(
        (status = 200, description = "What can be undone and made again now", body = History),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 413, description = "The file is too large", body = ErrorBody),
        (status = 422, description = "PHOEBE cannot read it, and says why", body = ErrorBody),
        (status = 503, description = "The session cannot be woken now", body = ErrorBody),
        (status = 507, description = "There is no room on disk for it within what you may take", body = ErrorBody),
    )
)]
pub(super) async fn upload_bundle(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Whole(file, _room): Whole,
) -> Result<Json<History>, HttpError> {
    let sessions = &context.app.sessions;
    sessions.upload(&session.session_id, file).await?;
    let notice = sessions.get(&session.session_id).and_then(|session| session.notice);
    let history = History::after_change(&context, &session.session_id).await;
    Ok(Json(history.with_notice(notice)))
}

/// Download a script
///
/// A Python script that builds the same Bundle with PHOEBE alone, made from the commands that
/// changed it since the session began or a Bundle from outside took its place; that Bundle is in
/// the script.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/script", tag = "files", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The script", body = String, content_type = "text/x-python"),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 409, description = "No script can be made, and why", body = ErrorBody),
        (status = 503, description = "The session cannot be woken now", body = ErrorBody),
    )
)]
pub(super) async fn download_script(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Response, HttpError> {
    let sessions = &context.app.sessions;
    let script = sessions.export(&session.session_id, SnapshotFormat::Script).await?;
    let content = Content::of(script, &context).await?;
    Ok(attachment(&session, "py", "text/x-python; charset=utf-8", content))
}

/// Download what is kept
///
/// The Bundle as it lies on the server's disk, also where the session cannot be woken: `pickle` is Python's, for the versions of
/// Python and PHOEBE that wrote it; `portable` is PHOEBE's JSON, for any, and not older than the session's last rest. A pickle is
/// code: open it only if you trust everybody who used the session.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/snapshots/{format}", tag = "files", security((), ("token" = []), ("api_key" = [])),
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("format" = String, Path, description = "`pickle` or `portable`"),
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session or file", body = ErrorBody),
        (status = 409, description = "The file is damaged, or nothing is kept of sessions", body = ErrorBody),
    )
)]
pub(super) async fn download_snapshot(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(Form { format }): Path<Form>,
) -> Result<Response, HttpError> {
    let (format, extension, kind) = match format.as_str() {
        "pickle" => (Format::Pickle, "pickle", "application/octet-stream"),
        "portable" => (Format::Portable, "portable.json", "application/json"),
        _ => return Err(HttpError::not_found("There are two forms: pickle and portable")),
    };
    let kept = context.with_files(&session.session_id, move |folder| folder.raw_on_disk(format));
    let OnDisk { file, length, .. } = kept.await?;
    Ok(attachment(&session, extension, kind, Content::File(file, length)))
}

/// A file to be saved under the project's name.
fn attachment(
    session: &SessionView,
    extension: &str,
    kind: &'static str,
    content: Content,
) -> Response {
    let name = file_name(session.project_name.as_deref(), &session.session_id);
    let disposition =
        HeaderValue::from_str(&format!("attachment; filename=\"{name}.{extension}\""))
            .unwrap_or_else(|_| HeaderValue::from_static("attachment"));
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CONTENT_DISPOSITION, disposition)];
    match content {
        Content::Small(bytes) => (headers, bytes).into_response(),
        Content::File(file, length) => {
            let file = tokio::fs::File::from_std(file).take(length);
            let pieces = stream::try_unfold(file, async |mut file| {
                let mut piece = BytesMut::with_capacity(PIECE);
                let read = file.read_buf(&mut piece).await?;
                Ok::<_, io::Error>((read > 0).then(|| (piece.freeze(), file)))
            });
            let length = [(CONTENT_LENGTH, HeaderValue::from(length))];
            (headers, length, Body::from_stream(pieces)).into_response()
        }
    }
}

/// What is sent: little, or what lies in a file and is read as the client takes it. A slow client
/// holds no memory.
enum Content {
    Small(Bytes),
    /// From where it is read now, so many bytes.
    File(File, u64),
}

impl Content {
    /// What a worker gave; where it is large, in a file that nobody else sees.
    async fn of(bytes: Bytes, context: &Shared) -> Result<Self, HttpError> {
        if bytes.len() <= SMALL {
            return Ok(Self::Small(bytes));
        }
        let folder = context.app.data.root().to_owned();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = tempfile::tempfile_in(folder)?;
            file.write_all(&bytes)?;
            file.rewind()?;
            Ok(Self::File(file, bytes.len() as u64))
        });
        let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| SnapshotError::Io(error).into())
    }
}

/// Letters, digits and `-` of the project's name, else of the session's id: a name that no shell and no file system minds.
fn file_name(project: Option<&str>, session: &str) -> String {
    let words = project.unwrap_or_default().split(|letter: char| !letter.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-");
    name.truncate(60);
    if name.is_empty() {
        name = format!("session-{}", session.get(..8).unwrap_or_default());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_hold_nothing_that_matters_to_a_shell() {
        let name = |project| file_name(project, "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11");
        assert_eq!(name(Some("Algol, with a spot")), "Algol-with-a-spot");
        assert_eq!(name(Some("../../etc/\"passwd\"\r\n; rm")), "etc-passwd-rm");
        assert_eq!(name(Some("βετα")), "session-7d0a3f0e");
        assert_eq!(name(None), "session-7d0a3f0e");
        assert_eq!(name(Some(&"x".repeat(300))).len(), 60);
    }
}
