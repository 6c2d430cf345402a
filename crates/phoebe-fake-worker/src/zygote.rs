//! Stands for the zygote: starts a process for each fork request and reports what becomes of it.

use std::env;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, exit};
use std::sync::Arc;
use std::thread;

use phoebe_protocol::packet::{FromZygote, ToZygote};

use crate::behaviour::{Behaviour, FATAL_TEXT};
use crate::{Outcome, channel, commands};

/// The mode in which the zygote starts its workers. Standard input is the lifeline, on which
/// `Start` waits.
pub(crate) const FORKED: &str = "forked";

/// Serves fork requests until the control channel closes.
pub(crate) fn run(program: &str, behaviour: Behaviour) -> Outcome {
    let control = Arc::new(channel::standard_input()?);
    match behaviour {
        Behaviour::Fatal => {
            let packet = FromZygote::Fatal { fatal: FATAL_TEXT.to_owned() };
            return channel::send(&*control, &packet, &[]);
        }
        Behaviour::ZygoteDies => exit(3),
        Behaviour::ZygoteGarbage => channel::send_bytes(&*control, b"\xff{garbage", &[])?,
        Behaviour::ZygoteHangs => {}
        _ => channel::send(&*control, &FromZygote::Ready { ready: commands::info() }, &[])?,
    }
    while let Some((request, descriptors)) = channel::receive::<ToZygote>(&*control)? {
        let number = match request {
            ToZygote::Fork { fork } => fork,
            ToZygote::Passbands { passbands } => {
                let names = commands::info().passbands;
                channel::send(&*control, &FromZygote::Passbands { passbands, names }, &[])?;
                continue;
            }
        };
        match start_worker(program, behaviour, descriptors) {
            Ok(child) => {
                channel::send(&*control, &forked(number, &child), &[])?;
                report_exit(child, Arc::clone(&control));
            }
            Err(error) => {
                let packet = FromZygote::Failed { failed: number, error: error.to_string() };
                channel::send(&*control, &packet, &[])?;
            }
        }
    }
    Ok(())
}

fn start_worker(program: &str, behaviour: Behaviour, descriptors: Vec<OwnedFd>) -> Outcome<Child> {
    if behaviour == Behaviour::ForkFails {
        return Err("the fork failed: Cannot allocate memory".into());
    }
    let [lifeline, log] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|others| format!("a fork request has 2 descriptors, not {}", others.len()))?;
    let child = Command::new(env::current_exe()?)
        .arg0(program)
        .arg(FORKED)
        .stdin(lifeline)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(child)
}

fn forked(number: u64, child: &Child) -> FromZygote {
    FromZygote::Forked { forked: number, pid: child.id().cast_signed() }
}

fn report_exit(mut child: Child, control: Arc<OwnedFd>) {
    thread::spawn(move || {
        let pid = child.id().cast_signed();
        if let Ok(status) = child.wait() {
            let packet =
                FromZygote::Exited { exited: pid, code: status.code(), signal: status.signal() };
            // The server may have gone; then nobody wants to know.
            let _ = channel::send(&*control, &packet, &[]);
        }
    });
}
