//! `DescribeManagedPrefixLists` and `GetManagedPrefixListEntries`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeManagedPrefixLists.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetManagedPrefixListEntries.html>).

use std::sync::Arc;

use agent_core::sg::{PrefixList, PrefixListId};
use ipnet::IpNet;
use serde::Deserialize;

use super::client::Client;
use super::form::Form;
use super::pages::{self, page};
use super::trouble::{Kind, Trouble};

/// Lists of one question: each takes a call of its own for its entries, and more beyond a hundred of them.
pub(super) const CHUNK: usize = 10;
/// The most of one page, of both calls.
const PAGE: &str = "100";
const LISTS: &str = "DescribeManagedPrefixLists";
const ENTRIES: &str = "GetManagedPrefixListEntries";

page!(Lists, "prefixListSet", List);
page!(Entries, "entrySet", Entry);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    prefix_list_id: PrefixListId,
    prefix_list_name: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct Entry {
    cidr: String,
}

/// Those of these lists that exist, and why entries of some may not be read.
pub(super) async fn ask(
    client: &mut Client,
    ids: &[PrefixListId],
) -> Result<(Vec<PrefixList>, Option<Trouble>), Trouble> {
    let form = Form::new(LISTS).with("MaxResults", PAGE).filter("prefix-list-id", ids.iter().map(PrefixListId::as_str));
    let (mut lists, mut denied) = (Vec::new(), None);
    for List { prefix_list_id: id, prefix_list_name: name } in pages::all::<Lists>(client, form).await? {
        let form = Form::new(ENTRIES).with("MaxResults", PAGE).with("PrefixListId", id.as_str());
        let entries = match pages::all::<Entries>(client, form).await {
            Ok(entries) => Some(nets(&id, entries)?),
            Err(trouble) if trouble.kind == Kind::Denied => {
                denied = Some(trouble);
                None
            }
            // Gone between the two calls.
            Err(trouble) if trouble.kind == Kind::Absent => continue,
            Err(trouble) => return Err(trouble),
        };
        lists.push(PrefixList { id, name, entries });
    }
    Ok((lists, denied))
}

/// A list with an entry left out would lack what it allows.
fn nets(id: &PrefixListId, entries: Vec<Entry>) -> Result<Vec<IpNet>, Trouble> {
    let net = |entry: Entry| entry.cidr.parse::<IpNet>().ok().map(|net| net.trunc());
    let nets: Option<Vec<IpNet>> = entries.into_iter().map(net).collect();
    nets.ok_or_else(|| Trouble::new(Kind::Refused, format!("an entry of {id} is no range of addresses")))
}
