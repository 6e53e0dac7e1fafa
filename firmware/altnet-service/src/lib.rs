//! What altnet's processes on Linux have in common: a log on standard error, reading what people
//! write for them, who goes when memory is used up, and giving up what they don't need once everything is open.

pub mod log;
pub mod memory;
pub mod mistake;
pub mod privileges;
pub mod uci;
