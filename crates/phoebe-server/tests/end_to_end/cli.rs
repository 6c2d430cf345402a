//! The command line from outside: what it prints and its exit codes.

use std::fs;
use std::path::Path;

use crate::support::{Finished, Program, fake_worker, phoebe_python};

fn phoebe_server(folder: &Path, arguments: &[&str]) -> Finished {
    Program::new(folder).arguments(arguments).run()
}

#[test]
fn keys_are_random_and_have_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    for (arguments, prefix) in
        [(&["generate-key"][..], "phoebe_"), (&["generate-key", "--prefix", "class"], "class_")]
    {
        let finished = phoebe_server(folder.path(), arguments);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let digits = finished.stdout.trim_end().strip_prefix(prefix).unwrap().to_owned();
        assert!(digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        keys.push(digits);
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn the_version_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let finished = phoebe_server(folder.path(), &["--version"]);
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.stdout.trim(), format!("phoebe-server {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_settings_file_stops_the_start_with_the_line_and_the_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "[server]\nport = 0\n\n[session]\nidle_timeout_second = 5\n").unwrap();
    let finished = phoebe_server(folder.path(), &["run"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    for part in ["config.toml", "5", "idle_timeout_seconds"] {
        assert!(finished.stderr.contains(part), "{part} is missing: {}", finished.stderr);
    }
    assert!(!folder.path().join("data").exists(), "a wrong file was taken for defaults");
}

#[test]
fn a_named_settings_file_that_is_missing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let finished = phoebe_server(folder.path(), &["run", "--config", "nowhere.toml"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("nowhere.toml"), "{}", finished.stderr);
}

#[test]
fn an_unsafe_secret_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for secret in ["", "test"] {
        let finished = Program::new(folder.path())
            .arguments(["run", "--port", "0"])
            .environment("PHOEBE_SERVER__AUTH__MODE", "jwt")
            .environment("PHOEBE_JWT_SECRET_KEY", secret)
            .run();
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains("jwt_secret_key"), "{}", finished.stderr);
    }
}

#[test]
fn the_settings_in_force_are_printed_with_their_origin_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("config.toml"),
        "[auth]\nmode = \"jwt\"\njwt_secret_key = \"a very secret text, long enough\"\n",
    )
    .unwrap();
    let finished = Program::new(folder.path())
        .arguments(["config"])
        .environment("PHOEBE_SERVER__SERVER__PORT", "9123")
        .run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!finished.stdout.contains("very secret"), "{}", finished.stdout);
    assert!(finished.stdout.contains("PHOEBE_SERVER__SERVER__PORT"), "{}", finished.stdout);
    let printed: toml::Table = finished.stdout.parse().unwrap();
    assert_eq!(printed["server"]["port"].as_integer(), Some(9123));
    assert_eq!(printed["auth"]["mode"].as_str(), Some("jwt"));
}

#[test]
fn a_database_is_made_and_never_silently_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("data/sessions.db");
    assert_eq!(phoebe_server(folder.path(), &["init-db"]).code, Some(0));
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute("INSERT INTO users (email, hashed_password) VALUES ('a@x.org', 'x')", [])
        .unwrap();
    drop(connection);
    let users = |path: &Path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.query_row("SELECT count(*) FROM users", [], |row| row.get::<_, i64>(0)).unwrap()
    };

    let asked = phoebe_server(folder.path(), &["init-db"]);
    assert_ne!(asked.code, Some(0), "{asked:?}");
    assert_eq!(users(&database), 1, "the database was replaced without a yes");

    let forced = phoebe_server(folder.path(), &["init-db", "--force"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(users(&database), 0);
    let copy = fs::read_dir(folder.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("backup"))
        .unwrap();
    assert_eq!(users(&copy), 1, "the copy is not what was there");
}

#[test]
fn the_doctor_names_what_is_wrong_in_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |python: &Path| {
        Program::new(folder.path())
            .arguments(["doctor"])
            .environment("PHOEBE_SERVER__WORKER__PYTHON", python)
            .run()
    };
    let missing = doctor(Path::new("/nowhere/python"));
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stdout.contains("/nowhere/python"), "{missing:?}");
    let well = doctor(fake_worker());
    assert_eq!(well.code, Some(0), "{well:?}");
}

/// Walks what PHOEBE's script accepts and the call that PHOEBE itself makes of it.
#[test]
fn every_call_that_is_meant_for_phoebes_script_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let python = phoebe_python().unwrap_or_else(|| {
        phoebe_server(folder.path(), &["environment"]).stdout.trim().to_owned().into()
    });
    let script = python.with_file_name("phoebe-server");
    let source = fs::read_to_string(&script).expect("PHOEBE installs its script");
    let arguments = source.split(".add_argument('").skip(1);
    let arguments: Vec<&str> = arguments.filter_map(|rest| rest.split('\'').next()).collect();
    assert!(arguments.contains(&"--parent") && arguments.len() > 5, "{arguments:?}");

    let find = "import importlib.util; print(importlib.util.find_spec('phoebe').origin)";
    let found = std::process::Command::new(&python).args(["-I", "-c", find]).output().unwrap();
    let package = String::from_utf8(found.stdout).unwrap();
    let bundle = Path::new(package.trim()).with_file_name("frontend").join("bundle.py");
    let bundle = fs::read_to_string(bundle).unwrap();
    let call = bundle.split_once("'phoebe-server ").expect("PHOEBE calls it by its name").1;
    let call: Vec<&str> = call.split(" &'").next().unwrap().split(' ').collect();
    assert!(call.contains(&"--parent"), "{call:?}");

    for arguments in arguments.iter().map(std::slice::from_ref).chain([&call[..]]) {
        let refused = Program::new(folder.path())
            .arguments(arguments)
            .environment("PATH", "/nowhere")
            .environment("PHOEBE_SERVER__WORKER__PYTHON", &python)
            .run();
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(script.to_str().unwrap()), "{arguments:?}: {refused:?}");
    }
}
