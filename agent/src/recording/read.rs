//! Reading a recording, one entry after another. Nothing in the file is believed: lengths are bounded, and what follows the end
//! is an error.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use agent_core::recording::{End, Entry, FORMAT, Header};
use serde::Deserialize;

use super::{ENTRY_BYTES_MAX, Error, HEADER_BYTES_MAX};

/// Largest window that a file may ask for, as a power of two: 8 MiB. The writer's is 2 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// A recording that is being read.
pub(crate) struct Reader {
    path: PathBuf,
    header: Header,
    bytes: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    entries: u64,
    end: Option<End>,
}

/// What is known of a header of any format.
#[derive(Deserialize)]
struct AnyHeader {
    recording: u32,
    #[serde(default)]
    agent: String,
}

impl Reader {
    /// Opens a recording and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let open = |error| Error::Open(path.to_owned(), error);
        let foreign = || Error::Foreign(path.to_owned());
        let file = File::open(path).map_err(open)?;
        if file.metadata().map_err(open)?.is_dir() {
            return Err(open(ErrorKind::IsADirectory.into()));
        }
        let mut decoder = zstd::stream::read::Decoder::new(file).map_err(open)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(open)?;
        let mut bytes = BufReader::new(decoder);
        let mut line = Vec::new();
        let read = (&mut bytes).take(HEADER_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if read.is_err() || line.pop() != Some(b'\n') {
            return Err(foreign());
        }
        let any: AnyHeader = serde_json::from_slice(&line).map_err(|_| foreign())?;
        if any.recording != FORMAT {
            return Err(Error::Version { path: path.to_owned(), found: any.recording, agent: any.agent });
        }
        let header = serde_json::from_slice(&line).map_err(|error| Error::Entry {
            path: path.to_owned(),
            entry: 0,
            what: format!("its header cannot be understood: {error}"),
        })?;
        Ok(Self { path: path.to_owned(), header, bytes, entries: 0, end: None })
    }

    /// What stands before all entries.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// How it ends, once it was read to there.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The next entry; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'static>>, Error> {
        let mut length = [0; 4];
        let first = self.bytes.by_ref().take(1).read(&mut length).map_err(|error| self.broken(&error))?;
        match (first, self.end) {
            (0, Some(_)) => return Ok(None),
            (_, Some(_)) => return Err(self.wrong("something stands after the end".to_owned())),
            (0, None) => return Err(self.cut()),
            (_, None) => {}
        }
        let [_, rest @ ..] = &mut length;
        self.bytes.read_exact(rest).map_err(|error| self.broken(&error))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > ENTRY_BYTES_MAX {
            return Err(self.wrong(format!("{length} bytes are more than any entry has")));
        }
        let mut bytes = Vec::new();
        let read = self.bytes.by_ref().take(length as u64).read_to_end(&mut bytes);
        match read.map_err(|error| self.broken(&error))? {
            read if read == length => {}
            _ => return Err(self.cut()),
        }
        let entry = rmp_serde::from_slice(&bytes)
            .map_err(|error| self.wrong(format!("cannot be understood, perhaps of a newer version: {error}")))?;
        if let Entry::End(end) = entry {
            if end.entries != self.entries {
                return Err(self.wrong(format!("the end speaks of {} entries", end.entries)));
            }
            self.end = Some(end);
            return self.next();
        }
        self.entries += 1;
        Ok(Some(entry))
    }

    fn wrong(&self, what: String) -> Error {
        Error::Entry { path: self.path.clone(), entry: self.entries + 1, what }
    }

    fn cut(&self) -> Error {
        Error::Cut { path: self.path.clone(), entries: self.entries }
    }

    /// A stream that stops in the middle was cut; anything else is damage.
    fn broken(&self, error: &std::io::Error) -> Error {
        if error.kind() == ErrorKind::UnexpectedEof { self.cut() } else { self.wrong(error.to_string()) }
    }
}
