//! The names of the files in a session's folder.

pub(in crate::store) const RECORD: &str = "session.json";
pub(in crate::store) const HEAD: &str = "head";
pub(in crate::store) const PORTABLE: &str = "portable.snapshot";
pub(in crate::store) const JOURNAL: &str = "journal.jsonl";
pub(in crate::store) const BASES: &str = "bases";
pub(in crate::store) const CHECKPOINTS: &str = "checkpoints";
pub(in crate::store) const RESULTS: &str = "results";

/// Returns the step of a snapshot's file name.
pub(in crate::store) fn snapshot_step(name: &str) -> Option<u64> {
    name.strip_suffix(".snapshot")?.parse().ok()
}

/// Returns the head among the steps with a snapshot: the one in the file `head`, else the greatest.
pub(in crate::store) fn head_step(head: Option<&[u8]>, steps: &[u64]) -> Option<u64> {
    let named = head.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse().ok());
    named.filter(|step| steps.contains(step)).or(steps.iter().max().copied())
}
