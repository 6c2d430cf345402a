//! Environments made with shell scripts that behave as Python does, well or badly; and one with
//! real Python and PHOEBE, where `PHOEBE_TEST_ENVIRONMENT=1` allows the download.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::private::LOCK;
use super::*;

const LOCK_OF_TEST: &str =
    "phoebe==2.5.4 \\\n    --hash=sha256:00\npyzmq==1.0\ncolorama==1.0 ; sys_platform == 'win32'\n";

/// A machine with nothing but what a test puts on it.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(machine.bin()).expect("made");
        machine
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn surroundings(&self) -> Surroundings<'static> {
        // The scripts themselves need `cp` and `mkdir`, which they find by their own PATH.
        let cache = self.folder.path().join("cache");
        Surroundings { cache, path: self.bin().into_os_string(), lock: LOCK_OF_TEST }
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        path
    }

    /// A Python of `version` whose `venv`, `pip` and first import do as said.
    fn python(&self, name: &str, version: &str, venv: &str, pip: &str, import: &str) -> PathBuf {
        let calls = self.folder.path().join("calls");
        self.script(
            name,
            &format!(
                r#"echo "$*" | head -n 1 >> {calls}
case "$*" in
  *phoebe-server-probe*) echo "phoebe-server-probe {version}" ;;
  *"-m venv"*) {venv}
    mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  *"-m pip"*) {pip}
    echo ok ;;
  *"import phoebe"*) {import}
    echo ok ;;
esac"#,
                calls = calls.display()
            ),
        )
    }

    fn good_python(&self, name: &str, version: &str) -> PathBuf {
        self.python(name, version, "", "", "")
    }

    /// How many times the programs of this machine were called with `what`.
    fn calls(&self, what: &str) -> usize {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.contains(what)).count()
    }

    fn start(&self) -> Result<PathBuf, EnvironmentError> {
        private::python(&self.surroundings(), &Progress::new())
    }

    fn start_error(&self) -> String {
        self.start().expect_err("refused").to_string()
    }

    fn named(&self, body: &str) -> String {
        let python = self.script("named", body);
        named::check(&python).expect_err("refused").to_string()
    }
}

#[test]
fn an_environment_is_made_once_and_reused() {
    let machine = Machine::new();
    machine.good_python("python3", "3 12");
    let python = machine.start().expect("made");
    assert!(python.ends_with("bin/python"), "{}", python.display());
    assert_eq!(machine.calls("-m pip install --require-hashes"), 1);
    let before = machine.calls("");
    assert_eq!(machine.start().expect("reused"), python);
    assert_eq!(machine.calls(""), before, "a reused environment runs no program");
    let list = python.ancestors().nth(2).expect("folder").join("requirements.lock");
    assert_eq!(fs::read_to_string(list).expect("there"), LOCK_OF_TEST);
}

#[test]
fn another_lock_file_has_another_environment() {
    let machine = Machine::new();
    machine.good_python("python3", "3 12");
    let first = machine.start().expect("made");
    let other = Surroundings { lock: "phoebe==2.6.0\n", ..machine.surroundings() };
    assert_ne!(private::python(&other, &Progress::new()).expect("made"), first);
    assert_eq!(machine.start().expect("reused"), first);
}

#[test]
fn a_broken_environment_is_made_anew() {
    let machine = Machine::new();
    let base = machine.good_python("python3", "3 12");
    let python = machine.start().expect("made");
    let folder = python.ancestors().nth(2).expect("folder").to_owned();
    let breakages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(folder.join("phoebe-server-complete")).expect("removed"),
        &|| fs::remove_file(&python).expect("removed"),
        &|| {
            fs::remove_file(&python).expect("removed");
            symlink(folder.join("gone"), &python).expect("linked");
        },
        // The system's Python became another one.
        &|| {
            fs::remove_file(&python).expect("removed");
            symlink(&base, &python).expect("linked");
        },
    ];
    for (number, breakage) in breakages.iter().enumerate() {
        breakage();
        assert_eq!(private::existing(&machine.surroundings()), None, "breakage {number}");
        assert_eq!(machine.start().expect("made anew"), python);
        assert_eq!(machine.calls("-m pip"), number + 2);
    }
}

#[test]
fn a_failed_start_leaves_nothing_that_a_later_one_trusts() {
    let machine = Machine::new();
    machine.python("python3", "3 12", "", "echo 'something odd'; exit 3", "");
    let text = machine.start_error();
    assert!(text.contains("installing PHOEBE failed") && text.contains("something odd"), "{text}");
    machine.good_python("python3", "3 12");
    machine.start().expect("made");
}

#[test]
fn two_starts_at_once_make_one_environment() {
    let machine = Machine::new();
    machine.python("python3", "3 12", "", "sleep 0.2", "");
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| machine.start())).collect();
        let first = machine.start().expect("made");
        for start in starts {
            assert_eq!(start.join().expect("no panic").expect("made"), first);
        }
    });
    assert_eq!(machine.calls("-m pip"), 1);
}

#[test]
fn a_pip_that_outlives_its_start_holds_the_lock() {
    let machine = Machine::new();
    let look = format!("ls -l /proc/$$/fd >> {}/calls", machine.folder.path().display());
    machine.python("python3", "3 12", "", &look, "");
    machine.start().expect("made");
    // Another test's lock may be inherited too: all tests share a process.
    let lock = machine.folder.path().join("cache/python.lock");
    assert_eq!(machine.calls(lock.to_str().expect("plain")), 1);
}

#[test]
fn the_best_interpreter_is_found_past_broken_and_old_ones() {
    let machine = Machine::new();
    machine.script("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127");
    machine.good_python("python3.12", "3 8");
    machine.good_python("python3.11", "3 11 ensurepip");
    machine.good_python("python3", "3 10");
    fs::write(machine.bin().join("python3.10"), "no program").expect("written");
    let python = machine.start().expect("made");
    assert!(python.to_string_lossy().contains("-3.10/"), "{}", python.display());
}

#[test]
fn no_python_is_an_error() {
    let text = Machine::new().start_error();
    assert!(text.starts_with("no Python 3.10 or newer was found on PATH;"), "{text}");
    assert!(text.contains("apt install python3") && text.contains("[worker] python"), "{text}");
}

#[test]
fn an_old_python_is_an_error() {
    let machine = Machine::new();
    let python = machine.good_python("python3", "3 8");
    let text = machine.start_error();
    assert!(text.contains(&format!("({} is 3.8)", python.display())), "{text}");
}

#[test]
fn a_missing_venv_module_is_an_error() {
    let machine = Machine::new();
    machine.good_python("python3", "3 12 ensurepip");
    let text = machine.start_error();
    assert!(text.contains("no module ensurepip") && text.contains("apt install python3-venv"));
    let late = "echo 'The virtual environment was not created successfully because ensurepip is \
                not available.'; exit 1";
    machine.python("python3", "3 12", late, "", "");
    assert!(machine.start_error().contains("apt install python3-venv"));
}

#[test]
fn a_pip_error_is_reported_with_its_last_lines() {
    let cases = [
        (
            "NewConnectionError: Failed to establish a new connection: [Errno -3] Temporary \
             failure",
            "the package index cannot be reached; connect to the internet",
        ),
        (
            "ERROR: Could not find a version that satisfies astropy==8.0.2 (from versions: none)",
            "the package index cannot be reached",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device", "XDG_CACHE_HOME"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "was not installed",
        ),
        ("error: Failed building wheel for phoebe", "apt install g++ python3-dev"),
        ("Killed", "installing PHOEBE failed"),
    ];
    for (said, way_out) in cases {
        let machine = Machine::new();
        machine.python("python3", "3 12", "", &format!("echo '{said}' >&2; exit 1"), "");
        let text = machine.start_error();
        assert!(text.contains(way_out) && text.contains(&format!("\n    {said}")), "{text}");
    }
}

#[test]
fn a_failed_first_import_is_an_error() {
    let machine = Machine::new();
    machine.python("python3", "3 12", "", "", "echo 'ImportError: libgomp.so.1' >&2; exit 1");
    let text = machine.start_error();
    assert!(text.contains("importing PHOEBE for the first time failed"), "{text}");
    assert!(text.contains("libgomp.so.1"), "{text}");
}

#[test]
fn an_unwritable_cache_is_an_error() {
    let machine = Machine::new();
    machine.good_python("python3", "3 12");
    fs::write(machine.folder.path().join("cache"), "a file").expect("written");
    let text = machine.start_error();
    assert!(text.contains("cannot be created") && text.contains("XDG_CACHE_HOME"), "{text}");
}

#[test]
fn a_named_interpreter_must_run_and_have_phoebe() {
    let machine = Machine::new();
    let missing = named::check(Path::new("/nowhere/python")).expect_err("refused").to_string();
    assert!(missing.contains("/nowhere/python") && missing.contains("does not run"), "{missing}");
    let text = machine.named("echo 'Illegal instruction' >&2; exit 132");
    assert!(text.contains("Illegal instruction"), "{text}");
    let text = machine.named("kill -9 $$");
    assert!(text.contains("signal: 9"), "{text}");
    let answer = |json: &str| machine.named(&format!("echo '{json}'"));
    let text = answer(r#"{"python": "3.8.10", "missing": [], "phoebe": "2.4.1"}"#);
    assert!(text.contains("it is Python 3.8.10, and 3.10 is the oldest"), "{text}");
    let text = answer(r#"{"python": "3.11.7", "missing": ["pyzmq", "orjson"], "phoebe": "2.5.4"}"#);
    assert!(text.contains("lacks pyzmq and orjson") && text.contains("pip install"), "{text}");
    let text = answer(r#"{"python": "3.11.7", "missing": [], "phoebe": "2.3.58"}"#);
    assert!(text.contains("PHOEBE 2.3.58") && text.contains("--upgrade phoebe"), "{text}");
}

#[test]
fn a_named_interpreter_with_all_packages_is_taken_as_it_is() {
    let machine = Machine::new();
    let good = r#"echo '{"python": "3.11.7", "missing": [], "phoebe": "2.4.22"}'"#;
    let python = machine.script("named", good);
    assert_eq!(named::check(&python).expect("accepted"), python);
}

#[test]
fn a_program_that_hangs_is_ended() {
    let machine = Machine::new();
    let script = machine.script("hangs", "echo first; exec sleep 600");
    let mut program = std::process::Command::new(script);
    let mut seen = Vec::new();
    let limit = std::time::Duration::from_millis(300);
    let outcome = command::run(&mut program, limit, |line| seen.push(line.to_owned()));
    let outcome = outcome.expect("started");
    assert!(!outcome.success() && outcome.end() == "it took too long", "{}", outcome.end());
}

#[test]
fn the_real_environment_imports_phoebe() {
    if std::env::var_os("PHOEBE_TEST_ENVIRONMENT").is_none() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let surroundings = Surroundings { cache: cache.path().to_owned(), path, lock: LOCK };
    let python = private::python(&surroundings, &Progress::new()).expect("made");
    named::check(&python).expect("complete");
}
