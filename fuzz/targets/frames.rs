//! Fuzzes the transport of a worker's connection, below its messages.

#![no_main]

#[path = "../properties/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames::hold_for(bytes));
