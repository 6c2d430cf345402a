//! A session's files as a disk or another version of PHOEBE would leave them, while no server works
//! on them.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A snapshot's file with another payload and the right checksum.
pub(crate) fn with_payload(file: &[u8], payload: &[u8]) -> Vec<u8> {
    let (header, _) = parts(file);
    signed(&header, payload)
}

/// A snapshot's file as this version of PHOEBE would have written it.
pub(crate) fn by_phoebe(file: &[u8], version: &str) -> Vec<u8> {
    let (header, payload) = parts(file);
    let mut header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["phoebe"] = version.into();
    signed(header.to_string().as_bytes(), &payload)
}

/// The snapshots in a session's folder and its checkpoints.
pub(crate) fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let folders = [folder.to_owned(), folder.join("checkpoints")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect()
}

/// The steps that have a snapshot and the one that counts, in a session's folder.
pub(crate) fn steps(folder: &Path) -> (Vec<u64>, u64) {
    let named = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(".snapshot")?.parse().ok();
    let paths = snapshots(folder).into_iter().filter(|path| path.parent() == Some(folder));
    let mut steps: Vec<u64> = paths.filter_map(named).collect();
    steps.sort_unstable();
    let head = fs::read_to_string(folder.join("head")).ok();
    let head = head.and_then(|text| text.trim().parse().ok()).or(steps.last().copied());
    (steps, head.unwrap())
}

fn parts(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut lines = file.splitn(3, |byte| *byte == b'\n').skip(1);
    (lines.next().unwrap().to_vec(), lines.next().unwrap().to_vec())
}

fn signed(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let rest = [header, b"\n", payload].concat();
    let checksum = hex::encode(Sha256::digest(&rest));
    [format!("phoebe-snapshot 1 {checksum}\n").as_bytes(), &rest].concat()
}
