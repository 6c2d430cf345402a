//! Results as text and pictures. It measures nothing.

mod markdown;
mod pictures;
mod promises;

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::measure::Results;
use promises::Line;

/// What `results.json` holds.
#[derive(Serialize)]
struct Document<'a> {
    promises: &'a [Line],
    #[serde(flatten)]
    results: &'a Results,
}

/// Prints the table, and writes table, figures and pictures to `folder`.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    let lines = promises::lines(results);
    let text = markdown::document(results, &lines);
    println!("{text}");
    fs::create_dir_all(folder)?;
    fs::write(folder.join("results.md"), text)?;
    let document = Document { promises: &lines, results };
    fs::write(folder.join("results.json"), serde_json::to_string_pretty(&document)? + "\n")?;
    pictures::draw(results, folder)
}
