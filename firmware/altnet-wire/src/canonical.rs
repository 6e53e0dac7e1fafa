//! postcard, one form only: what decodes must be exactly what encoding would give.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

/// Bytes that are not the one encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// They don't decode, or something follows.
    #[error("cut off or damaged")]
    Damaged,
    /// They decode, but there is a shorter or other encoding.
    #[error("not in canonical form")]
    OtherForm,
}

/// Decodes a value that takes up all of `bytes`.
///
/// # Errors
/// [`NotCanonical`].
pub fn decode<'a, T>(bytes: &'a [u8]) -> Result<T, NotCanonical>
where
    T: Deserialize<'a> + Serialize,
{
    match take(bytes)? {
        (value, []) => Ok(value),
        _ => Err(NotCanonical::Damaged),
    }
}

/// Decodes the value that `bytes` begin with, and gives what follows it.
///
/// # Errors
/// [`NotCanonical`].
pub fn take<'a, T>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), NotCanonical>
where
    T: Deserialize<'a> + Serialize,
{
    let (value, rest): (T, _) =
        postcard::take_from_bytes(bytes).map_err(|_| NotCanonical::Damaged)?;
    let used = bytes.len().saturating_sub(rest.len());
    let left = bytes.get(..used).unwrap_or_default();
    // A value of no bytes would never end.
    if left.is_empty() {
        return Err(NotCanonical::Damaged);
    }
    postcard::serialize_with_flavor(&value, Compare { left })
        .map_err(|_| NotCanonical::OtherForm)?;
    Ok((value, rest))
}

/// A place to serialize to that only compares.
struct Compare<'a> {
    left: &'a [u8],
}

impl Flavor for Compare<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.left.split_first() {
            Some((first, rest)) if *first == byte => {
                self.left = rest;
                Ok(())
            }
            _ => Err(postcard::Error::SerializeBufferFull),
        }
    }

    fn finalize(self) -> postcard::Result<()> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(postcard::Error::SerializeBufferFull)
        }
    }
}
