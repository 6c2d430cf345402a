//! Measures the figures of the specification: starts a real server, talks to it over HTTP, and does
//! beside it, in the same run, what a user without the server does.
//!
//! `subject` are the things measured, `measure` holds one file a family of measurements, `report`
//! turns results into text and pictures.

mod arguments;
mod machine;
mod measure;
mod report;
mod samples;
mod subject;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use arguments::Arguments;

/// One thread: what the client costs is small, and the same in every run.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("phoebe-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!(
            "figures of an unoptimised build say nothing; run it with \
             `cargo run --release -p phoebe-bench`"
        );
    }
    let mut terminate = signal(SignalKind::terminate())?;
    // Dropping the measurement ends every process that it started.
    let results = tokio::select! {
        results = measure::all(arguments) => results?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; nothing is written"),
        _ = terminate.recv() => bail!("terminated; nothing is written"),
    };
    report::write(&results, &arguments.output)
        .with_context(|| format!("cannot write to {}", arguments.output.display()))
}
