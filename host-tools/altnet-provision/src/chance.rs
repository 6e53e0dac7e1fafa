//! Bytes nobody can guess, from the operating system.

use crate::error::{Error, Result};
use zeroize::Zeroizing;

/// Fills `bytes` from the operating system's generator.
///
/// # Errors
/// [`Error::NotAllowed`] if it has none to give; no key is ever made without it.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::not_allowed(
            format!("the operating system gives no random bytes: {error}"),
            "Try again in a moment; on a machine that has just booted it may take a minute.",
        )
    })
}

/// A secret of 32 bytes, wiped when dropped.
///
/// # Errors
/// As [`fill`].
pub fn secret() -> Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill(bytes.as_mut())?;
    Ok(bytes)
}

/// Bytes that are not secret.
///
/// # Errors
/// As [`fill`].
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}
