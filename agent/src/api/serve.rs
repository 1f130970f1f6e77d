//! Speaks to clients: one request each, answered at the client's own speed.

use std::sync::Arc;
use std::time::Duration;

use agent_core::output::Output;
use agent_core::time::WallNs;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::feed::{Feed, Next, Reader};
use super::listen::Bound;
use super::protocol::{Answer, Question, REQUEST_BYTES_MAX, Request, Verb};
use crate::lines::{self, Form, SCHEMA};
use crate::lossy::Entry;

/// Clients at a time. People and a collector or two; each may hold [`super::feed::QUEUE_BYTES_MAX`].
pub(super) const CLIENTS_MAX: usize = 8;
/// A client's request is one short line; it has this long.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// A client that takes no byte for this long is cut.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// The Engine's task answers between two inputs.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// Lines are gathered up to this many bytes before they are written.
const CHUNK_BYTES: usize = 32 << 10;

/// What clients may see.
#[derive(Clone)]
pub(crate) struct Sources {
    /// Outputs.
    pub(crate) feed: Feed,
    /// Whom to ask for what the agent knows now.
    pub(crate) questions: mpsc::Sender<Question>,
    /// The node's name.
    pub(crate) node: Arc<str>,
    /// The wall clock.
    pub(crate) now: fn() -> WallNs,
}

/// Accepts clients until it is dropped, and removes the socket then.
pub(crate) async fn serve(bound: Bound, sources: Sources) -> std::io::Result<()> {
    let listener = UnixListener::from_std(bound.listener.try_clone()?)?;
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut clients = tokio::task::JoinSet::new();
    let mut is_failing = false;
    loop {
        // Finished clients leave the set, which so holds no more than the places do.
        while clients.try_join_next().is_some() {}
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                stream
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back. Said once.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "could not accept a client of the socket");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let why = format!("{CLIENTS_MAX} clients are connected already; end one of them first");
            let answer = format!("{}\n", lines::json(&Answer::refused(why)));
            // A fresh socket's buffer takes one line at once; whoever has no room for it goes without.
            let _ = stream.try_write(answer.as_bytes());
            let _ = stream.shutdown().await;
            continue;
        };
        let sources = sources.clone();
        clients.spawn(async move {
            let _place = place;
            if let Err(error) = client(stream, &sources).await {
                tracing::debug!(%error, "a client of the socket went away");
            }
        });
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

async fn client(stream: UnixStream, sources: &Sources) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(REQUEST_BYTES_MAX));
    let mut line = Vec::new();
    timeout(REQUEST_WAIT, read.read_until(b'\n', &mut line)).await??;
    let request = match parse(&line) {
        Ok(request) => request,
        Err(why) => return put(&mut write, &format!("{}\n", lines::json(&Answer::refused(why)))).await,
    };
    match request.verb {
        Verb::Status | Verb::Findings | Verb::Capacity | Verb::SgAudit | Verb::TokenAudit | Verb::Traffic => {
            state(request.verb, &mut write, sources).await
        }
        Verb::Observe => {
            let reader = sources.feed.subscribe(request.filter, request.follow);
            put(&mut write, &format!("{}\n", lines::json(&Answer::ok()))).await?;
            // A client has nothing more to say: what arrives, or its end, ends the stream.
            let mut rest = read.into_inner().into_inner();
            let mut byte = [0];
            tokio::select! {
                result = stream_lines(&mut write, &reader, request.form, sources) => result,
                _ = rest.read(&mut byte), if request.follow => Ok(()),
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    if !line.ends_with(b"\n") {
        return Err(format!("a request is one line of at most {REQUEST_BYTES_MAX} bytes"));
    }
    let request: Request = serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    if request.schema == SCHEMA {
        Ok(request)
    } else {
        Err(format!("this agent speaks {SCHEMA}, not {}", request.schema))
    }
}

async fn state<W: AsyncWrite>(verb: Verb, write: &mut W, sources: &Sources) -> std::io::Result<()> {
    let (ask, answer) = oneshot::channel();
    let asked = sources.questions.send(Question { verb, answer: ask });
    let answered = timeout(STATUS_WAIT, async { asked.await.ok().and(answer.await.ok()) }).await;
    let text = match answered {
        Ok(Some(lines)) => {
            let mut text = format!("{}\n", lines::json(&Answer::ok()));
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
            text
        }
        Ok(None) => format!("{}\n", lines::json(&Answer::refused("the agent is stopping".to_owned()))),
        Err(_) => format!("{}\n", lines::json(&Answer::refused("the agent is too busy to answer".to_owned()))),
    };
    put(write, &text).await
}

async fn stream_lines<W: AsyncWrite>(
    write: &mut W,
    reader: &Reader,
    form: Form,
    sources: &Sources,
) -> std::io::Result<()> {
    let mut chunk = String::new();
    while let Some(entry) = reader.next().await {
        line(&entry, form, sources, &mut chunk);
        while chunk.len() < CHUNK_BYTES
            && let Next::Entry(entry) = reader.try_next()
        {
            line(&entry, form, sources, &mut chunk);
        }
        put(write, &chunk).await?;
        chunk.clear();
    }
    Ok(())
}

fn line(entry: &Entry<Arc<Output>>, form: Form, sources: &Sources, chunk: &mut String) {
    match entry {
        Entry::Item(output, _) => lines::write(output, form, &sources.node, chunk),
        Entry::Dropped(count) => lines::write_dropped(*count, (sources.now)(), form, &sources.node, chunk),
    }
}

async fn put<W: AsyncWrite>(write: &mut W, text: &str) -> std::io::Result<()> {
    timeout(WRITE_WAIT, write.write_all(text.as_bytes())).await?
}

/// What an answer is written to.
trait AsyncWrite: tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncWrite + Unpin> AsyncWrite for T {}
