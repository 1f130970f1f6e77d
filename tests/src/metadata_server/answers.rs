//! What the services say to a request.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::{IDENTITY_KEY, POD_KEY, ROLE, ROLE_KEY, Shared, USER_DATA_BYTES};
use crate::http::Request;
use crate::lab::{IMDS_V4, IMDS_V6};

/// Header of a token, in lower case.
pub(super) const TOKEN: &str = "x-aws-ec2-metadata-token";
/// Header of a request for a token, in lower case.
pub(super) const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    ttl: Option<String>,
}

impl Answer {
    /// Without a body.
    pub(super) fn bare(status: u16) -> Self {
        Self { status, body: String::new(), ttl: None }
    }

    fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, body: body.into(), ttl: None }
    }

    /// Status line and headers.
    pub(super) fn head(&self, chunked: bool, close: bool) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            _ => "Error",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\nServer: EC2ws\r\nContent-Type: text/plain\r\n", self.status);
        if let Some(ttl) = &self.ttl {
            let _ = write!(head, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: {ttl}\r\n");
        }
        let _ = if chunked {
            write!(head, "Transfer-Encoding: chunked\r\n")
        } else {
            write!(head, "Content-Length: {}\r\n", self.body.len())
        };
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        head
    }
}

/// What a service says to a request.
pub(super) fn answer(shared: &Shared, service: IpAddr, request: &Request) -> Answer {
    if service == IMDS_V4 || service == IMDS_V6 { imds(shared, request) } else { pod_identity(shared, request) }
}

/// The node role's credentials.
pub(super) fn role_credentials(shared: &Shared) -> Answer {
    credentials(shared, ROLE_KEY)
}

fn imds(shared: &Shared, request: &Request) -> Answer {
    if request.method == "PUT" {
        return token(shared, request);
    }
    match request.header(TOKEN) {
        Some(token) if issued(shared, token) => {}
        Some(_) => return Answer::bare(401),
        None if shared.behaviour.tokens_required => return Answer::bare(401),
        None => {}
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let Some((version, rest)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return if path == "/" { Answer::ok("latest") } else { Answer::bare(404) };
    };
    if version != "latest" && !version.starts_with("20") {
        return Answer::bare(404);
    }
    match rest {
        "meta-data/" | "meta-data" => Answer::ok("ami-id\niam/\ninstance-id\nplacement/"),
        "meta-data/instance-id" => Answer::ok("i-0123456789abcdef0"),
        "meta-data/placement/region" => Answer::ok("eu-central-1"),
        "meta-data/placement/availability-zone" | "meta-data/placement/availability-zone/" => {
            Answer::ok("eu-central-1a")
        }
        "meta-data/iam/info" => Answer::ok(format!(
            r#"{{"Code":"Success","InstanceProfileArn":"arn:aws:iam::111122223333:instance-profile/{ROLE}"}}"#
        )),
        "meta-data/iam/security-credentials" | "meta-data/iam/security-credentials/" => Answer::ok(ROLE),
        "meta-data/identity-credentials/ec2/security-credentials/ec2-instance" => credentials(shared, IDENTITY_KEY),
        "user-data" => Answer::ok(user_data(shared)),
        "dynamic/instance-identity/document" => {
            Answer::ok(r#"{"accountId":"111122223333","region":"eu-central-1","instanceId":"i-0123456789abcdef0"}"#)
        }
        other if other.strip_prefix("meta-data/iam/security-credentials/") == Some(ROLE) => role_credentials(shared),
        _ => Answer::bare(404),
    }
}

fn token(shared: &Shared, request: &Request) -> Answer {
    if request.path != "/latest/api/token" {
        return Answer::bare(404);
    }
    if request.header("x-forwarded-for").is_some() {
        return Answer::bare(403);
    }
    let Some(ttl) =
        request.header(TOKEN_TTL).filter(|ttl| ttl.parse().is_ok_and(|ttl| (1..=21_600_u32).contains(&ttl)))
    else {
        return Answer::bare(400);
    };
    let number = shared.tokens.fetch_add(1, Ordering::Relaxed);
    Answer { ttl: Some(ttl.to_owned()), ..Answer::ok(format!("AQAEA{}n{number:x}==", shared.canary)) }
}

fn issued(shared: &Shared, token: &str) -> bool {
    token
        .strip_prefix("AQAEA")
        .and_then(|rest| rest.strip_prefix(shared.canary.as_str()))
        .and_then(|rest| rest.strip_prefix('n')?.strip_suffix("=="))
        .and_then(|number| u64::from_str_radix(number, 16).ok())
        .is_some_and(|number| number < shared.tokens.load(Ordering::Relaxed))
}

fn pod_identity(shared: &Shared, request: &Request) -> Answer {
    match (request.method.as_str(), request.path.as_str(), request.header("authorization")) {
        ("GET", "/v1/credentials", Some(value)) if value.contains(&shared.canary) => credentials(shared, POD_KEY),
        ("GET", "/v1/credentials", Some(_)) => Answer::bare(403),
        ("GET", "/v1/credentials", None) => Answer::bare(401),
        _ => Answer::bare(404),
    }
}

fn credentials(shared: &Shared, key: &str) -> Answer {
    let canary = &shared.canary;
    Answer::ok(format!(
        r#"{{
  "Code" : "Success",
  "LastUpdated" : "2026-01-01T00:00:00Z",
  "Type" : "AWS-HMAC",
  "AccessKeyId" : "{key}",
  "SecretAccessKey" : "wJalr/{canary}/bPxRfiCY",
  "Token" : "IQoJb3JpZ2luX2VjE{canary}//////////wEaDGV1LWNlbnRyYWwtMSJHMEUCIQ{canary}",
  "AccountId" : "111122223333",
  "Expiration" : "2099-01-01T00:00:00Z"
}}"#
    ))
}

fn user_data(shared: &Shared) -> String {
    let line = format!("export PASSWORD={}\n", shared.canary);
    format!("#!/bin/sh\n{}", line.repeat(USER_DATA_BYTES.div_ceil(line.len())))
}
