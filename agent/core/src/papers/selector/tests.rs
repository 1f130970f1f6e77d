//! Selectors as tables, and by another road.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::papers::testing::{equal, expression, labels};

#[test]
fn selectors_match_as_kubernetes_does() {
    let here = labels(&[("app", "cart"), ("tier", "")]);
    let table: &[(Selector, Result<bool, ()>)] = &[
        (Selector::default(), Ok(true)),
        (equal(&[("app", "cart")]), Ok(true)),
        (equal(&[("app", "cart"), ("tier", "")]), Ok(true)),
        (equal(&[("app", "pay")]), Ok(false)),
        // A label that is absent is not one with an empty value.
        (equal(&[("zone", "")]), Ok(false)),
        (expression("app", "In", &["pay", "cart"]), Ok(true)),
        (expression("app", "In", &["pay"]), Ok(false)),
        (expression("zone", "In", &[""]), Ok(false)),
        (expression("app", "NotIn", &["pay"]), Ok(true)),
        (expression("app", "NotIn", &["cart"]), Ok(false)),
        (expression("zone", "NotIn", &["a"]), Ok(true)),
        (expression("tier", "Exists", &[]), Ok(true)),
        (expression("zone", "Exists", &[]), Ok(false)),
        (expression("zone", "DoesNotExist", &[]), Ok(true)),
        (expression("app", "DoesNotExist", &[]), Ok(false)),
        (expression("app", "In", &[]), Err(())),
        (expression("app", "NotIn", &[]), Err(())),
        (expression("app", "Exists", &["cart"]), Err(())),
        (expression("app", "DoesNotExist", &[""]), Err(())),
        // Operators of field selectors and of other selectors, and other spellings.
        (expression("app", "Gt", &["1"]), Err(())),
        (expression("app", "Equals", &["cart"]), Err(())),
        (expression("app", "in", &["cart"]), Err(())),
        (expression("app", "", &[]), Err(())),
    ];
    for (selector, wanted) in table {
        assert_eq!(matches(selector, &here).map_err(|_| ()), *wanted, "{selector:?}");
    }
}

#[test]
fn one_wrong_requirement_spoils_the_selector() {
    let mut selector = expression("app", "Is", &["cart"]);
    selector.match_labels = labels(&[("app", "pay")]);
    // Not "does not match" by the label: an error, whatever the labels are.
    assert_eq!(matches(&selector, &labels(&[("app", "cart")])), Err(SelectorError::Operator("Is".to_owned())));
}

#[test]
fn keys_and_values_are_checked_as_labels_are() {
    let long = "a".repeat(63);
    let longer = "a".repeat(64);
    let prefix = format!("{}.a/x", "a".repeat(251));
    let long_prefix = format!("{}.a/x", "a".repeat(252));
    for (key, fits) in [
        ("app", true),
        ("app.kubernetes.io/name", true),
        ("A_b-c.9", true),
        (&long, true),
        (&prefix, true),
        ("", false),
        ("/name", false),
        ("prefix/", false),
        ("a/b/c", false),
        ("-app", false),
        ("app-", false),
        ("app name", false),
        ("Example.com/name", false),
        ("example..com/name", false),
        ("-example.com/name", false),
        ("exämple", false),
        (&longer, false),
        (&long_prefix, false),
    ] {
        assert_eq!(check(&expression(key, "Exists", &[])).is_ok(), fits, "{key}");
        assert_eq!(check(&equal(&[(key, "x")])).is_ok(), fits, "{key}");
    }
    for (value, fits) in [("", true), ("a", true), (&long, true), ("-a", false), ("a b", false), (&longer, false)] {
        assert_eq!(check(&equal(&[("app", value)])).is_ok(), fits, "{value}");
        assert_eq!(check(&expression("app", "NotIn", &["ok", value])).is_ok(), fits, "{value}");
    }
}

/// The same by another road: each requirement as the set of answers for a label's value or its absence.
fn obviously(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    let mut requirements: Vec<(String, bool, Vec<Option<String>>)> = Vec::new();
    for (key, value) in &selector.match_labels {
        requirements.push((key.clone(), true, vec![Some(value.clone())]));
    }
    for Expression { key, operator, values } in &selector.match_expressions {
        let listed: Vec<_> = values.iter().cloned().map(Some).collect();
        requirements.push(match operator.as_str() {
            "In" => (key.clone(), true, listed),
            "NotIn" => (key.clone(), false, listed),
            "Exists" => (key.clone(), false, vec![None]),
            _ => (key.clone(), true, vec![None]),
        });
    }
    requirements.iter().all(|(key, wanted, answers)| answers.contains(&labels.get(key).cloned()) == *wanted)
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[abc]", "[xy]?", 0..4)
}

fn any_expression() -> impl Strategy<Value = Expression> {
    let values = proptest::collection::vec("[xy]?", 1..3);
    ("[abc]", 0..4_usize, values).prop_map(|(key, operator, values)| {
        let operator = ["In", "NotIn", "Exists", "DoesNotExist"][operator].to_owned();
        let values = if operator.ends_with("In") { values } else { Vec::new() };
        Expression { key, operator, values }
    })
}

proptest! {
    #[test]
    fn selectors_match_as_by_another_road(
        labels in any_labels(),
        match_labels in any_labels(),
        match_expressions in proptest::collection::vec(any_expression(), 0..4),
    ) {
        let selector = Selector { match_labels, match_expressions };
        prop_assert_eq!(matches(&selector, &labels), Ok(obviously(&selector, &labels)));
    }

    #[test]
    fn no_selector_panics(key in ".*", operator in ".*", values in proptest::collection::vec(".*", 0..3)) {
        let selector =
            Selector { match_labels: BTreeMap::new(), match_expressions: vec![Expression { key, operator, values }] };
        let _ = matches(&selector, &labels(&[("app", "cart")]));
    }
}
