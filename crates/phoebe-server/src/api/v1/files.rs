//! Downloads and uploads of Bundles and scripts.

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
use crate::api::body::LargeBody;
use crate::api::caller::OwnedSession;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError};
use crate::session::SessionView;
use crate::store::snapshots::{Format, SnapshotError, SnapshotFile};

/// Bytes of a file that are read at a time.
const PIECE: usize = 64 << 10;
/// Larger downloads go through a temporary file.
const MAX_IN_MEMORY: usize = 1 << 20;

/// The path parameter of the snapshot route.
#[derive(Deserialize)]
pub(super) struct SnapshotPath {
    format: String,
}

/// Download the Bundle
///
/// A `.phoebe` file that PHOEBE opens with `phoebe.load`.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/bundle", tag = "files",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
         description = "The file"),
        (status = 409, body = ErrorBody,
         description = "PHOEBE cannot export the Bundle; `detail` has the reason"),
        (status = 503, description = "The session cannot wake now", body = ErrorBody),
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
/// The body is a file that PHOEBE imports: a `.phoebe` file of PHOEBE 2, or a file of PHOEBE 1. It
/// replaces the Bundle; undo reverts the upload. A file that PHOEBE refuses changes nothing. If
/// parts of a file of another version could not be imported, `notice` in the answer and in the
/// session names them.
#[utoipa::path(
    put, path = "/v1/sessions/{session_id}/bundle", tag = "files",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body(
        content = Vec<u8>, content_type = "application/octet-stream", description = "The file"
    ),
    responses(
        (status = 200, description = "The changes that can be undone and redone", body = History),
        (status = 413, description = "The file is too large", body = ErrorBody),
        (status = 422, body = ErrorBody,
         description = "PHOEBE cannot import the file; `detail` has the reason"),
        (status = 503, description = "The session cannot wake now", body = ErrorBody),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn upload_bundle(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    LargeBody(file, _permit): LargeBody,
) -> Result<Json<History>, HttpError> {
    let sessions = &context.app.sessions;
    sessions.upload(&session.session_id, file).await?;
    let notice = sessions.get(&session.session_id).and_then(|session| session.notice);
    let history = History::after_change(&context, &session.session_id).await;
    Ok(Json(history.with_notice(notice)))
}

/// Download a script
///
/// A Python script that builds the same Bundle with PHOEBE alone. It repeats the commands since the
/// session began, or since a Bundle was imported; the script contains the imported Bundle.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/script", tag = "files",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The script", body = String, content_type = "text/x-python"),
        (status = 409, body = ErrorBody,
         description = "No script can be made; `detail` has the reason"),
        (status = 503, description = "The session cannot wake now", body = ErrorBody),
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

/// Download the stored Bundle
///
/// The Bundle as stored on the server's disk, available even if the session cannot wake. `pickle`
/// is a Python pickle for the versions of Python and PHOEBE that wrote it. `portable` is PHOEBE's
/// JSON for any version, at least as new as the session's last sleep. A pickle can run code: open
/// it only if you trust everybody who used the session.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/snapshots/{format}", tag = "files",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("format" = String, Path, description = "`pickle` or `portable`"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
         description = "The file"),
        (status = 404, description = "The session or file does not exist", body = ErrorBody),
        (status = 409, body = ErrorBody,
         description = "The file is damaged, or sessions are not stored"),
    )
)]
pub(super) async fn download_snapshot(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(SnapshotPath { format }): Path<SnapshotPath>,
) -> Result<Response, HttpError> {
    let (format, extension, kind) = match format.as_str() {
        "pickle" => (Format::Pickle, "pickle", "application/octet-stream"),
        "portable" => (Format::Portable, "portable.json", "application/json"),
        _ => return Err(HttpError::not_found("The format is not known: use pickle or portable")),
    };
    let kept = context.with_files(&session.session_id, move |folder| folder.raw_on_disk(format));
    let SnapshotFile { file, length, .. } = kept.await?;
    Ok(attachment(&session, extension, kind, Content::File(file, length)))
}

/// Answers with a file named after the project.
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

/// The content of a download. A large one stays in a file while the client reads it, so that a slow
/// client holds no memory.
enum Content {
    Small(Bytes),
    /// A file from its current position, and the number of bytes.
    File(File, u64),
}

impl Content {
    /// Stores a worker's answer; a large one in an unnamed file.
    async fn of(bytes: Bytes, context: &Shared) -> Result<Self, HttpError> {
        if bytes.len() <= MAX_IN_MEMORY {
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

/// Returns a file name of letters, digits and `-`, made from the project's name or the session's
/// id.
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
    fn file_names_are_safe_in_a_shell() {
        let name = |project| file_name(project, "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11");
        assert_eq!(name(Some("Algol, with a spot")), "Algol-with-a-spot");
        assert_eq!(name(Some("../../etc/\"passwd\"\r\n; rm")), "etc-passwd-rm");
        assert_eq!(name(Some("βετα")), "session-7d0a3f0e");
        assert_eq!(name(None), "session-7d0a3f0e");
        assert_eq!(name(Some(&"x".repeat(300))).len(), 60);
    }
}
