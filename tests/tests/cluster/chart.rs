//! What the chart renders is taken by a real server, object by object, without being made.

use anyhow::{Result, ensure};
use serde_json::Value;
use system_tests::kube::client::Answer;
use system_tests::kube::{Server, manifests};

/// Kinds of the Prometheus operator, which this server does not have.
const NOT_SERVED: [&str; 1] = ["PodMonitor"];

/// Fields of releases that EKS supports and this server's older one does not know.
const YOUNGER_FIELDS: [&str; 2] = ["recursiveReadOnly", "appArmorProfile"];

/// Takes younger fields out, wherever they are; says how many there were.
fn grow_older(value: &mut Value) -> usize {
    match value {
        Value::Object(map) => {
            let before = map.len();
            map.retain(|name, _| !YOUNGER_FIELDS.contains(&name.as_str()));
            before - map.len() + map.values_mut().map(grow_older).sum::<usize>()
        }
        Value::Array(items) => items.iter_mut().map(grow_older).sum(),
        _ => 0,
    }
}

/// 201: it would have been made anew.
fn is_taken(answer: &Answer) -> bool {
    matches!(answer.status, 200 | 201)
}

#[test]
fn a_server_takes_what_the_chart_renders() -> Result<()> {
    let server = Server::take()?;
    server.make_namespace("sekisho")?;
    let (mut taken, mut refused) = (0, 0);
    for (name, objects) in manifests::charts()? {
        for mut object in objects {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            if NOT_SERVED.contains(&kind.as_str()) {
                continue;
            }
            let original = object.clone();
            if grow_older(&mut object) > 0 {
                // So the server does look at fields, at every depth.
                let answer = server.admin.dry_run(&original)?;
                ensure!(!is_taken(&answer), "{name}: {kind} is taken with fields that the server does not know");
                refused += 1;
            }
            let answer = server.admin.dry_run(&object)?;
            ensure!(is_taken(&answer), "{name}: {kind} is refused, {}: {}", answer.status, answer.text);
            taken += 1;
        }
    }
    ensure!(taken > 40 && refused > 0, "only {taken} objects were taken, and {refused} refused");
    let answer = server.admin.try_get("/apis/apps/v1/namespaces/sekisho/daemonsets/sekisho")?;
    ensure!(answer.status == 404, "a dry run made something: {}", answer.status);
    Ok(())
}
