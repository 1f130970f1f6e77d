//! What `sekisho doctor` asks EC2 when no agent runs that could tell: whether each call would be allowed. EC2 answers
//! trial calls (`DryRun`) without doing anything.

use std::path::Path;
use std::time::Duration;

use agent_core::facts::Ec2Call;
use tokio::time::timeout;

use super::Options;
use super::calls::actions;
use super::client::Client;
use super::form::Form;
use super::trouble::{Kind, Trouble};

/// A person waits.
const WAIT: Duration = Duration::from_secs(10);
/// What tells that somebody set AWS up for this process.
const VARIABLES: [&str; 7] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
];
/// `sys_vendor` of every Nitro instance; Xen instances say it in `bios_version`.
const VENDOR: &str = "amazon";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Examined {
    /// Nothing tells that there is an EC2 to ask.
    NotConfigured,
    /// There are no credentials, or no EC2 at the end of the line: why.
    Unreachable(String),
    /// Where EC2 is, and for each call why it would be refused, `None` where it is allowed.
    Asked {
        /// Region and endpoint.
        place: String,
        /// The calls.
        calls: Vec<(Ec2Call, Option<String>)>,
    },
}

/// Looks at EC2. `sys`: the host's `/sys`.
pub(crate) async fn examine(options: &Options, sys: &Path) -> Examined {
    if !looks_configured(options, sys) {
        return Examined::NotConfigured;
    }
    let late = || Examined::Unreachable(format!("no answer within {} s", WAIT.as_secs()));
    timeout(WAIT, ask(options)).await.unwrap_or_else(|_| late())
}

async fn ask(options: &Options) -> Examined {
    let mut client = Client::new(options);
    let place = match client.place().await {
        Ok((region, endpoint)) => format!("{region}, {endpoint}"),
        Err(trouble) => return Examined::Unreachable(trouble.text),
    };
    let mut calls = Vec::new();
    for call in Ec2Call::ALL {
        let mut refused = None;
        for action in actions(call) {
            match trial(&mut client, action).await {
                Ok(()) => {}
                Err(Trouble { kind: Kind::Credentials | Kind::NotConfigured | Kind::Passing, text }) => {
                    return Examined::Unreachable(format!("{place}: {text}"));
                }
                Err(trouble) => refused = refused.or(Some(trouble.text)),
            }
        }
        calls.push((call, refused));
    }
    Examined::Asked { place, calls }
}

async fn trial(client: &mut Client, action: &'static str) -> Result<(), Trouble> {
    let mut form = Form::new(action).with("DryRun", "true");
    if action == "GetManagedPrefixListEntries" {
        // The one action that must be told what it is about; permission is looked at before existence.
        form = form.with("PrefixListId", "pl-00000000000000000");
    }
    match client.call(&form).await {
        Ok(_) => Ok(()),
        Err(trouble) if matches!(trouble.kind, Kind::Allowed | Kind::Absent) => Ok(()),
        Err(trouble) => Err(trouble),
    }
}

/// So that a machine outside AWS is not kept waiting for a metadata service that it has not.
fn looks_configured(options: &Options, sys: &Path) -> bool {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dmi = sys.join("devices/virtual/dmi/id");
    let says = |name: &str| {
        std::fs::read_to_string(dmi.join(name)).is_ok_and(|text| text.to_ascii_lowercase().contains(VENDOR))
    };
    options.region.is_some()
        || options.endpoint.is_some()
        || VARIABLES.iter().any(is_set)
        || says("sys_vendor")
        || says("bios_version")
}
