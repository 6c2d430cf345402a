//! Fuzzes what an operator writes.

#![no_main]

#[path = "../properties/settings.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| settings::hold_for(bytes));
