//! What each signal does to a real server: all of them, and a terminal that is closed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Log, Reply, SERVER, TestServer, until};

const SOON: Duration = Duration::from_secs(30);

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Effect {
    /// An orderly end.
    Stops,
    /// Settings are read again.
    Reloads,
    /// A line in the log.
    Told,
    Nothing,
    /// The server waits for SIGCONT.
    Pauses,
    /// The same, or nothing.
    MayPause,
    /// An end at once: a crash, or nobody can help it.
    Ends,
    /// The C library keeps it to itself.
    Reserved,
}

fn effect(number: i32) -> Effect {
    use libc::*;
    match number {
        SIGINT | SIGTERM | SIGQUIT | SIGXCPU => Effect::Stops,
        SIGHUP => Effect::Reloads,
        SIGUSR1 | SIGUSR2 | SIGALRM | SIGVTALRM | SIGPROF | SIGIO | SIGPWR | SIGSTKFLT => {
            Effect::Told
        }
        SIGPIPE | SIGXFSZ | SIGTTIN | SIGTTOU | SIGCHLD | SIGURG | SIGWINCH | SIGCONT => {
            Effect::Nothing
        }
        SIGSTOP => Effect::Pauses,
        // It pauses where a shell is there to let it go on.
        SIGTSTP => Effect::MayPause,
        // Rust's runtime takes the first for a fault of the stack, and waits for it to come again.
        SIGBUS | SIGSEGV => Effect::Nothing,
        SIGKILL | SIGILL | SIGTRAP | SIGABRT | SIGFPE | SIGSYS => Effect::Ends,
        32 | 33 => Effect::Reserved,
        34..=64 => Effect::Told,
        _ => panic!("signal {number} is in no row"),
    }
}

fn kill(number: i32, pid: i32) {
    let sent = Command::new("kill").arg(format!("-{number}")).arg(pid.to_string()).status();
    assert!(sent.unwrap().success());
}

/// How many entries the log has with this message.
fn count(log: &Log, message: &str) -> usize {
    let is_it = |entry: &Value| entry["message"].as_str().is_some_and(|m| m.contains(message));
    log.entries().iter().filter(|entry| is_it(entry)).count()
}

async fn one_more(log: &Log, message: &str, before: usize) {
    until(message, SOON, async || (count(log, message) > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signal_ends_a_server_silently() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    for number in 1..=libc::SIGRTMAX() {
        let pid = server.pid();
        let before = |message| count(server.log(), message);
        match effect(number) {
            Effect::Reserved => continue,
            Effect::Stops => {
                let stopping = before("stopping");
                kill(number, pid);
                let status = server.wait_for_exit(SOON).await;
                assert!(status.success(), "{number}: {status}");
                assert_eq!(count(server.log(), "stopping"), stopping + 1, "{number}");
                server.start_again().await;
            }
            Effect::Ends => {
                kill(number, pid);
                assert!(!server.wait_for_exit(SOON).await.success(), "{number}");
                server.start_again().await;
            }
            Effect::Pauses => {
                kill(number, pid);
                let stat = format!("/proc/{pid}/stat");
                until("it pauses", SOON, async || {
                    let stat = fs::read_to_string(&stat).unwrap();
                    stat.rsplit_once(')').unwrap().1.trim().starts_with('T').then_some(())
                })
                .await;
                kill(libc::SIGCONT, pid);
            }
            Effect::Reloads => {
                let reloaded = before("settings reloaded");
                kill(number, pid);
                one_more(server.log(), "settings reloaded", reloaded).await;
            }
            Effect::Told => {
                let told = before("a signal that means nothing");
                kill(number, pid);
                one_more(server.log(), "a signal that means nothing", told).await;
            }
            Effect::MayPause => {
                kill(number, pid);
                kill(libc::SIGCONT, pid);
            }
            Effect::Nothing => kill(number, pid),
        }
        server.get("/health").await.expect(200);
    }
    let value = json!({"command": "get_value", "twig": "a"});
    assert_eq!(server.session(&session.id).result(value).await, 1, "a session survives all that");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_takes_what_a_running_server_can_take_and_names_the_rest() {
    let server = TestServer::builder()
        .fake()
        .set("auth.mode", "password")
        .set("auth.password", "first")
        .start()
        .await;
    let log_in = async |password: &str| {
        let body = json!({"email": "", "password": password});
        server.post("/auth/login", &body).await.status
    };
    let health = async || drop(server.get("/health").await.expect(200));
    assert_eq!(log_in("first").await, 200);
    let original = fs::read_to_string(server.config()).unwrap();

    // A file that is wrong is told, and changes nothing.
    fs::write(server.config(), format!("{original}\n[logging]\nlevel = \"loud\"\n")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    one_more(server.log(), "the settings cannot be reloaded", 0).await;
    assert_eq!(log_in("first").await, 200);

    let mut settings: toml::Table = original.parse().unwrap();
    let mut set = |section: &str, key: &str, value: toml::Value| {
        let section = settings.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().unwrap().insert(key.to_owned(), value);
    };
    set("auth", "password", "swordfish".into());
    set("logging", "level", "WARNING".into());
    set("resources", "queue_depth", 7.into());
    fs::write(server.config(), settings.to_string()).unwrap();
    server.signal(rustix::process::Signal::HUP);
    let entry = server
        .log()
        .wait_for("what needs a restart", SOON, |entry| {
            entry["message"] == "changed settings need a restart"
        })
        .await;
    assert_eq!(entry["changed"], "[resources] queue_depth");
    assert_eq!(log_in("swordfish").await, 200);
    assert_eq!(log_in("first").await, 401);
    let requests = count(server.log(), "request");
    health().await;
    assert_eq!(count(server.log(), "request"), requests, "only warnings are logged");
    assert!(!server.log().text().contains("swordfish"), "a password is in the log");

    // For the harness, which reads of the end.
    fs::write(server.config(), original).unwrap();
    server.signal(rustix::process::Signal::HUP);
    until("the first password again", SOON, async || (log_in("first").await == 200).then_some(()))
        .await;
    server.finish().await;
}

/// A server that was started from a terminal, which `script` plays.
struct OnTerminal {
    script: Child,
    log: Log,
    client: Client,
}

impl OnTerminal {
    /// On the settings and data of a server that is stopped. `nohup`: with SIGHUP ignored.
    async fn start(server: &TestServer, nohup: bool) -> Self {
        let path: PathBuf = server.root().join("terminal.log");
        let _ = fs::remove_file(&path);
        // The tests may run under `nohup` themselves, which the server would inherit.
        let program = format!(
            "exec env {} {SERVER} run --port 0 --config {}{}",
            if nohup { "--ignore-signal=HUP" } else { "--default-signal=HUP" },
            server.config().display(),
            if nohup { format!(" 2>>{}", path.display()) } else { String::new() },
        );
        let typescript: &Path = if nohup { Path::new("/dev/null") } else { &path };
        let script = Command::new("script")
            .args(["--quiet", "--flush", "--command", &program])
            .arg(typescript)
            .current_dir(server.root())
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = Log::new(path);
        let entry = log.wait_for("it listens", SOON, |entry| entry["message"] == "listening").await;
        let client = Client::new(format!("http://{}", entry["address"].as_str().unwrap()));
        Self { script, log, client }
    }

    /// Closes the terminal.
    fn close(&mut self) {
        self.script.kill().unwrap();
        self.script.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_terminal_stops_in_order_though_nothing_can_be_logged_any_more() {
    let mut server = TestServer::builder().fake().start().await;
    server.stop().await;
    let mut on_terminal = OnTerminal::start(&server, false).await;
    let session = on_terminal.client.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    on_terminal.close();
    until("nothing of it is left", SOON, async || server.workers().is_empty().then_some(())).await;
    // A server that is ended otherwise leaves its number there.
    until("it stopped in order", SOON, async || {
        fs::read(server.data().join("server.lock")).unwrap().is_empty().then_some(())
    })
    .await;
    server.start_again().await;
    let value = json!({"command": "get_value", "twig": "a"});
    assert_eq!(server.session(&session.id).result(value).await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_nohup_the_server_outlives_its_terminal_and_reloads() {
    let mut server = TestServer::builder().fake().start().await;
    server.stop().await;
    let mut on_terminal = OnTerminal::start(&server, true).await;
    on_terminal.close();
    one_more(&on_terminal.log, "settings reloaded", 0).await;
    let health = on_terminal.client.request(Method::GET, "/health");
    assert_eq!(Reply::of(health).await.status, 200);
    let zygote = server.workers().into_iter().find(|process| process.mode() == "zygote").unwrap();
    kill(libc::SIGTERM, zygote.parent);
    one_more(&on_terminal.log, "stopped", 0).await;
    server.start_again().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_still_prepares_stops_at_once_and_takes_sighup_later() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python");
    fs::write(&python, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let log = Log::new(folder.path().join("log"));
    let output = fs::File::create(log.path()).unwrap();
    let mut child = Command::new(SERVER)
        .args(["run", "--port", "0", "--log-format", "json", "--database"])
        .arg(folder.path().join("data/sessions.db"))
        .arg("--python")
        .arg(&python)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(output)
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let preparing = until("it prepares", SOON, async || {
        let all: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().collect();
        all.iter().find_map(|task| {
            let text = fs::read_to_string(task.path().join("children")).ok()?;
            text.split_whitespace().next()?.parse::<i32>().ok()
        })
    })
    .await;
    kill(libc::SIGHUP, pid);
    kill(libc::SIGUSR1, pid);
    one_more(&log, "a signal that means nothing", 0).await;
    assert!(child.try_wait().unwrap().is_none());
    kill(libc::SIGTERM, pid);
    let status = until("its end", SOON, async || child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    assert_eq!(count(&log, "stopped during the start"), 1);
    kill(libc::SIGKILL, preparing);
}
