//! The row of a request to a metadata service.

use crate::input::{ImdsVersion, MetadataFact};
use crate::output::{Local, MetadataRow, Who, service_name};
use crate::time::WallNs;

/// Everything that a row tells of a request and its answer.
pub(super) fn metadata_row(fact: MetadataFact, who: Who, time: WallNs) -> MetadataRow {
    let (request, response) = (fact.request, fact.response);
    let request = request.as_ref();
    MetadataRow {
        time,
        who,
        service: service_name(fact.service),
        version: request.map_or(ImdsVersion::None, |request| request.version),
        method: request.map(|request| request.method),
        category: request.map(|request| request.category),
        role: request.and_then(|request| request.role.clone()),
        forwarded_for: request.and_then(|request| request.forwarded_for.clone()),
        status: response.as_ref().map(|response| response.status),
        response_ttl: response.as_ref().map(|response| response.ttl),
        response_bytes: response.as_ref().map(|response| response.bytes),
        access_key_id: response.and_then(|response| response.access_key_id),
        outcome: fact.outcome,
        latency_us: fact.latency_ns.map(|ns| ns / 1_000),
        local: Local { ip: Some(fact.ends.local.to_string()) },
        origin: fact.origin,
    }
}
