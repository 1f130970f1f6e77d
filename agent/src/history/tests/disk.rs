//! A disk that can be cut off, that fails, and that stands still. SQLite's files in its directory go through functions that
//! stand before those of the system, and note what is written, synced and removed; all other files are left alone.

#![allow(unsafe_code, reason = "SQLite reaches files through tables of C functions")]

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError, Weak};

use rusqlite::ffi::{
    SQLITE_IOERR, SQLITE_IOERR_FSYNC, SQLITE_OK, SQLITE_OPEN_MAIN_DB, sqlite3_file, sqlite3_filename,
    sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

/// What a disk takes as one: a write that is cut off leaves some of these.
const SECTOR: usize = 512;

/// Something that was done to a file of the disk.
pub(super) enum Op {
    /// The writer of the history made it, and synced its directory.
    Made,
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate(usize),
    Sync,
    /// Its directory was synced with it, and with that whatever was removed there.
    SyncDirectory,
    Remove,
}

/// What goes wrong, counted from when it was said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// After so many writes, truncations and syncs,
    pub(super) after: usize,
    /// so many of them
    pub(super) times: usize,
    /// end with this code, a write half done; a sync ends with its own.
    pub(super) code: c_int,
}

/// See the module's documentation.
pub(super) struct Disk {
    root: PathBuf,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// In order, each with the file it was done to.
    ops: Vec<(PathBuf, Op)>,
    fault: Option<Fault>,
    /// Syncs do not come back.
    stands: bool,
}

/// A file that is open.
struct Opened {
    disk: Arc<Disk>,
    path: PathBuf,
    /// The functions of the system.
    real: &'static sqlite3_io_methods,
    /// A log or journal that was just made: its directory is synced with it, once.
    is_new: AtomicBool,
}

/// By the address of SQLite's own structure.
static OPENED: LazyLock<Mutex<HashMap<usize, Arc<Opened>>>> = LazyLock::new(Mutex::default);
/// Functions that stand before others, by the address of the others.
static METHODS: LazyLock<Mutex<HashMap<usize, &'static sqlite3_io_methods>>> = LazyLock::new(Mutex::default);
static DISKS: Mutex<Vec<Weak<Disk>>> = Mutex::new(Vec::new());
static REAL: LazyLock<usize> = LazyLock::new(|| {
    // SAFETY: asks for the default by a null pointer, as documented.
    unsafe { sqlite3_vfs_find(std::ptr::null()) as usize }
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Disk ===

impl Disk {
    /// From now on what SQLite does in a directory is noted.
    pub(super) fn new(root: &Path) -> Arc<Self> {
        static REGISTER: Once = Once::new();
        REGISTER.call_once(register);
        let root = root.canonicalize().expect("is there");
        let disk = Arc::new(Self { root, state: Mutex::default(), moved: Condvar::new() });
        let mut disks = lock(&DISKS);
        disks.retain(|disk| disk.strong_count() > 0);
        disks.push(Arc::downgrade(&disk));
        disk
    }

    /// What was done so far.
    pub(super) fn ops(&self) -> usize {
        lock(&self.state).ops.len()
    }

    /// Something goes wrong from now on.
    pub(super) fn fail(&self, fault: Fault) {
        lock(&self.state).fault = Some(fault);
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&self) {
        lock(&self.state).fault = None;
    }

    /// Syncs do not come back, or do again.
    pub(super) fn stand(&self, stands: bool) {
        lock(&self.state).stands = stands;
        self.moved.notify_all();
    }

    /// What stands on it when the power goes after so many ops: what was synced, and of the rest what `keep` says, sector by
    /// sector. By the names of files.
    pub(super) fn cut(&self, after: usize, mut keep: impl FnMut() -> bool) -> HashMap<PathBuf, Vec<u8>> {
        let state = lock(&self.state);
        let ops = state.ops.get(..after).expect("that many");
        let directory = ops.iter().rposition(|(_, op)| matches!(op, Op::SyncDirectory | Op::Made)).unwrap_or(0);
        let mut files = HashMap::new();
        for path in ops.iter().map(|(path, _)| path) {
            if files.contains_key(path) {
                continue;
            }
            let of = ops.iter().enumerate().filter(|(_, (other, _))| other == path);
            let of: Vec<(usize, &Op)> = of.map(|(at, (_, op))| (at, op)).collect();
            files.insert(path.clone(), left_of(&of, directory, &mut keep));
        }
        files.into_iter().filter_map(|(path, bytes)| Some((path.file_name()?.into(), bytes?))).collect()
    }

    /// Notes what is done; the code that it ends with when it goes wrong.
    fn note(&self, path: &Path, op: Op) -> Result<(), c_int> {
        let mut state = lock(&self.state);
        if matches!(op, Op::Sync) {
            state = self.moved.wait_while(state, |state| state.stands).unwrap_or_else(PoisonError::into_inner);
        }
        let goes_wrong = match &mut state.fault {
            Some(Fault { after: 0, times, .. }) if *times > 0 => {
                *times -= 1;
                true
            }
            Some(Fault { after: after @ 1.., .. }) => {
                *after -= 1;
                false
            }
            _ => false,
        };
        let code = state.fault.map_or(SQLITE_IOERR, |fault| fault.code);
        match op {
            Op::Sync if goes_wrong => return Err(SQLITE_IOERR_FSYNC),
            _ if goes_wrong => return Err(code),
            op => state.ops.push((path.to_owned(), op)),
        }
        Ok(())
    }
}

/// What is left of one file, of whose directory the last sync was at `directory`; `None`: it is not there.
fn left_of(ops: &[(usize, &Op)], directory: usize, keep: &mut impl FnMut() -> bool) -> Option<Vec<u8>> {
    let synced = ops.iter().rfind(|(_, op)| matches!(op, Op::Sync)).map_or(0, |(at, _)| *at);
    let mut left: Option<Vec<u8>> = None;
    for (at, op) in ops {
        let is_synced = *at < synced;
        match op {
            Op::Made => left = Some(left.unwrap_or_default()),
            Op::Sync | Op::SyncDirectory => {}
            Op::Truncate(length) => {
                if let Some(bytes) = &mut left
                    && (is_synced || keep())
                {
                    bytes.resize(*length, 0);
                }
            }
            Op::Remove => {
                if *at < directory || keep() {
                    left = None;
                } else {
                    // What has its name afterwards is another file, which nobody finds.
                    return left;
                }
            }
            Op::Write { offset, bytes } => {
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    if is_synced || keep() {
                        let (from, content) = (offset + number * SECTOR, left.get_or_insert_default());
                        content.resize(content.len().max(from + sector.len()), 0);
                        content[from..from + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
    }
    left
}

// === what SQLite calls ===

fn real() -> *mut sqlite3_vfs {
    *REAL as *mut sqlite3_vfs
}

fn register() {
    // SAFETY: SQLite's own table, which stays.
    let mut vfs = unsafe { *real() };
    vfs.zName = c"sekisho-test-disk".as_ptr();
    vfs.pNext = std::ptr::null_mut();
    vfs.xOpen = Some(open);
    vfs.xDelete = Some(delete);
    // SAFETY: a table that is never freed, with functions of the system but for two that call these.
    let code = unsafe { sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1) };
    assert_eq!(code, SQLITE_OK);
}

/// The disk that a name is on.
fn disk_of(name: *const c_char) -> Option<(Arc<Disk>, PathBuf)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero.
    let name = unsafe { CStr::from_ptr(name) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let disk = lock(&DISKS).iter().filter_map(Weak::upgrade).find(|disk| path.starts_with(&disk.root))?;
    Some((disk, path.to_owned()))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let is_new = disk_of(name).is_some_and(|(_, path)| !path.exists());
    // SAFETY: the system's table, which stays.
    let real_open = unsafe { (*real()).xOpen }.expect("opens");
    // SAFETY: as SQLite called this.
    let code = unsafe { real_open(real(), name, file, flags, out) };
    let Some((disk, path)) = disk_of(name).filter(|_| code == SQLITE_OK) else { return code };
    // SAFETY: it was opened: its functions are a table that stays.
    let real = unsafe { (*file).pMethods };
    // SAFETY: as above.
    let real = unsafe { real.as_ref() }.expect("an open file has functions");
    if flags & SQLITE_OPEN_MAIN_DB != 0 {
        let mut state = lock(&disk.state);
        if !state.ops.iter().any(|(known, _)| *known == path) {
            state.ops.push((path.clone(), Op::Made));
        }
    }
    // SAFETY: SQLite's structure, whose functions are exchanged for others of the same kind.
    unsafe { (*file).pMethods = before(real) };
    let opened = Opened { disk, path, real, is_new: AtomicBool::new(is_new) };
    lock(&OPENED).insert(file as usize, Arc::new(opened));
    SQLITE_OK
}

/// Functions that stand before those of the system.
fn before(real: &'static sqlite3_io_methods) -> &'static sqlite3_io_methods {
    lock(&METHODS).entry(std::ptr::from_ref(real) as usize).or_insert_with(|| {
        Box::leak(Box::new(sqlite3_io_methods {
            xClose: Some(close),
            xWrite: Some(write),
            xTruncate: Some(truncate),
            xSync: Some(sync),
            ..*real
        }))
    })
}

fn opened(file: *mut sqlite3_file) -> Arc<Opened> {
    Arc::clone(lock(&OPENED).get(&(file as usize)).expect("is open"))
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let opened = lock(&OPENED).remove(&(file as usize)).expect("is open");
    let real_close = opened.real.xClose.expect("closes");
    // SAFETY: as SQLite called this.
    unsafe { real_close(file) }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, data: *const c_void, length: c_int, offset: i64) -> c_int {
    let opened = opened(file);
    let real_write = opened.real.xWrite.expect("writes");
    let bytes = usize::try_from(length).expect("a length");
    // SAFETY: SQLite hands over so many bytes.
    let content = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) };
    let op = Op::Write { offset: usize::try_from(offset).expect("an offset"), bytes: content.to_vec() };
    let (length, code) = match opened.disk.note(&opened.path, op) {
        Ok(()) => (length, SQLITE_OK),
        Err(code) => (length / 2, code),
    };
    // SAFETY: as SQLite called this, with as many bytes or fewer.
    let written = unsafe { real_write(file, data, length, offset) };
    if code == SQLITE_OK { written } else { code }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: i64) -> c_int {
    let opened = opened(file);
    let real_truncate = opened.real.xTruncate.expect("truncates");
    match opened.disk.note(&opened.path, Op::Truncate(usize::try_from(length).expect("a length"))) {
        // SAFETY: as SQLite called this.
        Ok(()) => unsafe { real_truncate(file, length) },
        Err(code) => code,
    }
}

/// Nothing here needs the real disk to be waited for.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    let opened = opened(file);
    match opened.disk.note(&opened.path, Op::Sync) {
        Ok(()) => {
            if opened.is_new.swap(false, Ordering::Relaxed) {
                lock(&opened.disk.state).ops.push((opened.path.clone(), Op::SyncDirectory));
            }
            SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, directory: c_int) -> c_int {
    if let Some((disk, path)) = disk_of(name) {
        let mut state = lock(&disk.state);
        state.ops.push((path.clone(), Op::Remove));
        if directory != 0 {
            state.ops.push((path, Op::SyncDirectory));
        }
    }
    // SAFETY: the system's table, which stays.
    let real_delete = unsafe { (*real()).xDelete }.expect("removes");
    // SAFETY: as SQLite called this.
    unsafe { real_delete(real(), name, directory) }
}
