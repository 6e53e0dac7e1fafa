//! The JSON that a handshake's boxes hold: one flat object, read without a heap.
//!
//! In: bytes (RFC 8259). Out: the fields of the outermost object, in order, strings still escaped.
//! What is nested is checked and passed over, to a depth of [`MAX_DEPTH`]. Bytes that aren't UTF-8
//! are let through, since Go's decoder lets them through.

/// How deep arrays and objects may be within the object.
const MAX_DEPTH: u32 = 32;

/// Not JSON, or nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadJson;

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// A number as it is written.
    Number(&'a [u8]),
    /// What is between the quotes.
    Text(Text<'a>),
    /// An array or an object.
    Nested,
}

/// A string, still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(&'a [u8]);

impl Text<'_> {
    /// Whether it is `ascii`, in capitals or not: Go's decoder compares names so.
    pub(super) fn is(&self, ascii: &str) -> bool {
        self.octets()
            .map(|octet| octet.to_ascii_lowercase())
            .eq(ascii.bytes().map(|octet| octet.to_ascii_lowercase()))
    }

    /// What it says, as far as that is ASCII; 0xff stands for what isn't.
    pub(super) fn octets(&self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (&octet, after) = rest.split_first()?;
            rest = after;
            if octet != b'\\' {
                return Some(octet);
            }
            let (&escaped, after) = rest.split_first()?;
            rest = after;
            Some(match escaped {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let (digits, after) = rest.split_at_checked(4)?;
                    rest = after;
                    let code = digits
                        .iter()
                        .try_fold(0, |code, digit| Some(code * 16 + hex_digit(*digit)?))?;
                    u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(0xff)
                }
                other => other,
            })
        })
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

/// Calls `field` with each name and value of the object that `bytes` are.
///
/// # Errors
/// [`BadJson`], or what `field` returned.
pub(super) fn object<'a>(
    bytes: &'a [u8],
    mut field: impl FnMut(Text<'a>, Value<'a>) -> Result<(), BadJson>,
) -> Result<(), BadJson> {
    let mut reader = Reader(bytes);
    reader.skip_space();
    reader.expect(b'{')?;
    reader.members(MAX_DEPTH, &mut field)?;
    reader.skip_space();
    if reader.0.is_empty() {
        Ok(())
    } else {
        Err(BadJson)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What follows an object's opening brace, to its closing one.
    fn members(
        &mut self,
        depth: u32,
        field: &mut dyn FnMut(Text<'a>, Value<'a>) -> Result<(), BadJson>,
    ) -> Result<(), BadJson> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            self.expect(b'"')?;
            let name = self.text()?;
            self.skip_space();
            self.expect(b':')?;
            let value = self.value(depth)?;
            field(name, value)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// What follows an array's opening bracket, to its closing one.
    fn elements(&mut self, depth: u32) -> Result<(), BadJson> {
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value<'a>, BadJson> {
        self.skip_space();
        match self.0.first().ok_or(BadJson)? {
            b'{' => {
                self.expect(b'{')?;
                let deeper = depth.checked_sub(1).ok_or(BadJson)?;
                self.members(deeper, &mut |_, _| Ok(()))?;
                Ok(Value::Nested)
            }
            b'[' => {
                self.expect(b'[')?;
                let deeper = depth.checked_sub(1).ok_or(BadJson)?;
                self.elements(deeper)?;
                Ok(Value::Nested)
            }
            b'"' => {
                self.expect(b'"')?;
                Ok(Value::Text(self.text()?))
            }
            b't' => self.word(b"true").map(|()| Value::Bool(true)),
            b'f' => self.word(b"false").map(|()| Value::Bool(false)),
            b'n' => self.word(b"null").map(|()| Value::Null),
            _ => self.number().map(Value::Number),
        }
    }

    /// What follows an opening quote, to the closing one.
    fn text(&mut self) -> Result<Text<'a>, BadJson> {
        let begin = self.0;
        loop {
            match self.octet()? {
                b'"' => {
                    let length = begin.len().saturating_sub(self.0.len() + 1);
                    return begin.get(..length).map(Text).ok_or(BadJson);
                }
                b'\\' => match self.octet()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            hex_digit(self.octet()?).ok_or(BadJson)?;
                        }
                    }
                    _ => return Err(BadJson),
                },
                0..0x20 => return Err(BadJson),
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Result<&'a [u8], BadJson> {
        let begin = self.0;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let length = begin.len().saturating_sub(self.0.len());
        begin.get(..length).ok_or(BadJson)
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), BadJson> {
        let count = self.0.iter().take_while(|o| o.is_ascii_digit()).count();
        self.0 = self.0.get(count..).unwrap_or(&[]);
        if count == 0 { Err(BadJson) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), BadJson> {
        self.0 = self.0.strip_prefix(word).ok_or(BadJson)?;
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some((b' ' | b'\t' | b'\n' | b'\r', rest)) = self.0.split_first() {
            self.0 = rest;
        }
    }

    fn octet(&mut self) -> Result<u8, BadJson> {
        let (&octet, rest) = self.0.split_first().ok_or(BadJson)?;
        self.0 = rest;
        Ok(octet)
    }

    fn take(&mut self, octet: u8) -> bool {
        let taken = self.0.first() == Some(&octet);
        if taken {
            self.0 = self.0.get(1..).unwrap_or(&[]);
        }
        taken
    }

    fn expect(&mut self, octet: u8) -> Result<(), BadJson> {
        if self.take(octet) {
            Ok(())
        } else {
            Err(BadJson)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn fields(text: &str) -> Result<Vec<(Vec<u8>, Value<'_>)>, BadJson> {
        let mut found = Vec::new();
        object(text.as_bytes(), |name, value| {
            found.push((name.octets().collect(), value));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn the_fields_of_an_object_are_read_and_what_is_nested_is_passed_over() {
        let found =
            fields(r#" {"a" : -1.5e+3 ,"b":{"c":[1,[],{"a":""}]}, "\u0064\n":null,"e":true} "#);
        let found = found.unwrap();
        assert_eq!(found[0], (b"a".to_vec(), Value::Number(b"-1.5e+3")));
        assert_eq!(found[1], (b"b".to_vec(), Value::Nested));
        assert_eq!(found[2], (b"d\n".to_vec(), Value::Null));
        assert_eq!(found[3], (b"e".to_vec(), Value::Bool(true)));
        assert_eq!(fields("{}"), Ok(Vec::new()));
    }

    #[test]
    fn a_name_is_compared_as_go_does() {
        assert!(Text(b"canackpings").is("CanAckPings"));
        assert!(Text(br"\u0043anAckPings").is("CanAckPings"));
        assert!(!Text(b"can_ack_pings").is("CanAckPings"));
        assert!(!Text(br"\u2043anAckPings").is("CanAckPings"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "[]",
            "1",
            "{",
            "{}x",
            "{}{}",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e}"#,
            r#"{"a":-}"#,
            r#"{"a":tru}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"#,
        ] {
            assert_eq!(fields(text), Err(BadJson), "{text}");
        }
    }

    #[test]
    fn depth_has_a_bound() {
        let nested = |depth| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            std::format!("{{\"a\":{open}{close}}}")
        };
        assert!(fields(&nested(32)).is_ok());
        assert_eq!(fields(&nested(33)), Err(BadJson));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[{}\[\],:"\\a0-9.eu\- ]{0,60}"#) {
            let _ = fields(&text);
            let _ = fields(&String::from_iter(["{\"a\":", &text, "}"]));
        }
    }
}
