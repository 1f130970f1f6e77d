//! The history on the node: what the Engine said, in files that survive crashes, within a quota. The only module that names
//! the database.
//!
//! # Decisions
//!
//! **SQLite**, in WAL mode: a commit survives SIGKILL at once, and a power cut once it is synced; files can be read while
//! they are written, copied, and opened by anybody's tools.
//!
//! **Many files**, one a day and a new one whenever a sixteenth of the quota is full ([`quota`]). To forget is to remove
//! the oldest file: no deletes, no vacuum, no long write. Each file is whole by itself.
//!
//! **Typed columns and dictionaries, not JSON.** A node repeats itself: the same container talks to the same peer every
//! fold. So who, program, process, peer and the fixed part of a flow stand once, and a flow is a row of counts: some 50
//! bytes with its index, against 600 as JSON. A day of five million folded rows fits in the default quota. What is rare
//! and read as a whole (findings, capacity) stands as JSON beside the columns that are searched.
//!
//! **One index on flows**, by their fixed part: a pod, an address or a network is looked up in the small tables, and leads
//! to the rows. Ids of flows follow the folds, so that the order of the table is the order of time.
//!
//! **Started programs** are kept for pods and containers, not for the host itself: kubelet, its mounts and its probes
//! start thousands an hour. A program that made a connection or a request stands in its row, whoever it is.
//!
//! **Objects of the cluster** stand as versions: a pod, a policy or an account is written when it is not what it was, readiness
//! left aside, and what stands is written again into each new file.
//!
//! **Commits are synced** (`synchronous=full`): requests, findings and gaps a quarter of a second after they were said,
//! the rest after two. Rows that the disk does not take are lost, counted, and written off in the books as `lost_store`;
//! nobody waits for the disk but the thread that writes.
//!
//! **After a crash of the machine a new file**: rows can be read before they are synced, and a power cut may take them back. Their ids
//! may have been shipped, and must not come to name other rows.

mod codes;
mod error;
mod files;
mod insert;
mod objects;
mod outbox;
mod quota;
mod read;
mod recent;
mod schema;
mod standing;
mod store;
#[cfg(test)]
mod tests;
mod thin;
mod writer;

pub(crate) use self::outbox::{Batch, Most, Outbox, OutboxError, Parcel};
pub(crate) use self::read::{Coverage, Network, Query, Reader};
pub(crate) use self::standing::Told;
pub(crate) use self::store::{Options, kernel};
pub(crate) use self::writer::{Counts, History};
