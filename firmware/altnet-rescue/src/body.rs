//! The body of a request, as a stream of a bundle's bytes: no more than was said, and not for ever.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

/// How slow the whole of a body may be, beyond some patience. A radio at the end of the garden is faster by far.
pub const LEAST_BYTES_PER_S: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(30);
/// The most of what a form says of a file before its bytes.
const MAX_PART_HEAD_BYTES: usize = 4 * 1024;

/// So many bytes of `inner`.
#[derive(Debug)]
pub struct Body<R> {
    inner: R,
    left: u64,
    taken: u64,
    began: Instant,
}

impl<R: Read> Body<R> {
    /// The next `bytes` of `inner`, whose first were due at `began`.
    pub const fn new(inner: R, bytes: u64, began: Instant) -> Self {
        Self {
            inner,
            left: bytes,
            taken: 0,
            began,
        }
    }

    /// Reads what is left, and forgets it: who still sends hears no answer.
    pub fn drain(&mut self) {
        let _ = io::copy(self, &mut io::sink());
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(out.len());
        if most == 0 {
            return Ok(0);
        }
        let len = self.inner.read(&mut out[..most])?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= len as u64;
        self.taken += len as u64;
        let due = PATIENCE + Duration::from_secs(self.taken / LEAST_BYTES_PER_S);
        match self.began.elapsed() > due {
            true => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("less than {LEAST_BYTES_PER_S} bytes came in a second"),
            )),
            false => Ok(len),
        }
    }
}

/// Passes over what a form of `form_bytes` says of its file, and returns how many bytes that has: what comes next. Behind it is
/// the form's end (RFC 2046 section 5.1.1): a new line, the boundary, two hyphens, a new line.
///
/// # Errors
/// What the stream says; [`io::ErrorKind::InvalidData`] if it isn't a form's with one file.
pub fn skip_part_head(form: &mut impl BufRead, form_bytes: u64) -> io::Result<u64> {
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "this is not a form with one file",
        )
    };
    let mut left = MAX_PART_HEAD_BYTES;
    let mut boundary_bytes = None;
    loop {
        let mut line = Vec::new();
        let mut bounded = form.by_ref().take(left as u64);
        let len = bounded.read_until(b'\n', &mut line)?;
        left -= len;
        let is_boundary = boundary_bytes.is_some() || line.starts_with(b"--");
        if !line.ends_with(b"\r\n") || !is_boundary {
            return Err(bad());
        }
        let boundary_bytes = *boundary_bytes.get_or_insert(len - 2);
        if line == b"\r\n" {
            let around = MAX_PART_HEAD_BYTES - left + 2 + boundary_bytes + 4;
            return form_bytes.checked_sub(around as u64).ok_or_else(bad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_body_has_as_many_bytes_as_were_said() {
        let mut body = Body::new(&b"bundle and more"[..], 6, Instant::now());
        let mut found = String::new();
        body.read_to_string(&mut found).unwrap();
        assert_eq!(found, "bundle");
        let mut short = Body::new(&b"bun"[..], 6, Instant::now());
        let said = short.read_to_string(&mut found).unwrap_err();
        assert_eq!(said.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_body_that_drips_is_given_up() {
        let Some(began) = Instant::now().checked_sub(PATIENCE + Duration::from_secs(2)) else {
            return;
        };
        let said = Body::new(io::repeat(1), 1 << 20, began).read(&mut [0; 100]);
        assert_eq!(said.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let enough = Body::new(io::repeat(1), 1 << 20, began).read(&mut [0; 3 * 4096]);
        assert_eq!(enough.unwrap(), 3 * 4096);
    }

    #[test]
    fn a_file_begins_behind_what_a_form_says_of_it() {
        let form = b"--x\r\nContent-Disposition: form-data; name=\"bundle\"; filename=\"a.bundle\"\r\nContent-Type: application/octet-stream\r\n\r\nALTNETUP\r\n\r\n--x--\r\n";
        let mut rest = &form[..];
        assert_eq!(skip_part_head(&mut rest, form.len() as u64).unwrap(), 10);
        assert!(rest.starts_with(b"ALTNETUP\r\n\r\n--x--"));
        for bad in ["", "ALTNETUP", "--x\r\nA: b\r\n", "--x\n\n", "a\r\n\r\n"] {
            assert!(skip_part_head(&mut bad.as_bytes(), 1000).is_err(), "{bad}");
        }
        let long = format!("--x\r\nA: {}\r\n\r\n", "b".repeat(MAX_PART_HEAD_BYTES));
        assert!(skip_part_head(&mut long.as_bytes(), 1 << 20).is_err());
        assert!(skip_part_head(&mut &b"--x\r\nA: b\r\n\r\nfile"[..], 17).is_err());
    }

    proptest! {
        #[test]
        fn a_part_head_takes_no_more_than_its_bound(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
            let mut form = &bytes[..];
            if let Ok(file) = skip_part_head(&mut form, bytes.len() as u64) {
                prop_assert!(file < form.len() as u64);
            }
            prop_assert!(bytes.len() - form.len() <= MAX_PART_HEAD_BYTES);
        }
    }
}
