//! Fields that several records share: fixed parts, owners, names, texts.

use agent_ebpf::wire::{Header, Named, Owner};
use zerocopy::FromBytes;

use crate::input::{DecodeError, NamedProcess};
use crate::time::BootNs;

/// The fixed part of a record and what follows it.
pub(super) fn split<T: FromBytes>(record: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(record).map_err(|_| DecodeError::Short)
}

/// The first `len` of the bytes that follow a fixed part, and the rest.
pub(super) fn trailing(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    bytes.split_at_checked(len).ok_or(DecodeError::Short)
}

/// When the record was written.
pub(super) fn time(header: &Header) -> BootNs {
    BootNs(header.time_ns)
}

/// A moment whose zero means "not known".
pub(super) fn moment(ns: u64) -> Option<BootNs> {
    (ns != 0).then_some(BootNs(ns))
}

/// A measure whose zero means "not measured".
pub(super) fn measure(value: u32) -> Option<u32> {
    (value != 0).then_some(value)
}

/// A process whose zero id means "not known".
pub(super) fn owner(owner: Owner) -> Option<Owner> {
    // The padding is dropped: an owner is a key, and keys must not differ by it.
    (owner.tgid != 0).then_some(Owner { pad: 0, ..owner })
}

/// A process that the record must name.
pub(super) fn required_owner(named: Owner) -> Result<Owner, DecodeError> {
    owner(named).ok_or(DecodeError::Field)
}

/// A process with its name; `None` for a zero id.
pub(super) fn named(named: &Named) -> Option<NamedProcess> {
    owner(named.owner).map(|owner| NamedProcess { owner, comm: comm(&named.comm) })
}

/// A list of processes that ends at the first zero id.
pub(super) fn named_list(list: &[Named]) -> Vec<NamedProcess> {
    list.iter().map_while(named).collect()
}

/// Text up to the first NUL.
fn comm(bytes: &[u8]) -> String {
    text(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// Text of any origin, fit to be shown: lossy UTF-8. Control characters, which would reach terminals and logs, become U+FFFD as broken UTF-8 does.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::is_control, "\u{fffd}")
}
