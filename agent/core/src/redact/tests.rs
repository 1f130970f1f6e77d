//! What is a secret by its place or its look, what is none, and that the bounds hold for any bytes.

use proptest::prelude::*;

use super::*;

fn shown(words: &[&str]) -> String {
    args(words.join("\0").as_bytes(), 64).join(" ")
}

#[test]
fn every_pattern_compiles() {
    assert_eq!(PATTERNS.len(), SOURCES.len());
    assert!(WORD.is_some());
}

#[test]
fn what_is_no_secret_stays() {
    for words in [
        &["/usr/bin/curl", "-s", "http://169.254.169.254/latest/meta-data/"][..],
        &["python3", "-m", "http.server", "8080"],
        &["sleep", "3600"],
        &["docker", "run", "-u", "1000:1000", "nginx:1.27"],
        &["ssh", "-p", "22", "host.example"],
        &["mkdir", "-p", "/var/lib/data"],
        &["sh", "-c", "echo hello world && exec /bin/app --port=80"],
        &["containerd-shim", "-id", "3f2a9b0c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8"],
        &["/usr/lib/x86_64-linux-gnu/some/very/long/path/to/a/library.so"],
        &["wget", "http://[fd00:ec2::254]/latest/user-data", "http://host:8080/x"],
    ] {
        assert_eq!(shown(words), words.join(" "));
    }
}

#[test]
fn bounds() {
    assert_eq!(args(b"", 8), Vec::<String>::new());
    assert_eq!(args(b"a\0b\0c\0", 2), ["a", "b"]);
    assert_eq!(args(b"a\0\0b\0", 8), ["a", "", "b"]);
    let long = "ä".repeat(300);
    assert_eq!(args(long.as_bytes(), 8), ["ä".repeat(128)]);
    assert_eq!(args(b"a\x1b[31m\xff", 8), ["a\u{fffd}[31m\u{fffd}"]);
    assert!(args(&[b'x'; 10_000], 8).iter().map(String::len).sum::<usize>() <= ARG_BYTES);
}

/// Command lines with `%` in the place of the secret.
const LINES: &[&[&str]] = &[
    &["app", "--password", "%"],
    &["app", "--password=%"],
    &["app", "-password", "%"],
    &["app", "-password=%"],
    &["app", "--db-password", "%", "--verbose"],
    &["app", "--secret", "--password", "%"],
    &["app", "--token=%"],
    &["app", "--api-key", "%"],
    &["app", "--apiKey=%"],
    &["app", "--client-secret", "%"],
    &["app", "--aws-secret-access-key", "%"],
    &["env", "PASSWORD=%", "cmd"],
    &["env", "AWS_SECRET_ACCESS_KEY=%", "AWS_SESSION_TOKEN=%", "cmd"],
    &["env", "SSHPASS=%", "MYSQL_PWD=%", "cmd"],
    &["docker", "run", "-e", "DB_PASSWORD=%", "image"],
    &["mysql", "-uroot", "-p%"],
    &["/usr/bin/mysqldump", "-u", "root", "-p%", "db"],
    &["sshpass", "-p", "%", "ssh", "host"],
    &["sshpass", "-p%", "ssh", "host"],
    &["redis-cli", "-a", "%"],
    &["curl", "-u", "user:%", "http://host/"],
    &["curl", "-uuser:%", "http://host/"],
    &["curl", "--user", "user:%"],
    &["curl", "--user=user:%"],
    &["curl", "--proxy-user", "user:%"],
    &["curl", "-H", "Authorization: Bearer %"],
    &["curl", "-H", "Authorization: %"],
    &["curl", "-H", "authorization:Basic %"],
    &["curl", "--header=Authorization: Bearer %"],
    &["curl", "-HAuthorization: token %"],
    &["curl", "-H", "X-Vault-Token: %"],
    &["curl", "-H", "X-aws-ec2-metadata-token: %"],
    &["curl", "-H", "X-Api-Key: %"],
    &["curl", "-H", "Cookie: session=1; id=%"],
    &["curl", "-d", "{\"password\": \"%\", \"a\": 1}"],
    &["curl", "-d", "user=x&password=%&y=z"],
    &["curl", "https://user:%@host/path"],
    &["curl", "https://user:%"],
    &["psql", "postgres://user:%@host:5432/db?sslmode=off"],
    &["curl", "https://host/path?access_token=%&x=1"],
    &["curl", "https://bucket/key?X-Amz-Signature=%"],
    &["mount", "-o", "username=u,password=%,vers=3"],
    &["mount", "-o", "username=u,pass=%"],
    &["curl", "-d", "{\"user\":\"a\",\"pass\":\"%\"}"],
    &["curl", "-d", "user=a&pass=%"],
    &["docker", "run", "--env=DB_PASS=%"],
    &["kubectl", "create", "secret", "generic", "x", "--from-literal=pw=%"],
    &["openssl", "-passin", "pass:%"],
    &["sh", "-c", "mysql -uroot -p% -h db"],
    &["sh", "-c", "export TOKEN=%; run --verbose"],
    &["sh", "-c", "app --password % --host x"],
    &["sh", "-c", "app --password 'a b %' --host x"],
    &["sh", "-c", "app --password=\"a b %\" --host x"],
    &["sh", "-c", "PASSWORD= % app"],
    &["sh", "-c", "curl -H 'Authorization: Bearer %' http://host"],
    &["sh", "-c", "curl -H \"X-Token: %\" http://host"],
    &["app", "--password", "with space %"],
    &["app", "key: %"],
];

#[test]
fn secrets_by_place() {
    for line in LINES {
        let line: Vec<String> = line.iter().map(|word| word.replace('%', "hunter2")).collect();
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let shown = shown(&line);
        assert!(!shown.contains("hunter2"), "{line:?} is shown as {shown}");
        assert!(shown.contains(REDACTED), "{line:?} is shown as {shown}");
    }
}

#[test]
fn secrets_by_look() {
    for secret in [
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "eyJhbGciOiJI",
        "ghp_0123456789abcdefghij",
        "xoxb-123456789012-abcdef",
        "glpat-abcdefghijklmnop",
        "hvs.CAESIabcdefghijk",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ] {
        for line in [vec!["app", secret], vec!["app", "--x", secret], vec!["sh", "-c", "a"]] {
            assert!(!shown(&line).contains(secret), "{line:?}");
        }
        let within = format!("run \"{secret}\" now");
        assert!(!shown(&["sh", "-c", &within]).contains(secret), "{within}");
    }
}

#[test]
fn rest_of_a_line_stays_readable() {
    assert_eq!(shown(&["mysql", "-uroot", "-phunter2", "-h", "db"]), "mysql -uroot -p[redacted] -h db");
    assert_eq!(shown(&["curl", "https://u:p@host/x"]), "curl https://[redacted]@host/x");
    assert_eq!(shown(&["sh", "-c", "app --password 'a b' --host x"]), "sh -c app --password [redacted] --host x");
}

proptest! {
    #[test]
    fn any_secret_in_any_place(line in 0..LINES.len(), secret in "[A-Za-z0-9!#%*+,./:?@^_~-]{9,30}") {
        // Letters that end a value where a shell or a URL would end it are not part of a secret there.
        let secret = format!("q{secret}q");
        let within_url = LINES[line].iter().any(|word| word.contains("://"));
        prop_assume!(!within_url || !secret.contains(['/', '#', '?', '@']));
        let words: Vec<String> = LINES[line].iter().map(|word| word.replace('%', &secret)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let shown = shown(&words);
        prop_assert!(!shown.contains(&secret), "{:?} is shown as {}", words, shown);
    }

    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..600), max in 0usize..70) {
        let args = args(&raw, max);
        prop_assert!(args.len() <= max);
        prop_assert!(args.iter().all(|arg| arg.len() <= ARG_BYTES && !arg.contains(char::is_control)));
    }
}
