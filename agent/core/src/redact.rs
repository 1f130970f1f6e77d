//! Arguments of programs, fit to be shown: cut to bounds, with what looks like a secret replaced.
//!
//! No pattern finds every secret. This errs on the side of redacting: a lost detail costs less than a shown password.
//! Secrets are recognised by where they stand (after `--password`, in `TOKEN=…`, in a URL before the `@`) and by how
//! they look (AWS keys, JSON web tokens, well-known prefixes, long random words).

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

/// Stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// Most bytes of arguments looked at; a record carries 512, /proc may hold 2 MiB.
const RAW_BYTES: usize = 4096;
/// Longest argument kept.
const ARG_BYTES: usize = 256;
/// Shortest word that is taken for random by its letters alone: an AWS secret access key has 40.
const RANDOM_BYTES: usize = 40;

/// Redacts a NUL-separated argument vector, of which it keeps `max_args` arguments of at most 256 bytes. Broken UTF-8
/// and control characters become U+FFFD.
pub fn args(raw: &[u8], max_args: usize) -> Vec<String> {
    let raw = raw.get(..RAW_BYTES).unwrap_or(raw);
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    if raw.is_empty() {
        return Vec::new();
    }
    let mut reader = Reader::default();
    raw.split(|&byte| byte == 0)
        .take(max_args)
        .map(|arg| {
            let text = String::from_utf8_lossy(arg);
            cut(reader.arg(&text).replace(char::is_control, "\u{fffd}"))
        })
        .collect()
}

fn cut(mut arg: String) -> String {
    if arg.len() > ARG_BYTES {
        let mut end = ARG_BYTES;
        while !arg.is_char_boundary(end) {
            end -= 1;
        }
        arg.truncate(end);
    }
    arg
}

/// Reads arguments in order: what one means may stand in the one before.
#[derive(Default)]
struct Reader {
    /// The next argument, or word of a command line within an argument, is a secret.
    next: Next,
    /// Short options of the programs named so far whose value is a secret.
    short_options: Vec<&'static str>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Plain,
    Secret,
    /// `user:password`, or something that only looks so.
    User,
}

// === impl Reader ===

impl Reader {
    /// Redacts one argument.
    fn arg(&mut self, arg: &str) -> String {
        match self.next {
            // An option that takes a value of its own is read as one, lest that value be shown.
            Next::Secret if !is_secret_option(arg) => {
                self.next = Next::Plain;
                return REDACTED.to_owned();
            }
            Next::User => {
                self.next = Next::Plain;
                return user(arg).into_owned();
            }
            _ => self.next = Next::Plain,
        }
        // The whole rest of `NAME=value`, `--name=value` and `Name: value` is the value, spaces included.
        if let Some((name, separator, _)) = split_assignment(arg)
            && !name.contains(char::is_whitespace)
            && is_secret_name(name)
        {
            return format!("{name}{separator}{REDACTED}");
        }
        by_look(&self.words(arg))
    }

    /// Redacts the words of an argument, which may be a whole command line (`sh -c`).
    fn words(&mut self, arg: &str) -> String {
        let mut shown = String::with_capacity(arg.len());
        let mut quote = None;
        for piece in arg.split_inclusive(char::is_whitespace) {
            let word = piece.trim_end_matches(char::is_whitespace);
            let space = piece.get(word.len()..).unwrap_or_default();
            if word.is_empty() {
                shown.push_str(space);
                continue;
            }
            if let Some(open) = quote {
                // Within a quoted secret: its words vanish.
                if word.contains(open) {
                    quote = None;
                    shown.push_str(space);
                }
                continue;
            }
            let (text, opened) = self.word(word);
            quote = opened;
            shown.push_str(&text);
            if quote.is_none() {
                shown.push_str(space);
            }
        }
        shown
    }

    /// Redacts a word; the second value is a quote that opened in a secret and did not close.
    fn word<'a>(&mut self, word: &'a str) -> (Cow<'a, str>, Option<char>) {
        match std::mem::take(&mut self.next) {
            Next::Secret if !is_secret_option(word) => return (REDACTED.into(), open_quote(word)),
            Next::User => return (user(word), open_quote(word)),
            _ => {}
        }
        let bare = word.trim_matches(['"', '\'', '(', ')', ';']);
        if let Some(options) = short_options(bare) {
            self.short_options.extend(options);
            self.short_options.truncate(16);
        }
        if let Some((name, separator, value)) = split_assignment(word)
            && is_secret_name(name)
        {
            if value.is_empty() {
                self.next = Next::Secret;
            }
            return (format!("{name}{separator}{REDACTED}").into(), open_quote(value));
        }
        if is_secret_option(bare) {
            self.next = Next::Secret;
            return (word.into(), None);
        }
        if matches!(bare, "-u" | "-U" | "--user" | "--proxy-user") {
            self.next = Next::User;
            return (word.into(), None);
        }
        if let Some(value) = bare.strip_prefix("-u").or_else(|| bare.strip_prefix("--user="))
            && user(value) == REDACTED
        {
            return (format!("{}{REDACTED}", word.strip_suffix(value).unwrap_or_default()).into(), open_quote(word));
        }
        for option in &self.short_options {
            match bare.strip_prefix(option) {
                Some("") => self.next = Next::Secret,
                Some(value) => return (format!("{option}{REDACTED}").into(), open_quote(value)),
                None => {}
            }
        }
        (word.into(), None)
    }
}

/// Splits `name=value` or `name:value` at the first separator, which belongs to no part; dashes and quotes stay with
/// the name.
fn split_assignment(text: &str) -> Option<(&str, char, &str)> {
    let at = text.find(['=', ':'])?;
    let (name, rest) = text.split_at(at);
    let mut chars = rest.chars();
    let separator = chars.next()?;
    let value = chars.as_str();
    // `scheme://` is no assignment.
    (!name.is_empty() && !value.starts_with("//")).then_some((name, separator, value))
}

/// `-name` or `--name` whose value follows as the next argument.
fn is_secret_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| {
        let name = rest.trim_start_matches('-');
        // One letter is no name; those are known by program.
        name.len() > 1 && !name.contains(['=', ':', '/']) && is_secret_name(name)
    })
}

/// Whether what a name is given is a secret.
fn is_secret_name(name: &str) -> bool {
    const PARTS: [&str; 17] = [
        "password",
        "passwd",
        "passphrase",
        "passin",
        "passout",
        "pwd",
        "secret",
        "token",
        "apikey",
        "accesskey",
        "privatekey",
        "credential",
        "authorization",
        "bearer",
        "signature",
        "cookie",
        "connectionstring",
    ];
    const ENDS: [&str; 8] = ["pass", "key", "auth", "jwt", "dsn", "pin", "otp", "pw"];
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    PARTS.iter().any(|part| letters.contains(part)) || ENDS.iter().any(|end| letters.ends_with(end))
}

/// The short options of a program that take a password.
fn short_options(program: &str) -> Option<&'static [&'static str]> {
    let name = program.rsplit('/').next().unwrap_or(program);
    Some(match name {
        _ if name.starts_with("mysql") || name.starts_with("mariadb") || name.starts_with("mongo") => &["-p"],
        "sshpass" | "docker" | "podman" | "nerdctl" | "buildah" | "skopeo" | "crane" | "oras" | "helm" | "az"
        | "7z" | "7za" | "7zr" | "rar" | "unrar" => &["-p"],
        "redis-cli" | "valkey-cli" => &["-a"],
        "zip" | "unzip" | "ipmitool" | "sqlcmd" | "bcp" => &["-P"],
        "ldapsearch" | "ldapmodify" | "ldapadd" | "ldapdelete" | "ldapwhoami" => &["-w"],
        "snmpget" | "snmpwalk" | "snmpset" => &["-A", "-X", "-c"],
        "curl" => &["-b"],
        _ => return None,
    })
}

/// The value of `-u`: a password follows the colon, unless both sides are numbers (a uid and a gid) or there is none.
fn user(value: &str) -> Cow<'_, str> {
    match value.split_once([':', '%']) {
        Some((left, right)) if !(is_number(left) && is_number(right)) => REDACTED.into(),
        _ => value.into(),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The quote that a word opens and does not close.
fn open_quote(word: &str) -> Option<char> {
    ['"', '\''].into_iter().find(|quote| word.matches(*quote).count() % 2 == 1)
}

/// Redacts what looks like a secret, wherever it stands.
fn by_look(text: &str) -> String {
    let mut shown = Cow::Borrowed(text);
    for (pattern, replacement) in PATTERNS.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&shown, *replacement) {
            shown = Cow::Owned(replaced);
        }
    }
    let Some(words) = WORD.as_ref() else { return REDACTED.to_owned() };
    words
        .replace_all(&shown, |word: &Captures<'_>| {
            let word = word.get(0).map_or("", |word| word.as_str());
            if is_random(word) { REDACTED.to_owned() } else { word.to_owned() }
        })
        .into_owned()
}

/// Whether a long word has all kinds of letters, as keys and tokens have and paths and hashes have not.
fn is_random(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
    let is_path = word.starts_with('/') && word.len() != RANDOM_BYTES;
    !is_path && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
}

static WORD: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!("[A-Za-z0-9+/=_-]{{{RANDOM_BYTES},}}")).ok());

/// Patterns and what replaces their matches. A test holds that each compiles; one that did not would be left out.
static PATTERNS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    SOURCES.iter().filter_map(|(source, replacement)| Some((Regex::new(source).ok()?, *replacement))).collect()
});

const SOURCES: &[(&str, &str)] = &[
    // PEM blocks, to the end: the key has many lines.
    (r"(?s)-----BEGIN.*", "[redacted]"),
    // Headers whose value has several words, to the closing quote or the end.
    (r#"(?i)((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s*[:=]\s*)[^"']*"#, "$1$2[redacted]"),
    // Named values within an argument: JSON, query strings, lists of options.
    (
        r#"(?i)([\w.-]*(?:pass|pwd|secret|token|jwt|dsn|api[_-]?key|access[_-]?key|private[_-]?key|credential|signature|sig|key|auth)[\w.-]*)(["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s&"']+)"#,
        "$1$2[redacted]",
    ),
    // Names so short that they must end the name.
    (
        r#"(?i)([\w.-]*\b(?:\w*_)?(?:pw|pin|otp))(["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s&"']+)"#,
        "$1$2[redacted]",
    ),
    // URLs with user information; the password may hold any letter.
    (r#"(?i)([a-z][a-z0-9+.-]*://)[^\s"'<>]*@"#, "$1[redacted]@"),
    // The same, cut before its `@`: something other than a port follows the colon.
    (r"(?i)([a-z][a-z0-9+.-]*://)[^\s/@:\[]+:(?:[^\s/@]*[^\s/@0-9][^\s/@]*)$", "$1[redacted]"),
    (r"(?i)\b(bearer|basic|digest|negotiate|token)\s+[a-z0-9._~+/=-]{8,}", "$1 [redacted]"),
    // JSON web tokens, also cut ones.
    (r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*", "[redacted]"),
    // AWS key ids, long-lived and temporary, and the ids of users and roles.
    (r"\b(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{8,}", "[redacted]"),
    // Tokens with a prefix of their own: GitHub, GitLab, Slack, Stripe and other API keys, npm, Docker, Vault, Google.
    (
        r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|sk[-_]|rk_|npm_|dckr_pat_|hv[sbr]\.|AIza|ya29\.)[A-Za-z0-9._-]{8,}",
        "[redacted]",
    ),
];

#[cfg(test)]
mod tests;
