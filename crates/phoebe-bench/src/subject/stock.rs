//! PHOEBE without the server: a cold interpreter that imports it, and then the same commands
//! in-process.
//!
//! Times of commands are taken inside the interpreter: the way there and back costs stock PHOEBE
//! nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Answer;

const SCRIPT: &str = include_str!("stock.py");

/// An interpreter with stock PHOEBE. Dropped, it is killed.
pub(crate) struct Stock {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Stock {
    /// Starts an interpreter; tells how long it took until PHOEBE was imported and the default
    /// Bundle built.
    pub(crate) async fn start(python: &Path) -> Result<(Self, Duration)> {
        let started = Instant::now();
        let mut child = Command::new(python)
            .args(["-I", "-c", SCRIPT])
            // As in workers: no import may wait for a network.
            .env("PHOEBE_ENABLE_ONLINE_PASSBANDS", "FALSE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let output = BufReader::new(output).lines();
        let mut stock = Self { child, input, output };
        stock.receive().await.context("stock PHOEBE did not start")?;
        Ok((stock, started.elapsed()))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<i32> {
        let pid = self.child.id().context("stock PHOEBE has ended")?;
        Ok(i32::try_from(pid)?)
    }

    /// Runs one command in it.
    pub(crate) async fn send(&mut self, command: &Value) -> Result<Answer> {
        self.input.write_all(format!("{command}\n").as_bytes()).await?;
        self.input.flush().await?;
        let mut answer = self.receive().await.with_context(|| format!("stock {command}"))?;
        let seconds = answer["seconds"].as_f64().context("no time in the answer")?;
        Ok(Answer { elapsed: Duration::from_secs_f64(seconds), result: answer["result"].take() })
    }

    /// The fluxes of a light curve's latest model.
    pub(crate) async fn fluxes(&mut self, dataset: &str) -> Result<Value> {
        Ok(self.send(&json!({"command": "fluxes", "dataset": dataset})).await?.result)
    }

    /// Ends it as a user does, with the end of its program; tells how long it took.
    pub(crate) async fn end(mut self) -> Result<Duration> {
        let asked = Instant::now();
        drop(self.input);
        let status = self.child.wait().await?;
        ensure!(status.success(), "stock PHOEBE ended with {status}");
        Ok(asked.elapsed())
    }

    async fn receive(&mut self) -> Result<Value> {
        let line = self.output.next_line().await?.context("it ended; see its message above")?;
        Ok(serde_json::from_str(&line)?)
    }
}
