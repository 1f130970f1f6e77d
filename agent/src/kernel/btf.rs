//! Field offsets from the running kernel's type information (BTF).
//!
//! A reader of its own, for one thing only: it looks at struct names and members and keeps nothing else. The libraries
//! for BTF either hide members (aya-obj) or come under a licence that does not fit (btf-rs), and all build the whole
//! type graph, several times the file's five megabytes. Format: <https://docs.kernel.org/bpf/btf.html>.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use agent_ebpf::shared::Offsets;

use super::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Reads the offsets of all fields that the probes need.
pub(super) fn offsets(path: &Path) -> Result<Offsets, Error> {
    let data = fs::read(path).map_err(|source| Error::Btf { path: path.to_path_buf(), source })?;
    let invalid = || Error::Btf {
        path: path.to_path_buf(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "not a BTF file of this machine's byte order"),
    };
    let types = Types::parse(&data).ok_or_else(invalid)?;
    let mut values = [0u32; Offsets::SOURCES.len()];
    for (value, (name, member)) in values.iter_mut().zip(Offsets::SOURCES) {
        *value =
            types.offset(name, member).ok_or_else(|| Error::NoField { field: format!("struct {name}, {member}") })?;
    }
    Ok(Offsets::from_values(values))
}

struct Types<'a> {
    records: &'a [u8],
    strings: &'a [u8],
    /// Start of each type in `records`; id 1 is the first.
    starts: Vec<u32>,
    structs: HashMap<&'a [u8], u32>,
}

impl<'a> Types<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let half: [u8; 2] = data.get(..2)?.try_into().ok()?;
        if u16::from_ne_bytes(half) != MAGIC {
            return None;
        }
        let header_bytes = word(data, 4)? as usize;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header_bytes.checked_add(word(data, at)? as usize)?;
            data.get(start..start.checked_add(word(data, at + 4)? as usize)?)
        };
        if header_bytes < HEADER_BYTES {
            return None;
        }
        let (types, strings) = (section(8)?, section(16)?);
        let wanted: Vec<&[u8]> = Offsets::SOURCES.iter().map(|(name, _)| name.as_bytes()).collect();
        let mut this = Self { records: types, strings, starts: vec![0], structs: HashMap::new() };
        let mut at = 0usize;
        while at < types.len() {
            let id = u32::try_from(this.starts.len()).ok()?;
            this.starts.push(u32::try_from(at).ok()?);
            let info = word(types, at + 4)?;
            if info_kind(info) == kind::STRUCT {
                let name = this.string(word(types, at)?)?;
                if wanted.contains(&name) {
                    this.structs.entry(name).or_insert(id);
                }
            }
            at += 12 + trailing_bytes(info)?;
        }
        Some(this)
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// Byte offset of a dotted member path in a struct; members of anonymous structs and unions count as the outer's.
    fn offset(&self, name: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(name.as_bytes())?;
        let mut bits = 0u32;
        for member in path.split('.') {
            let (member_bits, member_type) = self.member(id, member.as_bytes(), 0)?;
            bits = bits.checked_add(member_bits)?;
            id = member_type;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        // Anonymous members nest a few levels in practice; the bound guards against a file that refers to itself.
        const MOST_NESTED: u32 = 8;
        if depth > MOST_NESTED {
            return None;
        }
        let at = *self.starts.get(self.resolve(id)? as usize)? as usize;
        let info = word(self.records, at + 4)?;
        if !matches!(info_kind(info), kind::STRUCT | kind::UNION) {
            return None;
        }
        let bitfields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let entry = at + 12 + index * 12;
            let member_name = self.string(word(self.records, entry)?)?;
            let member_type = word(self.records, entry + 4)?;
            let raw = word(self.records, entry + 8)?;
            let bits = if bitfields { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Some((bits, member_type));
            }
            if member_name.is_empty()
                && let Some((inner, inner_type)) = self.member(member_type, name, depth + 1)
            {
                return Some((bits.checked_add(inner)?, inner_type));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        const MOST_LINKS: u32 = 32;
        for _ in 0..MOST_LINKS {
            let at = *self.starts.get(id as usize)? as usize;
            match info_kind(word(self.records, at + 4)?) {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = word(self.records, at + 8)?;
                }
                _ => return Some(id),
            }
        }
        None
    }
}

fn info_kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes that follow a type's twelve.
fn trailing_bytes(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    Some(match info_kind(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => count * 12,
        kind::ENUM | kind::FUNC_PROTO => count * 8,
        other if other <= kind::ENUM64 => 0,
        _ => return None,
    })
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = data.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
