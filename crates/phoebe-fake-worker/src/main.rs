//! A program that stands where the Python interpreter stands, for tests: it speaks
//! `docs/protocol.md` without PHOEBE.
//!
//! The server runs it as it runs Python, `PROGRAM … zygote|spawn|probe`; the last argument decides.
//! A fourth mode, `forked`, is what its own zygote starts for each fork request.
//!
//! How it misbehaves while it starts is chosen by the name it is started under (a link to the
//! program): `phoebe-fake-worker-WORD`, with the words of [`behaviour::Behaviour`]. How it
//! misbehaves later is chosen by the field `misbehave` of any command, with the words of
//! [`misbehaviour::Misbehaviour`]. Without either it is a good worker with a small map in place of
//! a Bundle, see [`commands`].
//!
//! It must not be clever: what it does wrong, it does on purpose and at once.

mod behaviour;
mod channel;
mod commands;
mod lifeline;
mod misbehaviour;
mod worker;
mod zygote;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use behaviour::Behaviour;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut arguments = env::args();
    let program = arguments.next().unwrap_or_default();
    let mode = arguments.next_back().unwrap_or_default();
    match run(&program, &mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: &str, mode: &str) -> Outcome {
    let behaviour = Behaviour::from_program(program)?;
    match mode {
        "zygote" => zygote::run(program, behaviour),
        "spawn" => worker::run_spawned(behaviour),
        zygote::FORKED => worker::run_forked(behaviour),
        "probe" => probe(),
        other => Err(format!("the last argument is a mode, not {other:?}").into()),
    }
}

/// Says that all is well, whatever happens later: packages may be there and yet fail to be
/// imported.
fn probe() -> Outcome {
    println!("{}", serde_json::to_string(&commands::info())?);
    Ok(())
}
