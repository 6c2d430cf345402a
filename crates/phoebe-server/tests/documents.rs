//! The documents tell the truth where a program can see it: every test that SPECIFICATION.md names
//! exists, every relative link leads somewhere, and every worker command is described. No web
//! address is invented.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Markdown files at the root and in `docs/`.
fn documents() -> Vec<PathBuf> {
    let folders = [root(), root().join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    files
}

/// What stands between `open` and `close`, each time they occur on one line.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| {
        line.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
    })
}

/// The file that the specification means: from the root, or from this crate.
fn source(path: &str) -> Option<String> {
    let folders = [root(), PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    folders.iter().find_map(|folder| fs::read_to_string(folder.join(path)).ok())
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let specification = read(&root().join("SPECIFICATION.md"));
    let named: BTreeSet<(&str, &str)> = specification
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|(file, _)| file.contains('.'))
        .collect();
    assert!(named.len() > 50, "only {} tests were found in SPECIFICATION.md", named.len());
    let missing: Vec<String> = named
        .iter()
        .filter(|(file, test)| {
            let keyword = if file.ends_with(".py") { "def" } else { "fn" };
            let definition = format!("{keyword} {test}(");
            !source(file).is_some_and(|text| text.contains(&definition))
        })
        .map(|(file, test)| format!("{file}::{test}"))
        .collect();
    assert!(missing.is_empty(), "tests that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn relative_links_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for target in between(&text, "](", ")") {
            let path = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || path.is_empty();
            if !is_elsewhere && !document.with_file_name(path).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// Addresses outside that are known to exist. Look at one before you add it.
const KNOWN_ADDRESSES: [&str; 5] = [
    "https://keepachangelog.com/en/1.1.0/",
    "https://phoebe-project.org",
    "https://rustup.rs",
    "https://semver.org/spec/v2.0.0.html",
    "https://tables.phoebe-project.org",
];

/// Names that nobody has: this machine, and what is reserved for examples.
fn is_nobodys(host: &str) -> bool {
    ["localhost", "127.0.0.1", "example.org"].contains(&host) || host.ends_with(".example.org")
}

#[test]
fn web_addresses_exist_or_are_examples() {
    let manifests = ["Cargo.toml", "worker/pyproject.toml", "config.example.toml"];
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let crates = crates.map(|entry| entry.unwrap().path().join("Cargo.toml"));
    let files = manifests.into_iter().map(|name| root().join(name)).chain(crates);
    let mut unknown = Vec::new();
    for file in files.chain(documents()).chain([root().join("docs/openapi.json")]) {
        let text = read(&file);
        for (begin, scheme) in text.match_indices("http://").chain(text.match_indices("https://")) {
            let ends = |character: char| {
                !character.is_ascii_graphic() || "`\"'<>)]}*$…".contains(character)
            };
            let address = text[begin..].split(ends).next().unwrap_or_default();
            let address = address.trim_end_matches([',', '.', ';', ':', '\\']);
            let host = address[scheme.len()..].split(['/', ':']).next().unwrap_or_default();
            let is_known =
                host.is_empty() || is_nobodys(host) || KNOWN_ADDRESSES.contains(&address);
            if !is_known {
                unknown.push(format!("{}: {address}", file.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "addresses that KNOWN_ADDRESSES lacks:\n{}", unknown.join("\n"));
}

#[test]
fn every_worker_command_is_described() {
    let commands = root().join("worker/phoebe_worker/commands");
    let described = read(&root().join("docs/commands.md"));
    let mut count = 0;
    for file in fs::read_dir(commands).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "py")
            || path.ends_with("__init__.py")
        {
            continue;
        }
        for line in read(&path).lines().filter(|line| line.starts_with("@command(")) {
            // A script's rendering names arguments, not commands.
            let (before, after) = line.split_once("script=").unwrap_or((line, ""));
            let older = after.split_once("older_names=").map_or("", |(_, names)| names);
            let names =
                [before, older].into_iter().flat_map(|text| text.split('"').skip(1).step_by(2));
            for name in names.filter(|name| !is_kind(name)) {
                count += 1;
                assert!(described.contains(&format!("`{name}`")), "docs/commands.md lacks {name}");
            }
        }
    }
    assert!(count > 25, "only {count} commands were found");
}

fn is_kind(word: &str) -> bool {
    ["read", "change", "long"].contains(&word)
}
