//! Label selectors, as `LabelSelectorAsSelector` of Kubernetes' apimachinery makes them.
//!
//! A selector with one requirement that cannot be is an error as a whole, and whoever uses it treats an error as "does
//! not match". Sources: `apimachinery/pkg/labels/selector.go` (`NewRequirement`, `Requirement.Matches`) and
//! `apimachinery/pkg/util/validation` (`IsQualifiedName`, `IsDNS1123Subdomain`, `IsValidLabelValue`).

use std::collections::BTreeMap;

use thiserror::Error;

use crate::facts::{Expression, Selector};

/// Most bytes of a label's name and of its value.
const NAME_MAX: usize = 63;
/// Most bytes of the prefix of a label's key.
const PREFIX_MAX: usize = 253;

/// Why a selector is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// An operator that does not exist.
    #[error("operator {0:?} does not exist: In, NotIn, Exists, DoesNotExist do")]
    Operator(String),
    /// `In` or `NotIn` without values.
    #[error("{0} needs at least one value")]
    NoValues(String),
    /// `Exists` or `DoesNotExist` with values.
    #[error("{0} takes no values")]
    Values(String),
    /// A key that no label can have.
    #[error("{0:?} cannot be the key of a label")]
    Key(String),
    /// A value that no label can have.
    #[error("{0:?} cannot be the value of a label")]
    Value(String),
}

/// Whether labels match. An empty selector matches everything.
pub fn matches(selector: &Selector, labels: &BTreeMap<String, String>) -> Result<bool, SelectorError> {
    check(selector)?;
    let equal = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    Ok(equal && selector.match_expressions.iter().all(|expression| holds(expression, labels)))
}

/// Whether a selector is one.
pub fn check(selector: &Selector) -> Result<(), SelectorError> {
    for (key, value) in &selector.match_labels {
        check_key(key)?;
        check_value(value)?;
    }
    for Expression { key, operator, values } in &selector.match_expressions {
        match operator.as_str() {
            "In" | "NotIn" if values.is_empty() => return Err(SelectorError::NoValues(operator.clone())),
            "Exists" | "DoesNotExist" if !values.is_empty() => return Err(SelectorError::Values(operator.clone())),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => return Err(SelectorError::Operator(operator.clone())),
        }
        check_key(key)?;
        values.iter().try_for_each(|value| check_value(value))?;
    }
    Ok(())
}

/// A requirement that was checked. A label that is not there satisfies the negative operators.
fn holds(expression: &Expression, labels: &BTreeMap<String, String>) -> bool {
    let found = labels.get(&expression.key);
    match expression.operator.as_str() {
        "In" => found.is_some_and(|value| expression.values.contains(value)),
        "NotIn" => found.is_none_or(|value| !expression.values.contains(value)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let fits = is_name(name) && prefix.is_none_or(is_subdomain);
    if fits { Ok(()) } else { Err(SelectorError::Key(key.to_owned())) }
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(SelectorError::Value(value.to_owned())) }
}

/// Letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    bytes.len() <= NAME_MAX
        && bytes.iter().all(inner)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// Dotted parts of lower case letters, digits and `-`, with a letter or digit at both ends of each.
fn is_subdomain(text: &str) -> bool {
    let outer = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|byte| outer(byte) || *byte == b'-')
            && bytes.first().is_some_and(outer)
            && bytes.last().is_some_and(outer)
    };
    text.len() <= PREFIX_MAX && text.split('.').all(part)
}

#[cfg(test)]
mod tests;
