//! Measures the figures of the specification.
fn main() {}
