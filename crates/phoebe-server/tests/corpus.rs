//! The fuzzer's inputs, replayed: what once was interesting stays right, without a fuzzer.

#[path = "../../../fuzz/properties/frames.rs"]
mod frames;
#[path = "../../../fuzz/properties/settings.rs"]
mod settings;

use std::fs;
use std::path::Path;

#[test]
fn what_the_fuzzer_found_of_settings_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/settings");
    let inputs = fs::read_dir(corpus).expect("the corpus is there");
    let mut count = 0;
    for input in inputs {
        settings::hold_for(&fs::read(input.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 10, "only {count} inputs");
}

#[test]
fn what_the_fuzzer_found_of_frames_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frames");
    let inputs = fs::read_dir(corpus).expect("the corpus is there");
    let mut count = 0;
    for input in inputs {
        frames::hold_for(&fs::read(input.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 10, "only {count} inputs");
}
