//! The fake worker passes the look that the server takes at an interpreter.

use std::process::Command;

use phoebe_protocol::packet::Info;

#[test]
fn it_says_what_it_has() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_phoebe-fake-worker")).arg("probe").output().unwrap();
    assert!(output.status.success());
    let info: Info = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!info.phoebe.is_empty() && !info.passbands.is_empty());
}
