//! What `sekisho findings` of a running agent says.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::agent::Agent;
use crate::scale;

/// A finding, as programs read it.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// Keeps over restarts.
    pub id: String,
    /// What.
    pub code: String,
    /// How bad.
    pub severity: String,
    /// `open`, `accepted` or `resolved`.
    pub state: String,
    /// About whom.
    pub subject: Subject,
    /// Why.
    pub cause: String,
    /// How often.
    pub count: u64,
    /// What, in a sentence.
    pub text: String,
    /// What to do.
    pub advice: String,
    /// What it rests on.
    pub evidence: Vec<Value>,
}

/// About whom a finding is; what does not apply is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// Namespace.
    pub namespace: String,
    /// Owner of the pod.
    pub workload: String,
    /// `SecurityGroupPolicy`.
    pub policy: String,
    /// Service account.
    pub service_account: String,
    /// The other end of flows.
    pub peer: String,
}

impl Finding {
    /// `CODE WORKLOAD`, or the policy or the service account where the finding is about one.
    pub fn name(&self) -> String {
        let Subject { workload, policy, service_account, .. } = &self.subject;
        let whom = [workload, policy, service_account].into_iter().find(|name| !name.is_empty());
        format!("{} {}", self.code, whom.map_or("-", String::as_str))
    }
}

impl Agent {
    /// All findings that it tells, but for what runs out on the machine that the test happens to run on.
    pub fn findings(&self) -> Result<Vec<Finding>> {
        let output = self.command(&["findings", "-o", "json"])?;
        // 1: there are some.
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "findings ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).context("findings are UTF-8")?;
        let mut findings = Vec::new();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).with_context(|| format!("line {line}"))?;
            // Beside findings it says what it cannot tell, and what all that rests on.
            let is_of_the_machine = value["code"].as_str().is_some_and(|code| code.starts_with("capacity-"));
            if value["kind"] == "finding" && !is_of_the_machine {
                findings.push(serde_json::from_value(value).with_context(|| format!("finding {line}"))?);
            }
        }
        Ok(findings)
    }

    /// Names of the findings in a state.
    pub fn named_findings(&self, state: &str) -> Result<BTreeSet<String>> {
        Ok(self.findings()?.iter().filter(|finding| finding.state == state).map(Finding::name).collect())
    }

    /// Waits until exactly these findings are in a state, and gives them all.
    pub fn wait_for_findings(&self, state: &str, wanted: &[&str]) -> Result<Vec<Finding>> {
        let wanted: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        let deadline = Instant::now() + 2 * scale::deadline();
        loop {
            let found = self.named_findings(state)?;
            if found == wanted {
                return self.findings();
            }
            ensure!(
                Instant::now() < deadline,
                "{state}: missing {:?}, beyond expectation {:?}\n{:#?}",
                wanted.difference(&found).collect::<Vec<_>>(),
                found.difference(&wanted).collect::<Vec<_>>(),
                self.findings()?
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}
