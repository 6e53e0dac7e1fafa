//! The process beside altnetd in which the TLS of its apps ends.
fn main() {}
