//! Fuzzes what a worker or zygote sends.

#![no_main]

#[path = "../properties/messages.rs"]
mod messages;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| messages::hold_for(bytes));
