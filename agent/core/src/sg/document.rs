//! What the AWS CLI prints about security groups and prefix lists, as facts.
//!
//! The top key tells the form: `SecurityGroups` (`describe-security-groups`), `SecurityGroupRules`
//! (`describe-security-group-rules`), `PrefixLists` (`describe-managed-prefix-lists`, `describe-prefix-lists`), `Entries`
//! (`get-managed-prefix-list-entries`). Fields are those of the EC2 API reference:
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpPermission.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SecurityGroupRule.html>.

mod wire;

use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::model::{Group, GroupRule, PrefixList, is_word};

/// A path to a wrong value is cut behind so much: deeper than any that the API makes.
const PATH_CHARS: usize = 200;

/// What one file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Groups with all their rules.
    pub groups: Vec<Group>,
    /// Single rules, and the account that owns their group.
    pub rules: Vec<(GroupRule, Option<Arc<str>>)>,
    /// Prefix lists.
    pub lists: Vec<PrefixList>,
    /// Entries of one prefix list, which the answer does not name.
    pub entries: Option<Vec<IpNet>>,
}

/// Why a file cannot be used. Whoever knows the file's name puts it in front.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there.
    #[error("is empty; expected the JSON that `aws ec2 describe-security-groups` prints")]
    Empty,
    /// No JSON, or not of this shape.
    #[error("{path}line {line}, column {column}: {text}; expected the JSON of the AWS CLI as it printed it")]
    Json {
        /// Where in the document, with `: ` behind it; empty at the top.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        text: String,
    },
    /// Nothing that this knows.
    #[error(
        "has none of the keys SecurityGroups, SecurityGroupRules, PrefixLists and Entries at its top; expected what `aws \
         ec2 describe-security-groups`, describe-security-group-rules or get-managed-prefix-list-entries print with \
         --output json and without --query"
    )]
    UnknownForm,
    /// There is more than the file holds.
    #[error(
        "is one page of several (it has a NextToken), so rules may be missing; print it without --max-items and --no-paginate"
    )]
    OnePage,
}

/// Reads what the AWS CLI printed as JSON.
pub fn read(text: &str) -> Result<Document, ReadError> {
    // Some shells put a byte order mark in front.
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(ReadError::Empty);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let answer: wire::Answer = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // Keys that nobody knows stand in it as the file has them; they must not command a terminal.
        let path: String = error.path().to_string().chars().filter(|c| !c.is_control()).take(PATH_CHARS).collect();
        let at = if path == "." { String::new() } else { format!("{path}: ") };
        located(at, error.inner())
    })?;
    json.end().map_err(|error| located(String::new(), &error))?;
    answer.into_document()
}

fn located(path: String, error: &serde_json::Error) -> ReadError {
    // The crate appends the place to what it says.
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&place).unwrap_or(&text).to_owned();
    ReadError::Json { path, line: error.line(), column: error.column(), text }
}

impl wire::Answer {
    fn into_document(self) -> Result<Document, ReadError> {
        let Self { security_groups, security_group_rules, prefix_lists, entries, next_token } = self;
        if next_token.is_some_and(|token| !token.is_empty()) {
            return Err(ReadError::OnePage);
        }
        if security_groups.is_none() && security_group_rules.is_none() && prefix_lists.is_none() && entries.is_none() {
            return Err(ReadError::UnknownForm);
        }
        Ok(Document {
            groups: security_groups.unwrap_or_default().into_iter().map(|group| group.0).collect(),
            rules: security_group_rules.unwrap_or_default().into_iter().map(|rule| (rule.rule, rule.owner)).collect(),
            lists: prefix_lists.unwrap_or_default().into_iter().map(|list| list.0).collect(),
            entries: entries.map(|entries| entries.into_iter().map(|entry| entry.cidr.0).collect()),
        })
    }
}

/// A range of addresses, as EC2 writes it. Host bits, which EC2 cuts, are cut.
struct Cidr(IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let net: IpNet = text.parse().map_err(|_| {
            let text: String = text.chars().take(64).collect();
            serde::de::Error::custom(format_args!(
                "{text:?} is no range of addresses: expected 10.0.0.0/16 or 2001:db8::/56"
            ))
        })?;
        Ok(Self(net.trunc()))
    }
}

/// A word that is safe to show and to put into a command: an account, a VPC, the id of a rule.
struct Word(Arc<str>);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        if is_word(&text) {
            return Ok(Self(text.as_ref().into()));
        }
        let text: String = text.chars().take(64).collect();
        Err(serde::de::Error::custom(format_args!("{text:?}: expected 1 to 64 letters, digits, - or _")))
    }
}
