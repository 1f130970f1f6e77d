//! What metadata rows must say, written down by a test or taken from the server's log, compared as a multiset.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::lab::{IMDS_V4, IMDS_V6};
use crate::metadata_server::{IDENTITY_KEY, Logged, POD_KEY, ROLE_KEY};
use crate::rows::Metadata;

/// The facts of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row<'a> {
    /// `imds` or `pod_identity`.
    pub service: &'a str,
    /// `v1`, `v2` or `none`.
    pub version: &'a str,
    /// Method.
    pub method: Option<&'a str>,
    /// Class of the path.
    pub category: Option<&'a str>,
    /// Access key id in the answer.
    pub key: Option<&'a str>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// What came of it.
    pub outcome: &'a str,
}

impl<'a> Row<'a> {
    /// What a row of the agent says.
    pub fn of(row: &'a Metadata) -> Self {
        Self {
            service: &row.service,
            version: &row.version,
            method: row.method.as_deref(),
            category: row.category.as_deref(),
            key: row.access_key_id.as_deref(),
            status: row.status,
            outcome: &row.outcome,
        }
    }

    /// What a row must say about a request that the server logged.
    pub fn logged(logged: &'a Logged) -> Self {
        let imds = logged.service == IMDS_V4 || logged.service == IMDS_V6;
        let (category, key) = class(imds, &logged.path);
        let ok = logged.status == Some(200);
        Self {
            service: if imds { "imds" } else { "pod_identity" },
            version: match (imds, logged.token) {
                (false, _) => "none",
                (true, true) => "v2",
                (true, false) => "v1",
            },
            method: Some(&logged.method),
            category: Some(category),
            key: key.filter(|_| ok),
            status: logged.status,
            outcome: match logged.status {
                None => "unanswered",
                Some(200) => "ok",
                Some(401) => "unauthorized",
                Some(403) => "forbidden",
                Some(404) => "not_found",
                Some(_) => "error",
            },
        }
    }

    /// A request to IMDS that was answered well.
    pub fn imds(version: &'a str, method: &'a str, category: &'a str) -> Self {
        Self {
            service: "imds",
            version,
            method: Some(method),
            category: Some(category),
            key: None,
            status: Some(200),
            outcome: "ok",
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn failed(self, status: u16, outcome: &'a str) -> Self {
        Self { status: Some(status), outcome, ..self }
    }

    /// Nothing of a request or an answer was seen.
    pub fn unseen(outcome: &'a str) -> Self {
        Self { service: "imds", version: "none", method: None, category: None, key: None, status: None, outcome }
    }
}

/// The rows are exactly these, in any order.
pub fn compare<'a>(expected: &[Row<'a>], rows: impl Iterator<Item = Row<'a>>) -> Result<()> {
    // How often each row is expected, less how often it was seen.
    let mut balance: BTreeMap<Row<'a>, i64> = BTreeMap::new();
    for row in expected {
        *balance.entry(*row).or_default() += 1;
    }
    let mut seen = 0;
    for row in rows {
        *balance.entry(row).or_default() -= 1;
        seen += 1;
    }
    balance.retain(|_, difference| *difference != 0);
    let text = balance.iter().fold(String::new(), |text, (row, difference)| match difference {
        1.. => format!("{text}\n  {difference} missing: {row:?}"),
        _ => format!("{text}\n  {} too many: {row:?}", -difference),
    });
    ensure!(balance.is_empty(), "{seen} rows instead of {}:{text}", expected.len());
    Ok(())
}

/// Class of a path that the tests' clients ask for, and the access key id that its answer holds.
fn class(imds: bool, path: &str) -> (&'static str, Option<&'static str>) {
    if !imds {
        return ("pod_identity_credentials", Some(POD_KEY));
    }
    match path.trim_start_matches("/latest/") {
        "api/token" => ("token", None),
        "meta-data/iam/security-credentials/" | "meta-data/iam/security-credentials" => ("role_list", None),
        "meta-data/iam/info" => ("role_info", None),
        "user-data" => ("user_data", None),
        other if other.starts_with("meta-data/iam/security-credentials/") => ("role_credentials", Some(ROLE_KEY)),
        other if other.starts_with("meta-data/identity-credentials/") => ("identity_credentials", Some(IDENTITY_KEY)),
        other if other.starts_with("dynamic/instance-identity/") => ("identity_document", None),
        _ => ("metadata", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_too_many_and_one_too_few_are_seen() {
        let (a, b) = (Row::imds("v1", "GET", "metadata"), Row::imds("v2", "GET", "metadata"));
        assert!(compare(&[a, b, a], [b, a, a].into_iter()).is_ok());
        assert!(compare(&[a, b], [a, b, b].into_iter()).is_err());
        assert!(compare(&[a, b, b], [a, b].into_iter()).is_err());
        assert!(compare(&[a, a, b], [a, b, b].into_iter()).is_err());
    }
}
