//! The little of XML that devices speak: elements with text in them.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use super::MAX_BYTES;

/// The deepest element that is read.
const MAX_DEPTH: usize = 32;

/// Not XML, too long, too deep, or with a document type, which no device needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device's answer is not the XML it should be")]
pub struct BadXml;

/// Shows every element to `see` when it ends: the names from the root to it, without prefixes,
/// and its own text.
///
/// Namespaces are not looked at: devices get them wrong, and no two words here differ by them
/// alone.
pub(super) fn each_element(
    document: &str,
    mut see: impl FnMut(&[&str], &str),
) -> Result<(), BadXml> {
    if document.len() > MAX_BYTES {
        return Err(BadXml);
    }
    let mut reader = Reader::from_str(document);
    // As in a friendlyName "A & B" that nobody escaped.
    reader.config_mut().allow_dangling_amp = true;
    let (mut path, mut texts) = (Vec::new(), Vec::new());
    loop {
        match reader.read_event().map_err(|_| BadXml)? {
            Event::Start(start) => {
                if path.len() >= MAX_DEPTH {
                    return Err(BadXml);
                }
                path.push(local(start.name().as_ref()).to_owned());
                texts.push(String::new());
            }
            Event::Empty(start) => {
                let name = start.name();
                let names = path.iter().map(String::as_str);
                let whole: Vec<&str> = names.chain([local(name.as_ref())]).collect();
                see(&whole, "");
            }
            Event::End(_) => {
                let text = texts.pop().ok_or(BadXml)?;
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                see(&names, text.trim());
                path.pop();
            }
            Event::Text(text) => add(&mut texts, &text),
            Event::CData(text) => add(&mut texts, &text),
            Event::GeneralRef(reference) => {
                let named = resolve_xml_entity(&reference);
                let numbered = reference.resolve_char_ref().map_err(|_| BadXml)?;
                match (named, numbered) {
                    (Some(text), _) => add(&mut texts, text),
                    (None, Some(character)) => {
                        add(&mut texts, character.encode_utf8(&mut [0; 4]));
                    }
                    // What stands for something else is in no value that is used.
                    (None, None) => {}
                }
            }
            Event::DocType(_) => return Err(BadXml),
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err(BadXml),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn add(texts: &mut [String], text: &str) {
    if let Some(last) = texts.last_mut() {
        last.push_str(text);
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// `text` as it stands between tags.
pub(super) fn escaped(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(document: &str) -> Result<Vec<(String, String)>, BadXml> {
        let mut found = Vec::new();
        each_element(document, |path, text| {
            found.push((path.join("/"), text.to_owned()));
        })?;
        Ok(found)
    }

    #[test]
    fn elements_come_with_their_place_and_their_text() {
        let found = read(
            "<?xml version=\"1.0\"?>\n<s:a xmlns:s='x'><b> 1&amp;2&#65; </b><!-- c --><u:d/><e><![CDATA[<f>]]></e></s:a>",
        );
        let expected = [("a/b", "1&2A"), ("a/d", ""), ("a/e", "<f>"), ("a", "")];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_lone_ampersand_is_forgiven() {
        assert_eq!(read("<a><b>R & D</b><c>1</c></a>").unwrap().len(), 3);
    }

    #[test]
    fn what_could_grow_or_nest_without_end_is_refused() {
        for bad in [
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a><b></a>",
            "<a>",
            "</a>",
            &"<a>".repeat(40),
            &format!("<a>{}</a>", " ".repeat(MAX_BYTES)),
        ] {
            assert_eq!(read(bad), Err(BadXml), "{:.40}", bad);
        }
    }

    proptest! {
        #[test]
        fn no_document_makes_the_reader_panic(document in "[<>/a:!&;\\[\\]\"=? #x0-9-]{0,80}") {
            let _ = read(&document);
        }

        #[test]
        fn what_is_escaped_reads_back(text in "[ -~]{0,30}") {
            let found = read(&format!("<a>{}</a>", escaped(&text))).unwrap();
            prop_assert_eq!(found[0].1.as_str(), text.trim());
        }
    }
}
