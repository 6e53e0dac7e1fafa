//! From sections to what a type says of itself: serde's side.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::vec;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Section, Value, Word};

/// What is wrong, and at which byte, once that is known.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) message: String,
    pub(super) at: Option<usize>,
}

impl Error {
    fn at(mut self, at: usize) -> Self {
        self.at.get_or_insert(at);
        self
    }

    /// What is wrong with the value of `name`, unless a place in it is known.
    fn of(self, name: &Word) -> Self {
        match self.at {
            Some(_) => self,
            None => Self {
                message: format!("{}: {}", *name.text, self.message),
                at: Some(name.at),
            },
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        Self { message, at: None }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.join(", ");
        Self::custom(format_args!(
            "nothing here is called {field}; there are {known}"
        ))
    }
}

/// A whole file: a table whose keys are the options of one kind of section, and the kinds of the others.
pub(super) struct Root<'a> {
    pub(super) sections: &'a [Section],
    pub(super) main: &'a str,
}

impl<'a> Root<'a> {
    fn fields(&self) -> Result<Vec<(&'a Word, Field<'a>)>, Error> {
        let mut fields = Vec::new();
        let mut kinds: BTreeMap<&str, Vec<&'a Section>> = BTreeMap::new();
        for section in self.sections {
            let kind = section.kind.text.as_str();
            kinds.entry(kind).or_default().push(section);
        }
        if let Some(main) = kinds.remove(self.main) {
            fields.extend(entries(only(&main)?));
        }
        let others = kinds.into_values();
        fields.extend(others.filter_map(|all| Some((&all.first()?.kind, Field::Sections(all)))));
        Ok(fields)
    }
}

/// The one section of a kind that has no second.
fn only<'a>(sections: &[&'a Section]) -> Result<&'a Section, Error> {
    match sections {
        [one] => Ok(one),
        [] => Err(Error::custom("a section is missing")),
        [_, second, ..] => {
            let kind = &*second.kind.text;
            let message = format!("there is a section `config {kind}` already; write this there");
            Err(Error::custom(message).at(second.kind.at))
        }
    }
}

fn entries(section: &Section) -> impl Iterator<Item = (&Word, Field<'_>)> {
    section.entries.iter().map(|entry| {
        let value = match &entry.value {
            Value::Option(word) => Field::Word(word),
            Value::List(words) => Field::List(words),
        };
        (&entry.name, value)
    })
}

impl<'de> Deserializer<'de> for Root<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Table::of(self.fields()?).visit(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What a key leads to.
#[derive(Clone)]
enum Field<'a> {
    /// `option`
    Word(&'a Word),
    /// `list`
    List(&'a [Word]),
    /// All sections of a kind.
    Sections(Vec<&'a Section>),
    /// One of them.
    Section(&'a Section),
}

impl<'a> Field<'a> {
    /// One value.
    fn word(&self) -> Result<&'a Word, Error> {
        match self {
            Self::Word(word) => Ok(word),
            Self::List(_) => Err(Error::custom("this is one value: write option, not list")),
            Self::Sections(_) | Self::Section(_) => Err(Error::custom(
                "this is an option, not a section: write `option`, in the section it is of",
            )),
        }
    }

    fn unsigned<N: TryFrom<u64>>(&self) -> Result<N, Error> {
        let text = &*self.word()?.text;
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<u64>().ok().filter(|_| digits);
        number.and_then(|n| n.try_into().ok()).ok_or_else(|| {
            let most = u64::MAX >> (64 - 8 * size_of::<N>().clamp(1, 8));
            Error::custom(format_args!("a number is expected here, 0 to {most}"))
        })
    }

    fn signed<N: TryFrom<i64>>(&self) -> Result<N, Error> {
        let number = self.word()?.text.parse::<i64>().ok();
        number
            .and_then(|n| n.try_into().ok())
            .ok_or_else(|| Error::custom("a number is expected here"))
    }

    fn table(self) -> Result<(usize, Table<'a>), Error> {
        let section = match self {
            Self::Section(section) => section,
            Self::Sections(all) => only(&all)?,
            Self::Word(_) | Self::List(_) => {
                return Err(Error::custom(
                    "this is a section of its own: write it as `config`, with its options below",
                ));
            }
        };
        Ok((section.kind.at, Table::of(entries(section).collect())))
    }
}

macro_rules! numbers {
    ($($name:ident $visit:ident $read:ident)*) => { $(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.$read()?)
        }
    )* };
}

impl<'de> Deserializer<'de> for Field<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Word(word) => visitor.visit_str(&word.text),
            Self::List(_) => self.deserialize_seq(visitor),
            Self::Sections(_) | Self::Section(_) => self.deserialize_map(visitor),
        }
    }

    // Words as OpenWrt's get_bool() has them.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.word()?.text.as_str() {
            "1" | "on" | "true" | "yes" | "enabled" => visitor.visit_bool(true),
            "0" | "off" | "false" | "no" | "disabled" => visitor.visit_bool(false),
            _ => Err(Error::custom("write '1' or '0' here")),
        }
    }

    numbers! {
        deserialize_u8 visit_u8 unsigned
        deserialize_u16 visit_u16 unsigned
        deserialize_u32 visit_u32 unsigned
        deserialize_u64 visit_u64 unsigned
        deserialize_i8 visit_i8 signed
        deserialize_i16 visit_i16 signed
        deserialize_i32 visit_i32 signed
        deserialize_i64 visit_i64 signed
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(&self.word()?.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let word = self.word()?;
        let text: StrDeserializer<'_, Error> = word.text.as_str().into_deserializer();
        visitor.visit_enum(text)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let all: Vec<Field<'_>> = match self {
            Self::List(words) => words.iter().map(Field::Word).collect(),
            Self::Sections(all) => all.into_iter().map(Field::Section).collect(),
            Self::Word(_) => {
                return Err(Error::custom(
                    "there may be several: write list, not option, a line each",
                ));
            }
            Self::Section(_) => return Err(Error::custom("a list is expected here")),
        };
        visitor.visit_seq(Items(all.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (at, table) = self.table()?;
        table.visit(visitor).map_err(|e: Error| e.at(at))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The entries of a list, or the sections of a kind.
struct Items<'a>(vec::IntoIter<Field<'a>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

/// Keys, and what they lead to.
struct Table<'a> {
    fields: vec::IntoIter<(&'a Word, Field<'a>)>,
    next: Option<(&'a Word, Field<'a>)>,
}

impl<'a> Table<'a> {
    fn of(fields: Vec<(&'a Word, Field<'a>)>) -> Self {
        Self {
            fields: fields.into_iter(),
            next: None,
        }
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self)
    }
}

impl<'de> MapAccess<'de> for Table<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((name, field)) = self.fields.next() else {
            return Ok(None);
        };
        self.next = Some((name, field));
        let key: StringDeserializer<Error> = String::clone(&name.text).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|e| e.at(name.at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, field)) = self.next.take() else {
            return Err(Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(field).map_err(|e| e.of(name))
    }
}
