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
    for command in ["run", "config", "init-db", "cleanup", "doctor"] {
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
