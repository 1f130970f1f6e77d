//! From ring bytes to facts: the only place where the bytes of the probes become meaning.
//!
//! Ring bytes are an allegation. A [`Decoder`] checks version, kind, ring, lengths, flags and every enum before it
//! believes a record, and answers with [`Input::Undecodable`] otherwise. Records of metadata traffic hold payload, and
//! payload holds secrets: it goes to the [`crate::metadata`] tracker and comes out as facts alone.
//!
//! The decoder has no clock: records carry their time, and the owner calls [`Decoder::tick`] about once a second.

use agent_ebpf::wire::{self, Kind, Ring};
use zerocopy::FromBytes;

use crate::continuity::{Place, Resume};
use crate::input::{DecodeError, Input};
use crate::metadata::Tracker;
use crate::time::BootNs;

mod fields;
mod records;

pub use self::fields::text;

#[cfg(test)]
mod tests;

/// What the decoder keeps beyond the facts that it always keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Keep the arguments of programs, cut and redacted. Off, they are dropped here.
    pub keep_args: bool,
}

/// Turns records into [`Input`]s. Holds the state of the metadata connections, which is bounded.
pub struct Decoder {
    options: DecodeOptions,
    metadata: Tracker,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder that knows no connection yet.
    pub fn new(options: DecodeOptions) -> Self {
        Self { options, metadata: Tracker::default() }
    }

    /// Takes one record as `ring` handed it over and appends what it says. `bytes` may be longer than the record:
    /// rings reserve fixed sizes. A metadata record may say nothing yet, or end several exchanges at once.
    pub fn feed(&mut self, ring: Ring, bytes: &[u8], inputs: &mut Vec<Input>) {
        let (kind, record) = match envelope(ring, bytes) {
            Ok(envelope) => envelope,
            Err((kind, why)) => return inputs.push(Input::Undecodable { kind, why }),
        };
        if let Err(why) = self.body(kind, record, inputs) {
            inputs.push(Input::Undecodable { kind: Some(kind), why });
        }
    }

    /// As [`Decoder::feed`], of a ring that outlives the agent: `place` is where the record stands in it.
    pub fn feed_at(&mut self, ring: Ring, place: Place, bytes: &[u8], inputs: &mut Vec<Input>) {
        if ring == Ring::Metadata {
            self.metadata.at(place);
        }
        self.feed(ring, bytes, inputs);
    }

    /// Goes on where an earlier run ended.
    pub fn resume(&mut self, from: Resume) {
        self.metadata.resume(from);
    }

    /// What comes now is of other rings. Connections go on: they are known by their sockets.
    pub fn change_rings(&mut self) {
        self.metadata.forget_places();
    }

    /// The first record of the metadata ring of which not all is told yet; `None` when all is.
    pub fn untold(&self) -> Option<Place> {
        self.metadata.untold()
    }

    /// Lets time pass: ends the waits of metadata exchanges whose other half does not come.
    pub fn tick(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        self.metadata.tick(now, inputs);
    }

    /// Puts out all that is held, at the agent's stop. The decoder is then as new.
    pub fn finish(&mut self, now: BootNs, inputs: &mut Vec<Input>) {
        self.metadata.finish(now, inputs);
    }

    /// Metadata connections given up since the start because there were too many; what they held was put out.
    pub fn evicted_connections(&self) -> u64 {
        self.metadata.evicted()
    }

    fn body(&mut self, kind: Kind, record: &[u8], inputs: &mut Vec<Input>) -> Result<(), DecodeError> {
        match kind {
            Kind::TcpEnd => inputs.push(records::tcp(record, false)?),
            Kind::TcpOpen => inputs.push(records::tcp(record, true)?),
            Kind::Attempt => inputs.push(records::attempt(record)?),
            Kind::UdpEnd => inputs.push(records::udp(record, false)?),
            Kind::UdpOpen => inputs.push(records::udp(record, true)?),
            Kind::Dns => inputs.push(records::dns(record)?),
            Kind::Exec => inputs.push(records::exec(record, self.options.keep_args)?),
            Kind::Fork => inputs.push(records::fork(record)?),
            Kind::Exit => inputs.push(records::exit(record)?),
            Kind::CgroupMkdir => inputs.extend([ONE_CGROUP_RECORD, records::cgroup_mkdir(record)?]),
            Kind::CgroupRmdir => inputs.extend([ONE_CGROUP_RECORD, records::cgroup_rmdir(record)?]),
            Kind::MetadataSegment => {
                let segment = records::metadata_segment(record)?;
                inputs.push(ONE_METADATA_RECORD);
                self.metadata.segment(&segment, inputs);
            }
            Kind::MetadataEnd => {
                let end = records::metadata_end(record)?;
                inputs.push(ONE_METADATA_RECORD);
                self.metadata.end(end, inputs);
            }
        }
        Ok(())
    }
}

/// For the books: the inputs of these kinds do not tell how many records made them.
const ONE_CGROUP_RECORD: Input = Input::Decoded { metadata: 0, cgroups: 1 };
const ONE_METADATA_RECORD: Input = Input::Decoded { metadata: 1, cgroups: 0 };

/// Why a record was refused, and its kind when that much could be read.
type Refusal = (Option<Kind>, DecodeError);

/// The kind of a record, and its bytes without what the ring reserved beyond it.
fn envelope(ring: Ring, bytes: &[u8]) -> Result<(Kind, &[u8]), Refusal> {
    let (header, _) = wire::Header::read_from_prefix(bytes).map_err(|_| (None, DecodeError::Short))?;
    if header.version != wire::VERSION {
        return Err((None, DecodeError::Version));
    }
    let kind = Kind::from_wire(header.kind).ok_or((None, DecodeError::Kind))?;
    if kind.ring() != ring {
        return Err((Some(kind), DecodeError::Ring));
    }
    let stated = usize::try_from(header.len).map_err(|_| (Some(kind), DecodeError::Short))?;
    let record = bytes.get(..stated).ok_or((Some(kind), DecodeError::Short))?;
    if header.flags & !records::flags_of(kind) != 0 {
        return Err((Some(kind), DecodeError::Field));
    }
    Ok((kind, record))
}
