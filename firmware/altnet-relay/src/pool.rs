//! Buffers that connections use while bytes move, and give back before they wait.

use std::sync::{Mutex, PoisonError};

/// The longest TLS record (RFC 8446 section 5.2), with its header.
const MAX_RECORD_BYTES: usize = 5 + (1 << 14) + 256;

/// The size of a buffer: two records of full length.
pub(crate) const BUFFER_BYTES: usize = 2 * MAX_RECORD_BYTES;

/// How many are kept for the next ones.
const KEPT: usize = 32;

/// A buffer.
pub(crate) type Buffer = Box<[u8]>;

static POOL: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// A buffer, whatever is in it.
pub(crate) fn take() -> Buffer {
    let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
    kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
}

/// Takes a buffer back.
pub(crate) fn give(buffer: Buffer) {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.len() < KEPT && buffer.len() == BUFFER_BYTES {
        pool.push(buffer);
    }
}
