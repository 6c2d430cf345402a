//! The program as a user calls it, where it needs neither Python nor a network.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in `folder`, with nothing of this machine's settings.
fn program(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_phoebe-server"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn help_goes_to_standard_output() {
    let folder = folder();
    for command in [
        "run",
        "init-db",
        "user",
        "api-key",
        "generate-key",
        "config",
        "cleanup",
        "doctor",
        "completions",
    ] {
        let help = program(folder.path(), &[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        assert!(text(&help.stdout).contains("Usage: phoebe-server"), "{command}");
    }
}

#[test]
fn wrong_arguments_end_with_2() {
    let folder = folder();
    for arguments in [&["rnu"][..], &[], &["run", "--prot", "1"], &["completions", "sh"]] {
        let output = program(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_that_needs_settings_refuses_wrong_ones() {
    let folder = folder();
    std::fs::write(folder.path().join("config.toml"), "[server]\nprot = 1\n").expect("written");
    for command in ["run", "config", "init-db", "cleanup", "environment"] {
        let output = program(folder.path(), &[command]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let errors = text(&output.stderr);
        let expected = "config.toml:2:1: unknown key prot in [server]; did you mean port?";
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn a_wrong_flag_is_named() {
    let folder = folder();
    let output = program(folder.path(), &["run", "--port", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--port: [server] port"));
}

#[test]
fn config_prints_toml_that_it_reads_again() {
    let folder = folder();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[server]\nport = 9000\n").expect("written");
    let printed = text(&program(folder.path(), &["config"]).stdout);
    assert!(printed.contains("# settings file: config.toml"), "{printed}");
    let port = printed.lines().find(|line| line.starts_with("port = 9000")).expect("the port");
    assert!(port.ends_with("# from config.toml:2"), "{port}");
    let values: toml::Table = printed.parse().expect("TOML");
    std::fs::write(&file, &printed).expect("written");
    let again = text(&program(folder.path(), &["config"]).stdout);
    assert_eq!(again.parse::<toml::Table>().expect("TOML"), values);
}

#[test]
fn completions_know_the_commands() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let output = program(folder.path(), &["completions", shell]);
        assert!(text(&output.stdout).contains("generate-key"), "{shell}");
    }
}

#[test]
fn a_start_without_phoebe_says_what_to_do() {
    let folder = folder();
    let output = program(folder.path(), &["run", "--python", "/nowhere/python"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("[worker] python names /nowhere/python"), "{errors}");
}

#[test]
fn a_setting_without_effect_is_told_at_the_start() {
    let folder = folder();
    let settings = "[server]\nworkers = 4\n[worker]\npython = \"/nowhere/python\"\n";
    std::fs::write(folder.path().join("config.toml"), settings).expect("written");
    let errors = text(&program(folder.path(), &["run"]).stderr);
    assert!(errors.contains("WARN the setting [server] workers (config.toml:2)"), "{errors}");
}

#[test]
fn the_doctor_says_what_to_do_and_changes_nothing() {
    let folder = folder();
    let settings = "[worker]\npython = \"/nowhere/python\"\n";
    std::fs::write(folder.path().join("config.toml"), settings).expect("written");
    let output = program(folder.path(), &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    assert!(report.contains("failed   Python") && report.contains("what to do:"), "{report}");
    assert!(report.contains("ok       data directory"), "{report}");
    assert!(!folder.path().join("data").exists());
}

/// Walks what can be wrong with settings: single values, each kind of combination, the file itself.
#[test]
fn the_doctor_tells_what_is_wrong_with_the_settings_and_checks_everything_else() {
    let folder = folder();
    let doctor = |settings: &str, variables: &[(&str, &str)]| {
        let python = "[worker]\npython = \"/nowhere/python\"\n";
        let file = folder.path().join("config.toml");
        std::fs::write(file, format!("{python}{settings}")).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_phoebe-server"));
        command.arg("doctor").current_dir(folder.path()).env_clear().env("HOME", folder.path());
        let output = command.envs(variables.iter().copied()).output().expect("runs");
        assert_eq!(output.status.code(), Some(1), "{settings}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let well = doctor("", &[]);
    assert!(well.contains("ok       settings"), "{well}");
    let subjects = |report: &str| {
        let lines = report.lines().filter(|line| !line.starts_with(' '));
        let mut subjects: Vec<String> = lines.map(|line| line[9..25].trim().to_owned()).collect();
        subjects.dedup();
        subjects
    };
    let all = subjects(&well);
    assert!(all.len() > 8, "{all:?}");
    for (settings, told) in [
        ("[auth]\nmode = \"jwt\"", "PHOEBE_JWT_SECRET_KEY"),
        ("[auth]\nmode = \"external\"\njwks = \"k\"\njwt_public_key = \"p\"", "one kind of key"),
        (
            "[auth]\nmode = \"external\"\njwt_secret_key = \"-----BEGIN PUBLIC KEY-----\"",
            "PEM form",
        ),
        ("[auth]\njwt_audience = \"me\"", "for tokens of another service"),
        ("[auth]\nmode = \"password\"", "[auth] password"),
        ("[auth]\nenabled = true", "api_keys has none"),
        ("[auth]\nenabled = true\napi_keys = [\"\"]", "let everybody in"),
        ("[port_pool]\nstart = 7\nend = 7", "must be less than end"),
        ("[port_pool]\nstart = 0\nend = 0", "out of range"),
        ("[server]\nhost = \"0.0.0.0\"", "allow_unauthenticated_network"),
        ("[server]\ntls_cert = \"a.pem\"", "without tls_key"),
        ("user = \"nobody\"\nsandbox = \"off\"", "[worker] user has no effect"),
        ("[server]\nport = 99999", "[server] port"),
        ("[server]\nprot = 1", "did you mean port?"),
        ("[server]\npublic_url = \"uni.example.org\"", "is not an address such as"),
        ("[nonsense]\nx = 1", "unknown section"),
    ] {
        let report = doctor(settings, &[]);
        let failed = report.lines().filter(|line| line.starts_with("failed   settings"));
        assert!(failed.clone().any(|line| line.contains(told)), "{settings}: {report}");
        assert_eq!(subjects(&report), all, "{settings}: {report}");
    }
    let report = doctor("[server]\nprot = 1\n[auth]\nmode = \"jwt\"", &[]);
    assert_eq!(report.matches("failed   settings").count(), 2, "each is told: {report}");
    // Where nothing of the file can be read.
    for (settings, variable, told) in [
        ("[server", ("UNUSED", ""), "invalid TOML"),
        ("", ("PHOEBE_SERVER_CONFIG", "/nowhere.toml"), "/nowhere.toml cannot be read"),
        ("", ("PHOEBE_SERVER__SERVER__PORT", "x"), "PHOEBE_SERVER__SERVER__PORT"),
    ] {
        let python = ("PHOEBE_SERVER__WORKER__PYTHON", "/nowhere/python");
        let report = doctor(settings, &[variable, python]);
        assert!(report.contains("failed   settings") && report.contains(told), "{report}");
        assert_eq!(subjects(&report), all, "{settings}: {report}");
    }
}

/// A secret may be in the service's environment alone: what needs no secret must not ask for it.
#[test]
fn a_missing_secret_stops_only_what_needs_it() {
    let folder = folder();
    let settings = "[auth]\nmode = \"jwt\"\n[worker]\npython = \"/nowhere/python\"\n";
    std::fs::write(folder.path().join("config.toml"), settings).expect("written");
    for command in ["init-db", "cleanup", "environment", "doctor"] {
        let output = program(folder.path(), &[command]);
        assert!(!text(&output.stderr).contains("jwt_secret_key"), "{command}: {output:?}");
    }
    for command in ["run", "config"] {
        let output = program(folder.path(), &[command]);
        assert!(text(&output.stderr).contains("jwt_secret_key"), "{command}: {output:?}");
    }
}

/// The repository's folder is where people start the server: what lies there must not hide their
/// settings.
#[test]
fn in_a_clone_the_users_own_settings_count() {
    let home = folder();
    let settings = home.path().join(".config/phoebe-server");
    std::fs::create_dir_all(&settings).expect("made");
    std::fs::write(settings.join("config.toml"), "[server]\nport = 9111\n").expect("written");
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let config = |folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phoebe-server"));
        command.arg("config").current_dir(folder).env_clear().env("HOME", home.path());
        text(&command.output().expect("runs").stdout)
    };
    let own = clone.join("config.toml");
    if own.exists() {
        // A developer's own file comes first; one that sets nothing would be the example again.
        assert!(config(&clone).contains("# from config.toml:"), "./config.toml sets nothing");
    } else {
        assert!(config(&clone).contains("port = 9111"), "{}", config(&clone));
    }

    let here = folder();
    std::fs::write(here.path().join("config.toml"), "# nothing\n").expect("written");
    let printed = config(here.path());
    let told = printed.lines().find(|line| line.starts_with("# not read")).expect("told");
    assert!(told.ends_with(".config/phoebe-server/config.toml"), "{told}");
}

/// The call that PHOEBE's user interface makes, each of its arguments first, and ours beside them.
#[test]
fn a_call_that_is_meant_for_phoebes_script_is_told_where_that_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let its_folder = folder.path().join("environment/bin");
    std::fs::create_dir_all(&its_folder).expect("made");
    let script = its_folder.join("phoebe-server");
    std::fs::write(&script, "#!/bin/sh\n").expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
    let call = |arguments: &[&str], path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phoebe-server"));
        command.args(arguments).current_dir(folder.path()).env_clear();
        command.env("HOME", folder.path()).env("PATH", path).output().expect("runs")
    };
    let as_phoebe_does = ["--port", "5555", "--parent", "abc", "--secret", "def"];
    let its_path = its_folder.display().to_string();
    for (path, place) in
        [(its_path.as_str(), script.to_str().expect("text")), ("/nowhere", "bin/phoebe-server in")]
    {
        let output = call(&as_phoebe_does, path);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = text(&output.stderr);
        assert_eq!(told.lines().count(), 1, "{told}");
        for part in [place, "`phoebe-server run`", "PHOEBE's Python package"] {
            assert!(told.contains(part), "{part} is missing: {told}");
        }
    }
    let ours = text(&call(&["run", "--prot", "1"], &its_path).stderr);
    assert!(!ours.contains("PHOEBE's Python package"), "{ours}");
}
