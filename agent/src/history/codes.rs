//! How values stand in columns, and how they are read back. Names are those of the JSON form, so that a file explains
//! itself to whoever opens it with another tool.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use rusqlite::types::{FromSqlError, ValueRef};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Serialize};

/// Names that [`fixed`] keeps for good: closed sets of some tens. What comes beyond is damage, or a file of a version to
/// come, and reads `other`.
const FIXED_MAX: usize = 1_024;

/// A count as the database holds it; the half of the range that it cannot hold is out of reach.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count read back.
pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The 16 bytes of an address, IPv4 mapped into IPv6; `None` for what is no address.
pub(super) fn ip(text: Option<&str>) -> Option<[u8; 16]> {
    text?.parse().ok().map(mapped)
}

/// See [`ip`].
pub(super) fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// See [`mapped`].
pub(super) fn unmapped(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// An address read back.
pub(super) fn ip_text(bytes: Option<[u8; 16]>) -> Option<String> {
    bytes.map(|bytes| unmapped(bytes).to_string())
}

/// The name that a field-less variant has in JSON.
pub(super) fn name(value: &impl Serialize) -> String {
    serde_json::to_string(value).map(|name| name.trim_matches('"').to_owned()).unwrap_or_default()
}

/// A variant by its name.
pub(super) fn by_name<T: for<'de> Deserialize<'de>>(text: &str) -> rusqlite::Result<T> {
    let name: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(name).map_err(|error| unreadable(error.to_string()))
}

/// A value that stands as JSON.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
}

/// One of a closed set of names, for good.
pub(super) fn fixed(text: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(text) {
        Some(name) => name,
        None if names.len() >= FIXED_MAX => "other",
        None => {
            let name: &'static str = Box::leak(text.into());
            names.insert(name);
            name
        }
    }
}

/// A column holds what this program does not know: the file is damaged, or of a version to come.
fn unreadable(why: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, ValueRef::Null.data_type(), Box::new(FromSqlError::Other(why.into())))
}

#[cfg(test)]
mod tests {
    use agent_core::input::{Category, Method};
    use agent_core::output::PeerClass;

    use super::*;

    #[test]
    fn names_are_those_of_json_and_come_back() {
        assert_eq!(name(&Method::Get), "GET");
        assert_eq!(name(&PeerClass::NodeLocal), "node_local");
        assert_eq!(by_name::<Category>("user_data").expect("is known"), Category::UserData);
        assert!(by_name::<Category>("no_such").is_err());
    }

    #[test]
    fn addresses_come_back() {
        for text in ["10.0.0.1", "fd00:ec2::254", "0.0.0.0", "::1"] {
            assert_eq!(ip_text(ip(Some(text))).as_deref(), Some(text));
        }
        assert_eq!(ip(Some("no address")), None);
        assert_eq!(ip(None), None);
    }

    #[test]
    fn fixed_names_are_one() {
        let (first, second) = (fixed("outbound"), fixed(&String::from("outbound")));
        assert!(std::ptr::eq(first, second));
    }
}
