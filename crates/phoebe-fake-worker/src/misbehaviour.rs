//! How a worker misbehaves at any command that asks for it:
//! `{"command": …, "misbehave": WORD, …}`.

use std::future::pending;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::exit;

use bytes::Bytes;
use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use serde_json::json;

use crate::Outcome;
use crate::commands::{Answer, Command};
use crate::worker::Conversation;

/// The words for `misbehave`. After the messages that are wrong comes the right answer, unless the
/// command says `"answer": false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Misbehaviour {
    /// Messages of no meaning: one byte, hundreds of frames, random text where the signature
    /// belongs.
    Garbage,
    /// An answer with a wrong signature.
    Unsigned,
    /// A signed answer to a request that was never made.
    WrongSeq,
    /// A signed answer for another session.
    WrongSession,
    /// The right answer, twice.
    Twice,
    /// A signed answer whose body is no JSON.
    NotJson,
    /// An answer of `megabytes` MiB (64).
    Huge,
    /// No answer, ever; a line on standard output says that it has come to that.
    Never,
    /// SIGKILL to itself.
    Die,
    /// Exit with code 3.
    Exit,
    /// SIGSEGV to itself.
    Segfault,
    /// The right answer after `seconds` (1).
    Slow,
    /// Text, half lines, control characters and bytes that are no text on both outputs.
    StrayOutput,
    /// `megabytes` MiB (32) on standard output.
    FloodOutput,
    /// The command socket closes, the process stays.
    CloseSocket,
}

/// Does it. `Break` closes the command socket.
pub(crate) async fn misbehave(
    command: &Command,
    conversation: &mut Conversation,
) -> Outcome<ControlFlow<()>> {
    let how: Misbehaviour = match serde_json::from_value(json!(command.text("misbehave"))) {
        Ok(how) => how,
        Err(error) => {
            conversation.answer(&Answer::failure(&error.to_string())).await?;
            return Ok(ControlFlow::Continue(()));
        }
    };
    match how {
        Misbehaviour::Garbage => send_garbage(conversation).await?,
        Misbehaviour::Unsigned => conversation.answer_unsigned().await?,
        Misbehaviour::WrongSeq => conversation.answer_for(None, u64::MAX / 2).await?,
        Misbehaviour::WrongSession => {
            conversation.answer_for(Some("00000000-0000-4000-8000-000000000000"), 1).await?;
        }
        Misbehaviour::Twice => conversation.answer(&done(command)).await?,
        Misbehaviour::NotJson => conversation.answer_bytes(Bytes::from_static(b"\xff{]")).await?,
        Misbehaviour::Huge => {
            let length = usize::try_from(command.number("megabytes", 64) << 20)?;
            let answer = Answer::success(&json!("x".repeat(length)), false);
            conversation.answer(&answer).await?;
            return Ok(ControlFlow::Continue(()));
        }
        Misbehaviour::Never => {
            writeln!(io::stdout(), "{} is never answered", command.name())?;
            pending().await
        }
        Misbehaviour::Die => kill_process(getpid(), Signal::KILL)?,
        Misbehaviour::Exit => exit(3),
        Misbehaviour::Segfault => segfault()?,
        Misbehaviour::Slow => tokio::time::sleep(command.seconds("seconds", 1.0)).await,
        Misbehaviour::StrayOutput => stray_output()?,
        Misbehaviour::FloodOutput => flood_output(command.number("megabytes", 32))?,
        Misbehaviour::CloseSocket => return Ok(ControlFlow::Break(())),
    }
    if command.flag("answer", true) {
        conversation.answer(&done(command)).await?;
    }
    Ok(ControlFlow::Continue(()))
}

fn done(command: &Command) -> Answer {
    Answer::success(&json!({"misbehaved": command.text("misbehave")}), false)
}

async fn send_garbage(conversation: &mut Conversation) -> Outcome {
    let byte = Bytes::from_static(b"\0");
    conversation.send(vec![byte.clone()]).await?;
    conversation.send(vec![byte; 500]).await?;
    conversation.send(vec![Bytes::from_static(b"{\"v\": 1, \"kind\": \"reply\"}"); 3]).await?;
    conversation.send(vec![Bytes::new(); 3]).await
}

/// Rust's own handler takes the first SIGSEGV for a stack overflow's and steps aside, the second
/// one kills.
fn segfault() -> Outcome {
    loop {
        kill_process(getpid(), Signal::SEGV)?;
    }
}

fn stray_output() -> Outcome {
    let mut output = io::stdout();
    output.write_all(b"stray line on standard output\nhalf a line")?;
    output.write_all(
        b" and \x1b[31mcontrol\x07 characters \xff\xfe\0\n\n\n{\"level\":\"forged\"}\n",
    )?;
    output.flush()?;
    io::stderr().write_all(b"stray line on standard error\nno end of line")?;
    Ok(())
}

fn flood_output(megabytes: u64) -> Outcome {
    let line = [b"flood ".repeat(20), b"\n".to_vec()].concat();
    let mut output = io::stdout().lock();
    for _ in 0..(megabytes << 20) / line.len() as u64 {
        output.write_all(&line)?;
    }
    output.flush()?;
    Ok(())
}
