//! A document as a tree of JSON, grown within a budget: aliases let a small document of YAML become a huge tree.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Limits;

/// What may still be made.
pub(super) struct Budget {
    values: usize,
    text_bytes: usize,
}

/// Makes one value, and what is in it.
pub(super) struct Tree<'a>(pub(super) &'a mut Budget);

/// A key of a map: a text, or what the API server's reader of YAML makes one of.
struct Key<'a>(&'a mut Budget);

/// What is said of a document that is too large.
pub(super) const TOO_MUCH: &str = "holds more than is read of one document";

/// Errors of the readers say what is wrong and may quote what they found; only those that cannot are passed on.
pub(super) fn describe(error: &str) -> String {
    let safe = [TOO_MUCH, "a key stands twice", "expected a text as key", "a number that is none"];
    if let Some(known) = safe.into_iter().find(|known| error.contains(known)) {
        return known.to_owned();
    }
    // libyaml's own texts ("did not find expected key", "found character that cannot start any token") quote nothing but
    // marks, and name the anchor at most.
    let quotes = error.contains('`') || error.contains('"') || error.starts_with("invalid ");
    if quotes { "is not YAML or JSON".to_owned() } else { format!("is not YAML or JSON: {error}") }
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { values: limits.values, text_bytes: limits.text_bytes }
    }

    fn value<E: Error>(&mut self) -> Result<(), E> {
        self.values = self.values.checked_sub(1).ok_or_else(|| E::custom(TOO_MUCH))?;
        Ok(())
    }

    fn text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        self.text_bytes = self.text_bytes.checked_sub(text.len()).ok_or_else(|| E::custom(TOO_MUCH))?;
        Ok(())
    }
}

// === impl Tree ===

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.value()?;
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.0.value()?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.0.value()?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.0.value()?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.0.value()?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.0.value()?;
        self.0.text(text)?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        self.0.value()?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Tree(self.0))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.0.value()?;
        let mut values = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = members.next_key_seed(Key(self.0))? {
            let value = members.next_value_seed(Tree(self.0))?;
            match (key.as_str(), value) {
                // YAML's merge key: members of other maps, unless they stand here.
                ("<<", Value::Object(other)) => merged.push(other),
                ("<<", Value::Array(others)) => merged.extend(others.into_iter().filter_map(|other| match other {
                    Value::Object(other) => Some(other),
                    _ => None,
                })),
                (_, value) => {
                    if values.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                }
            }
        }
        for (key, value) in merged.into_iter().flatten() {
            values.entry(key).or_insert(value);
        }
        Ok(Value::Object(values))
    }
}

// === impl Key ===

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("expected a text as key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        self.0.text(text)?;
        Ok(text.to_owned())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
}
