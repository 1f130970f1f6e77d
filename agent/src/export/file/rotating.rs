//! A file that gets a successor when it is full. Each write is whole lines, and stands in one file as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

/// Where the end of the last whole line is looked for in a file of a killed agent: a chunk is 64 KiB and a row.
const TORN_BYTES_MAX: u64 = 1 << 20;

/// See the module's documentation.
pub(super) struct Rotating {
    path: PathBuf,
    bytes_max: u64,
    files: u32,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    bytes: u64,
}

impl Rotating {
    /// Opens nothing yet.
    pub(super) fn new(path: PathBuf, bytes_max: u64, files: u32) -> Self {
        Self { path, bytes_max, files: files.max(1), open: None }
    }

    /// Appends lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        let mut open = self.opened()?;
        if open.bytes > 0 && open.bytes.saturating_add(length) > self.bytes_max {
            drop(open);
            self.rotate()?;
            open = self.opened()?;
        }
        if let Err(error) = open.file.write_all(lines) {
            // A part of a line is no line. Where that fails too the next one to open the file cuts it.
            let _ = open.file.set_len(open.bytes);
            return Err(error);
        }
        open.bytes = open.bytes.saturating_add(length);
        self.open = Some(open);
        Ok(())
    }

    /// The file under its name: somebody else may rotate it too, or remove it.
    fn opened(&mut self) -> io::Result<Open> {
        if let Some(open) = self.open.take()
            && fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == open.id)
        {
            return Ok(open);
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
        }
        let bytes = whole_lines(&file, metadata.len())?;
        if bytes < metadata.len() {
            file.set_len(bytes)?;
        }
        Ok(Open { file, id: (metadata.dev(), metadata.ino()), bytes })
    }

    /// `PATH` becomes `PATH.1`, that `PATH.2`, and so on; the oldest goes. Renames alone: whoever reads a file reads on.
    fn rotate(&self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.files).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(1))
    }
}

/// Bytes up to the end of the last whole line; all of a file whose last lines are longer than any of ours.
fn whole_lines(file: &File, bytes: u64) -> io::Result<u64> {
    let start = bytes.saturating_sub(TORN_BYTES_MAX);
    let mut end = vec![0; usize::try_from(bytes - start).unwrap_or(0)];
    file.read_exact_at(&mut end, start)?;
    Ok(match end.iter().rposition(|byte| *byte == b'\n') {
        Some(place) => start + place as u64 + 1,
        None if start == 0 => 0,
        None => bytes,
    })
}
