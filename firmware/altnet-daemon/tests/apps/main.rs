//! Apps, driven by callers with TCP stacks of their own over a wire that loses and reorders.
//!
//! Time stands still while anything is to be done and jumps to the next deadline when nothing
//! is, so no test waits and none depends on how fast it runs.

mod http;
mod net;
mod tcp;
mod tls;
