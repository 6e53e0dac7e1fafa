//! A link as a picture that a camera reads off a terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Draws `text` with two modules to a character, dark on light as cameras expect it on a
/// terminal with a dark background; nothing if it is too long for a QR code.
///
/// Error correction is the lowest: a screen has no dirt, and a smaller code is easier to read.
pub fn draw(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    Some(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_a_square_of_half_blocks() {
        let picture = draw("https://altnet.example/join#abcdefgh").unwrap();
        let lines: Vec<_> = picture.lines().collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        assert_eq!(width.div_ceil(2), lines.len());
        assert!(picture.chars().all(|c| " ▀▄█\n".contains(c)));
        // The quiet zone of four modules is lit.
        assert!(lines[0].chars().all(|c| c == '█'));
    }

    #[test]
    fn a_text_too_long_for_a_code_is_no_panic() {
        assert_eq!(draw(&"x".repeat(5000)), None);
    }
}
