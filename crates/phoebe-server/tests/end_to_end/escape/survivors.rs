//! Processes that code in a Bundle leaves behind on purpose: each end of their session, of their
//! worker or of the server is theirs too.

use std::fs;
use std::path::PathBuf;
use std::process::id;
use std::time::Duration;

use super::delivery::{self, Delivery};
use crate::support::{Session, TestServer, until};
use rustix::process::{Pid, Signal, kill_process};

/// Long enough on a busy machine; no test waits for it to pass.
const SOON: Duration = Duration::from_secs(20);
/// How many processes the payload starts.
const COUNT: usize = 20;

/// Starts processes that hold no descriptor, ignore signals, carry no environment, and are nobody's
/// children; then goes on, for what a command leaves is ended with it.
const PAYLOAD: &str = r#"
import ctypes, os, signal, time


def _stays():
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    environment = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    strings = []
    while address := environment[len(strings)]:
        strings.append((address, len(ctypes.string_at(address))))
    for address, length in strings:
        ctypes.memset(address, 0, length)
    os.closerange(0, 4096)
    while True:
        time.sleep(1)


for _ in range(COUNT):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _stays()
        os._exit(0)
    os.waitpid(child, 0)
time.sleep(600)
"#;

/// What comes to an end.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The worker, by its own hand.
    Worker,
    /// The session, at its user's request.
    Session,
    /// The server, in order.
    ServerInOrder,
    /// All but what the payload started, in one moment; then the server starts again.
    ServerAndAllThatWatches,
}

impl End {
    const ALL: [Self; 4] =
        [Self::Worker, Self::Session, Self::ServerInOrder, Self::ServerAndAllThatWatches];

    async fn bring(self, server: &mut TestServer, session: &Session, worker: i32) {
        match self {
            Self::Worker => signal(worker, Signal::KILL),
            Self::Session => {
                session.end().await.expect(200);
            }
            Self::ServerInOrder => {
                server.stop().await;
            }
            Self::ServerAndAllThatWatches => {
                let watching: Vec<i32> = server.workers().iter().map(|one| one.pid).collect();
                let stopped = watching.iter().filter(|pid| group(**pid) != Some(worker));
                let stopped: Vec<i32> = stopped.copied().chain([server.pid()]).collect();
                stopped.iter().for_each(|pid| signal(*pid, Signal::STOP));
                signal(worker, Signal::KILL);
                until("the worker is gone", SOON, async || {
                    (group(worker).is_none() && threads(worker) <= 1).then_some(())
                })
                .await;
                stopped.iter().filter(|pid| **pid != server.pid()).for_each(|pid| {
                    signal(*pid, Signal::KILL);
                });
                server.kill_nine().await;
                assert_eq!(members(worker).len(), COUNT, "they are to outlive all who watch");
                server.start_again().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_payload_leaves_outlives_its_end() {
    for end in End::ALL {
        let mut server = super::server("enforce").alone().start().await;
        let session = server.start_session().await;
        let worker = worker(&server);
        delivery::prepare(&session).await;
        let program = PAYLOAD.replace("COUNT", &COUNT.to_string());
        let attacker = session.clone();
        let attack = tokio::spawn(async move { Delivery::Code.deliver(&attacker, &program).await });
        until("the processes are there", SOON, async || {
            assert!(!attack.is_finished(), "the payload ended");
            let free = members(worker).into_iter().filter(|pid| holds_nothing(*pid)).count();
            (free == COUNT).then_some(())
        })
        .await;

        end.bring(&mut server, &session, worker).await;

        until(&format!("nothing is left after {end:?}"), SOON, async || {
            members(worker).is_empty().then_some(())
        })
        .await;
        if matches!(end, End::ServerInOrder) {
            server.start_again().await;
        }
        attack.abort();
        server.start_session().await.ping().await;
        server.finish().await;
    }
}

/// Memory and processes are not looked at: the machine may have no controllers left for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_a_cgroup_that_goes_with_it() {
    let Some(place) = Place::make() else { return };
    let path = place.0.to_str().unwrap();
    let mut server = super::server("enforce").alone().set("worker.cgroup", path).start().await;
    let session = server.start_session().await;
    let worker = worker(&server);
    let own = cgroup_of(worker);
    assert!(own.contains(&format!("phoebe-{}-", server.instance())), "{own}");
    assert_eq!(place.cgroups().len(), 1);
    session.end().await.expect(200);
    until("the cgroup is gone", SOON, async || place.cgroups().is_empty().then_some(())).await;

    let sessions = [server.start_session().await, server.start_session().await];
    assert_eq!(place.cgroups().len(), 2);
    server.kill_nine().await;
    server.start_again().await;
    assert_eq!(place.cgroups(), [""; 0], "left by the earlier run");
    for session in sessions {
        server.session(&session.id).ping().await;
    }
    assert_eq!(place.cgroups().len(), 2);
    server.stop().await;
    assert_eq!(place.cgroups(), [""; 0], "left by an end in order");
    server.finish().await;
}

/// A cgroup in which the server may make its own.
struct Place(PathBuf);

impl Place {
    /// Makes one, where there is a hierarchy of version 2 and this user may.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let folder = PathBuf::from(mount.split(' ').nth(1)?).join(format!("test-{}", id()));
        fs::create_dir(&folder).ok()?;
        Some(Self(folder))
    }

    fn cgroups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn cgroup_of(pid: i32) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    all.lines().find(|line| line.starts_with("0::")).unwrap().to_owned()
}

/// The only worker.
fn worker(server: &TestServer) -> i32 {
    let processes = server.workers();
    let zygote = processes.iter().find(|one| one.parent == server.pid()).unwrap().pid;
    processes.iter().find(|one| one.parent == zygote).unwrap().pid
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The process group of a process that lives.
fn group(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(group)
}

/// A process that has ended is listed as such before its last thread is gone.
fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

fn holds_nothing(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut open| open.next().is_none())
}

/// Who is in a process group.
fn members(of: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| group(*pid) == Some(of)).collect()
}
