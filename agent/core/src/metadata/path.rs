//! Request targets: class of the path, and the role in it.
//!
//! A target is the client's own text and may hold anything. Only a class and a role name of harmless letters come out.

use agent_ebpf::wire::Service;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use crate::input::Category;

/// Longest name of an IAM role.
const ROLE_BYTES: usize = 64;
/// Path segments looked at; the deepest known path has six, and what lies below does not change its class.
const SEGMENTS: usize = 12;

/// What is kept of a request target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) category: Category,
    pub(super) role: Option<String>,
}

/// Classifies a target as it stands in the request line: percent-encoded, with a query, in absolute form.
pub(super) fn classify(service: Service, target: &[u8]) -> Target {
    let path = without_authority(target);
    let path = path.split(|&byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    // Room for all of it at once: growth would leave copies behind.
    let mut decoded = Zeroizing::new(Vec::with_capacity(path.len()));
    decoded.extend(percent_decode(path));
    let segments = segments(&decoded);
    let (category, role) = match service {
        Service::Imds => imds(&segments),
        Service::PodIdentity => (pod_identity(&segments), None),
    };
    Target { category, role: role.and_then(role_name) }
}

/// Drops scheme and authority of an absolute target, as sent to proxies.
fn without_authority(target: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"http://";
    match target.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let end = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            rest.get(end..).unwrap_or_default()
        }
        _ => target,
    }
}

/// The segments of a path as a server resolves them: without empty ones and dots.
fn segments(path: &[u8]) -> Vec<&[u8]> {
    let mut segments = Vec::with_capacity(SEGMENTS);
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ if segments.len() < SEGMENTS => segments.push(segment),
            _ => break,
        }
    }
    segments
}

fn imds<'a>(segments: &[&'a [u8]]) -> (Category, Option<&'a [u8]>) {
    let Some((first, rest)) = segments.split_first() else { return (Category::Other, None) };
    if is_other_cloud(first) {
        return (Category::OtherCloud, None);
    }
    if !is_version(first) {
        return (Category::Other, None);
    }
    let is = |at: usize, name: &str| rest.get(at).is_some_and(|s| s.eq_ignore_ascii_case(name.as_bytes()));
    if is(0, "meta-data") && is(1, "iam") && is(2, "security-credentials") {
        let role = rest.get(3).copied();
        return (if role.is_some() { Category::RoleCredentials } else { Category::RoleList }, role);
    }
    let category = if is(0, "api") && is(1, "token") {
        Category::Token
    } else if is(0, "user-data") {
        Category::UserData
    } else if is(0, "dynamic") && is(1, "instance-identity") {
        Category::IdentityDocument
    } else if is(0, "meta-data") && is(1, "identity-credentials") {
        Category::IdentityCredentials
    } else if is(0, "meta-data") && is(1, "iam") && is(2, "info") {
        Category::RoleInfo
    } else if rest.is_empty() || is(0, "meta-data") || is(0, "dynamic") {
        Category::Metadata
    } else {
        Category::Other
    };
    (category, None)
}

fn pod_identity(segments: &[&[u8]]) -> Category {
    match segments {
        [version, credentials, ..]
            if version.eq_ignore_ascii_case(b"v1") && credentials.eq_ignore_ascii_case(b"credentials") =>
        {
            Category::PodIdentityCredentials
        }
        _ => Category::Other,
    }
}

/// Google, Azure, Oracle, `OpenStack` and Hetzner serve their metadata on the same address below these.
fn is_other_cloud(first: &[u8]) -> bool {
    [b"computeMetadata".as_slice(), b"metadata", b"opc", b"openstack", b"hetzner"]
        .iter()
        .any(|name| first.eq_ignore_ascii_case(name))
}

/// `latest`, a date such as `2021-03-23`, or the first version, `1.0`.
fn is_version(segment: &[u8]) -> bool {
    let shape = |pattern: &[u8]| {
        segment.len() == pattern.len()
            && segment.iter().zip(pattern).all(|(s, p)| if *p == b'0' { s.is_ascii_digit() } else { s == p })
    };
    segment.eq_ignore_ascii_case(b"latest") || shape(b"0000-00-00") || shape(b"0.0")
}

/// A role name if it has the letters that IAM allows in one, and is no longer.
fn role_name(segment: &[u8]) -> Option<String> {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(byte);
    if segment.len() > ROLE_BYTES || !segment.iter().all(harmless) {
        return None;
    }
    String::from_utf8(segment.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imds_of(target: &str) -> (Category, Option<String>) {
        let target = classify(Service::Imds, target.as_bytes());
        (target.category, target.role)
    }

    #[test]
    fn classes_of_imds_paths() {
        use Category::{
            IdentityCredentials, IdentityDocument, Metadata, Other, OtherCloud, RoleInfo, RoleList, Token, UserData,
        };
        for (target, category) in [
            ("/latest/api/token", Token),
            ("/2021-03-23/api/token", Token),
            ("/LATEST/API/Token/", Token),
            ("/latest/meta-data/iam/security-credentials/", RoleList),
            ("/latest/meta-data/iam/security-credentials", RoleList),
            ("//latest//meta-data/./iam/x/../security-credentials?x=1", RoleList),
            ("/latest/meta-data/iam/info", RoleInfo),
            ("/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance", IdentityCredentials),
            ("/latest/user-data", UserData),
            ("/1.0/user-data/", UserData),
            ("/latest/%75ser-data", UserData),
            ("http://169.254.169.254/latest/user-data", UserData),
            ("HTTP://metadata/latest/user-data", UserData),
            ("/latest/dynamic/instance-identity/document", IdentityDocument),
            ("/latest/dynamic/", Metadata),
            ("/latest/meta-data/", Metadata),
            ("/latest/meta-data/mac", Metadata),
            ("/2009-04-04/meta-data/instance-id", Metadata),
            ("/latest", Metadata),
            ("/computeMetadata/v1/instance/service-accounts/default/token", OtherCloud),
            ("/metadata/instance?api-version=2021-02-01", OtherCloud),
            ("/metadata/identity/oauth2/token", OtherCloud),
            ("/opc/v2/instance/", OtherCloud),
            ("/", Other),
            ("*", Other),
            ("http://169.254.169.254", Other),
            ("http://169.254.169.254?/latest/user-data", Other),
            ("/latest/nothing", Other),
            ("/20210323/user-data", Other),
            ("/v1/credentials", Other),
            ("/../../..", Other),
        ] {
            assert_eq!(imds_of(target), (category, None), "{target}");
        }
    }

    #[test]
    fn roles() {
        let long = "r".repeat(ROLE_BYTES + 1);
        for (name, role) in [
            ("node-role", Some("node-role")),
            ("Role+=,.@_-9", Some("Role+=,.@_-9")),
            ("node%2Drole/", Some("node-role")),
            ("node-role?token=x", Some("node-role")),
            ("with%20space", None),
            ("semi;colon", None),
            ("%c3%a4", None),
            ("nul%00", None),
            (long.as_str(), None),
        ] {
            let target = format!("/latest/meta-data/iam/security-credentials/{name}");
            assert_eq!(imds_of(&target), (Category::RoleCredentials, role.map(str::to_owned)), "{target}");
        }
    }

    #[test]
    fn pod_identity_paths() {
        for (target, category) in [
            ("/v1/credentials", Category::PodIdentityCredentials),
            ("/v1/credentials/?x", Category::PodIdentityCredentials),
            ("/latest/user-data", Category::Other),
            ("/", Category::Other),
        ] {
            assert_eq!(classify(Service::PodIdentity, target.as_bytes()), Target { category, role: None }, "{target}");
        }
    }
}
