//! The other side of the socket: what `sekisho observe` and `sekisho doctor` do.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{ANSWER_BYTES_MAX, Answer, Request, Status, Verb};
use crate::lines;

/// How long the agent may take for its first line.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Why the agent was not heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody there.
    #[error(
        "no agent listens on {}; start one by `sekisho run --standalone`, or name its socket by --socket or SEKISHO_SOCKET",
        .0.display()
    )]
    NoAgent(PathBuf),
    /// Not allowed.
    #[error("not allowed to connect to {}; the socket is open to the agent's user alone: use sudo", .0.display())]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("lost the agent at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent said no.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// Not an agent, or one of another version.
    #[error("what listens on {} does not answer like an agent of this version", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Standard output is gone or full.
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

/// Copies what the agent says to `out` until either ends. A reader that goes away is no error.
pub(crate) fn observe(path: &Path, request: &Request, out: &mut dyn Write) -> Result<(), Error> {
    let fail = |source| Error::Io { path: path.to_owned(), source };
    let mut stream = ask(path, request)?;
    stream.get_ref().set_read_timeout(None).map_err(fail)?;
    loop {
        let chunk = stream.fill_buf().map_err(fail)?;
        if chunk.is_empty() {
            return Ok(());
        }
        match out.write_all(chunk).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            result => result.map_err(Error::Output)?,
        }
        let length = chunk.len();
        stream.consume(length);
    }
}

/// How the agent is.
pub(crate) fn status(path: &Path) -> Result<Status, Error> {
    read_line(path, &mut ask(path, &Request::state(Verb::Status))?)
}

/// What the agent knows now, a line of JSON each.
pub(crate) fn state<T: serde::de::DeserializeOwned>(path: &Path, verb: Verb) -> Result<Vec<T>, Error> {
    let mut stream = ask(path, &Request::state(verb))?;
    let mut lines = Vec::new();
    while !stream.fill_buf().map_err(|source| Error::Io { path: path.to_owned(), source })?.is_empty() {
        lines.push(read_line(path, &mut stream)?);
    }
    Ok(lines)
}

fn ask(path: &Path, request: &Request) -> Result<BufReader<UnixStream>, Error> {
    let fail = |source| Error::Io { path: path.to_owned(), source };
    let mut stream = super::connect(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Error::NoAgent(path.to_owned()),
        std::io::ErrorKind::PermissionDenied => Error::NotAllowed(path.to_owned()),
        _ => fail(source),
    })?;
    stream.set_read_timeout(Some(ANSWER_WAIT)).map_err(fail)?;
    stream.set_write_timeout(Some(ANSWER_WAIT)).map_err(fail)?;
    // An agent with no place left answers and closes before it has read: its answer counts, not this error.
    let sent = stream.write_all(format!("{}\n", lines::json(request)).as_bytes());
    let mut stream = BufReader::new(stream);
    let answer: Answer = match (read_line(path, &mut stream), sent) {
        (Err(Error::Io { .. } | Error::Answer { .. }), Err(source)) => return Err(fail(source)),
        (answer, _) => answer?,
    };
    answer.error.map_or(Ok(stream), |why| Err(Error::Refused(why)))
}

fn read_line<T: serde::de::DeserializeOwned>(path: &Path, stream: &mut BufReader<UnixStream>) -> Result<T, Error> {
    let mut line = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|source| Error::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&line).map_err(|source| Error::Answer { path: path.to_owned(), source })
}
