//! The kernel's last lines. It has no secret of ours, and neither have the lines that our scripts add to it.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How many lines are kept.
const LINES: usize = 40;
/// The most bytes of a line that are kept.
const MAX_LINE_BYTES: usize = 200;
/// The longest record of the kernel's (CONSOLE_EXT_LOG_MAX).
const RECORD_BYTES: usize = 8192;

/// The last lines that the kernel wrote; none where they can't be read.
pub fn last_lines(path: &Path) -> Vec<String> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let Ok(mut log) = opened else {
        return Vec::new();
    };
    let mut lines = VecDeque::new();
    let mut record = vec![0; RECORD_BYTES];
    let mut lost = 0;
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(len) => {
                if let Some(line) = parse(&record[..len]) {
                    if lines.len() == LINES {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            }
            // What was overwritten meanwhile (EPIPE) is passed over; there is no more of it than the log is long.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe && lost < LINES => lost += 1,
            Err(_) => break,
        }
    }
    lines.into()
}

/// The text of a record, with its seconds since the kernel began.
///
/// Source: Documentation/ABI/testing/dev-kmsg: `level,number,microseconds,flags;text`, then lines that begin with a blank.
fn parse(record: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (head, text) = text.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let line = text.lines().next()?;
    let line: String = line
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_LINE_BYTES)
        .collect();
    Some(format!("[{:9.3}] {line}", micros as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_is_its_text_with_its_time() {
        let found = parse(b"6,339,5140900,-;NET: Registered\x1b protocol\n SUBSYSTEM=net\n");
        assert_eq!(
            found.as_deref(),
            Some("[    5.141] NET: Registered protocol")
        );
        for bad in ["", "6,339", "6;x", "a,b,c,d;x", "6,1,2,-;"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn where_there_is_no_log_there_are_no_lines() {
        assert!(last_lines(Path::new("/nonexistent/kmsg")).is_empty());
    }

    proptest! {
        #[test]
        fn no_record_is_more_than_a_short_line(record: Vec<u8>) {
            if let Some(line) = parse(&record) {
                prop_assert!(line.chars().count() <= MAX_LINE_BYTES + 40);
                prop_assert!(!line.contains(char::is_control));
            }
        }
    }
}
