//! The fuzzer's inputs, replayed: what once was interesting stays right, without a fuzzer.

#[path = "../../../fuzz/properties/messages.rs"]
mod messages;

use std::fs;
use std::path::Path;

#[test]
fn what_the_fuzzer_found_of_messages_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/messages");
    let inputs = fs::read_dir(corpus).expect("the corpus is there");
    let mut count = 0;
    for input in inputs {
        messages::hold_for(&fs::read(input.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 20, "only {count} inputs");
}
