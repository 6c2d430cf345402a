//! The server's program: the one that was named, or the one that Cargo makes beside this one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const NAME: &str = "phoebe-server";

/// The program to measure, built first if it is missing or older than its source.
pub(crate) fn locate(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return path.canonicalize().with_context(|| format!("--server {}", path.display()));
    }
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program is in no folder")?;
    // Only Cargo knows whether it is stale.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if workspace.join("Cargo.toml").exists() {
        let target = folder.parent().context("this program is in no target folder")?;
        let status = Command::new(cargo)
            .args(["build", "--release", "--package", NAME, "--bin", NAME, "--target-dir"])
            .arg(target)
            .current_dir(workspace)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "`cargo build --release --package {NAME}` failed");
    }
    let binary = folder.join(NAME);
    ensure!(binary.exists(), "{} is missing; name one with --server FILE", binary.display());
    Ok(binary)
}
