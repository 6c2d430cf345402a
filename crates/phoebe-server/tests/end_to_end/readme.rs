//! The README's examples, typed as they stand, do what it says.

use std::path::Path;
use std::process::Command;

use crate::support::{Program, TestServer, phoebe_python};

const README: &str = include_str!("../../../../README.md");
const ADDRESS: &str = "127.0.0.1:8001";

#[tokio::test(flavor = "multi_thread")]
async fn a_first_light_curve() {
    let server = TestServer::builder().python().start().await;
    let folder = tempfile::tempdir().unwrap();
    let at_server = |example: String| example.replace(ADDRESS, server.client().address());

    let with_curl = at_server(example("sh", "run_compute"));
    let answers = run("bash", &["-eu", "-c", &with_curl], folder.path());
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.starts_with(r#"{"success":true"#)), "{answers:?}");
    // The README cuts its numbers, each with an ellipsis.
    for piece in example("json", "fluxes").split('…') {
        let shown = piece.rsplit(['[', ',']).next().unwrap_or_default();
        let shown = if shown.starts_with(char::is_numeric) { shown } else { piece.trim_end() };
        assert!(answers[2].contains(shown), "no {shown} in {}", answers[2]);
    }

    let python = python(folder.path());
    let with_python = at_server(example("python", "run_compute"));
    run(&python, &["-c", &with_python], folder.path());
    let picture = std::fs::read_to_string(folder.path().join("first-light-curve.svg")).unwrap();
    assert!(picture.contains("</svg>"));
    assert_eq!(server.sessions().await, serde_json::json!({}));
    server.finish().await;
}

/// The block of code in `language` that has `word` in it.
fn example(language: &str, word: &str) -> String {
    let fence = format!("```{language}\n");
    let blocks = README.split(&fence).skip(1);
    let mut blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    let found = blocks.find(|block| block.contains(word));
    found.unwrap_or_else(|| panic!("README.md has no {language} with {word}")).to_owned()
}

/// The interpreter that the README names for its example.
fn python(folder: &Path) -> String {
    match phoebe_python() {
        Some(python) => python.display().to_string(),
        None => Program::new(folder).arguments(["environment"]).run().stdout.trim().to_owned(),
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).env("MPLBACKEND", "Agg").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
