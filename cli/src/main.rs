//! The tomograd program.
fn main() {}
