//! Pod Identity associations, as the AWS command line prints them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::papers::identity::AssociationMap;
use serde::Deserialize;

/// Most bytes of the file: an association takes some 350, a cluster has 5,000 at the most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("could not read the Pod Identity associations in {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the Pod Identity associations in {} are longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error(
        "{} is not what `aws eks list-pod-identity-associations --output json` prints",
        path.display()
    )]
    Parse { path: PathBuf, source: serde_path_to_error::Error<serde_json::Error> },
    #[error(
        "{} holds only the first page of associations (nextToken is set): let the command print all of them",
        path.display()
    )]
    Page { path: PathBuf },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    associations: Vec<Association>,
    #[serde(default)]
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Association {
    namespace: Arc<str>,
    service_account: Arc<str>,
    /// Not in a list, but in what `describe-pod-identity-association` prints of each.
    #[serde(default)]
    role_arn: Option<Arc<str>>,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<AssociationMap, Error> {
    let unread = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(unread)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unread)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    let mut json = serde_json::Deserializer::from_str(&text);
    let answer: Answer =
        serde_path_to_error::deserialize(&mut json).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
    if answer.next_token.is_some_and(|token| !token.is_empty()) {
        return Err(Error::Page { path: path.to_owned() });
    }
    let associations = answer.associations.into_iter();
    Ok(associations.map(|one| ((one.namespace, one.service_account), one.role_arn)).collect())
}
