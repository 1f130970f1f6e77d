//! Which security groups the policies of a namespace ask for, as the VPC resource controller answers it.
//!
//! Source: `pkg/utils/helper.go` of aws/amazon-vpc-resource-controller-k8s. The controller lists policies from a cache
//! without order, so groups are compared as sets; here they stand in the order of the policies' names.

use std::sync::Arc;

use super::{Account, selector, why};
use crate::facts::{PodFacts, PolicyFacts};

/// What the policies ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// Each group once, by the names of the policies and within one as it lists them. A set: do not compare the order.
    pub groups: Vec<Arc<str>>,
    /// Policies that select the pod, by name.
    pub policies: Vec<Arc<PolicyFacts>>,
    /// Something else may be asked for beside: why that is not known.
    pub cannot_tell: Option<&'static str>,
}

/// Whether a policy selects a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Selects {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The policy can select nothing.
    Invalid(Fault),
    /// Not enough is known.
    CannotTell(&'static str),
}

/// Why a policy can select nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Neither selector is there.
    NoSelector,
    /// No groups are named.
    NoGroups,
    /// A selector is none: which field, and why.
    Selector(&'static str, selector::SelectorError),
}

/// What the policies ask for a pod, whether or not it can be had (host network, Windows).
pub fn demanded(pod: &PodFacts, account: Account<'_>, policies: Option<&[Arc<PolicyFacts>]>) -> Demand {
    let Some(policies) = policies else { return Demand { cannot_tell: Some(why::POLICIES), ..Demand::default() } };
    let mut demand = Demand::default();
    for policy in policies.iter().filter(|policy| policy.namespace == pod.namespace) {
        match selects(policy, pod, account) {
            Selects::Yes => demand.policies.push(policy.clone()),
            Selects::CannotTell(why) => demand.cannot_tell = Some(why),
            Selects::No | Selects::Invalid(_) => {}
        }
    }
    demand.policies.sort_by(|one, other| one.name.cmp(&other.name));
    for group in demand.policies.iter().flat_map(|policy| &policy.groups) {
        if !demand.groups.contains(group) {
            demand.groups.push(group.clone());
        }
    }
    demand
}

/// Whether a policy selects a pod of its namespace. A selector that is absent is passed over, an empty one matches
/// everything, both must match; the account is judged by its labels.
pub fn selects(policy: &PolicyFacts, pod: &PodFacts, account: Account<'_>) -> Selects {
    if let Some(fault) = fault(policy) {
        return Selects::Invalid(fault);
    }
    let by_pod = |selector| selector::matches(selector, &pod.labels) == Ok(true);
    if policy.namespace != pod.namespace || !policy.pod_selector.as_ref().is_none_or(by_pod) {
        return Selects::No;
    }
    let Some(selector) = &policy.service_account_selector else { return Selects::Yes };
    let labels = match account {
        Account::Known(account) => &account.labels,
        Account::Gone => return Selects::CannotTell(why::ACCOUNT_GONE),
        Account::Unknown => return Selects::CannotTell(why::ACCOUNT),
    };
    if selector::matches(selector, labels) == Ok(true) { Selects::Yes } else { Selects::No }
}

/// Why a policy can select nothing; `None`: it can.
pub fn fault(policy: &PolicyFacts) -> Option<Fault> {
    if policy.pod_selector.is_none() && policy.service_account_selector.is_none() {
        return Some(Fault::NoSelector);
    }
    if policy.groups.is_empty() {
        return Some(Fault::NoGroups);
    }
    let selectors =
        [("spec.podSelector", &policy.pod_selector), ("spec.serviceAccountSelector", &policy.service_account_selector)];
    selectors.into_iter().find_map(|(field, selector)| {
        let error = selector::check(selector.as_ref()?).err()?;
        Some(Fault::Selector(field, error))
    })
}

// === impl Demand ===

impl Demand {
    /// Whether a policy selects the pod; `None`: cannot tell.
    pub fn selected(&self) -> Option<bool> {
        match (self.policies.is_empty(), self.cannot_tell) {
            (false, _) => Some(true),
            (true, None) => Some(false),
            (true, Some(_)) => None,
        }
    }

    /// Whether a list of groups is what is asked for, as sets.
    pub fn is(&self, groups: &[Arc<str>]) -> bool {
        self.groups.iter().all(|group| groups.contains(group)) && groups.iter().all(|group| self.groups.contains(group))
    }
}

#[cfg(test)]
mod tests;
