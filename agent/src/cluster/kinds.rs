//! The kinds that are followed, read as narrow shapes: what is not looked at is dropped object by object while a list is
//! read, and an object that cannot be read is one malformed object and not the end of the list.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use agent_core::facts::Source;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::convert::{Conversion, Converted, Malformed, service};

/// A kind of object.
pub(super) trait Kind: Send + Sync + 'static {
    /// Where facts of this kind come from.
    const SOURCE: Source;
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    const PLURAL: &'static str;
    /// Only the metadata is asked for.
    const METADATA_ONLY: bool = false;
    type Scope;
}

/// An object of a kind, or why it is none. Cloned by kube's bounds alone, so that is cheap.
pub(super) struct Slim<K> {
    meta: ObjectMeta,
    value: Arc<Value>,
    kind: PhantomData<fn() -> K>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $source:ident, $group:literal $version:literal $kind:literal $plural:literal, $scope:ty, $metadata:literal;)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;
        impl Kind for $name {
            const SOURCE: Source = Source::$source;
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            const METADATA_ONLY: bool = $metadata;
            type Scope = $scope;
        }
    )+};
}

kinds! {
    /// Pods.
    Pods: Pods, "" "v1" "Pod" "pods", NamespaceResourceScope, false;
    /// `SecurityGroupPolicy` objects.
    Policies: Policies, "vpcresources.k8s.aws" "v1beta1" "SecurityGroupPolicy" "securitygrouppolicies", NamespaceResourceScope, false;
    /// `NetworkPolicy` objects.
    NetworkPolicies: NetworkPolicies, "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies", NamespaceResourceScope, false;
    /// `PolicyEndpoint` objects, which AWS's controller makes of policies.
    PolicyEndpoints: NetworkPolicies, "networking.k8s.aws" "v1alpha1" "PolicyEndpoint" "policyendpoints", NamespaceResourceScope, false;
    /// Service accounts.
    Accounts: ServiceAccounts, "" "v1" "ServiceAccount" "serviceaccounts", NamespaceResourceScope, true;
    /// Nodes.
    Nodes: Node, "" "v1" "Node" "nodes", ClusterResourceScope, false;
    /// `CNINode` objects.
    CniNodes: CniNode, "vpcresources.k8s.aws" "v1alpha1" "CNINode" "cninodes", ClusterResourceScope, false;
    /// `CSINode` objects.
    CsiNodes: CsiNode, "storage.k8s.io" "v1" "CSINode" "csinodes", ClusterResourceScope, false;
    /// Services.
    Services: Services, "" "v1" "Service" "services", NamespaceResourceScope, false;
    /// Endpoint slices, of the API server's own service.
    EndpointSlices: ApiEndpoints, "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices", NamespaceResourceScope, false;
    /// Events.
    Events: Events, "" "v1" "Event" "events", NamespaceResourceScope, false;
}

// === impl Slim ===

impl<K: Kind> Slim<K> {
    /// What the object says.
    pub(super) fn facts(self, conversion: &Conversion) -> Converted {
        let Self { value, .. } = self;
        conversion.object(Arc::unwrap_or_clone(value))
    }

    /// The object, for kinds that have a reader of their own.
    pub(super) fn value(self) -> Value {
        Arc::unwrap_or_clone(self.value)
    }

    /// `metadata.uid`, also of an object that is otherwise malformed.
    pub(super) fn uid(&self) -> Option<&str> {
        self.meta.uid.as_deref()
    }

    pub(super) fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.meta.resource_version.as_deref().filter(|version| !version.is_empty())
    }

    /// That an object is something else than its kind.
    pub(super) fn not_its_kind(namespace: &str, name: &str) -> Malformed {
        Malformed {
            kind: K::KIND.to_owned(),
            object: format!("{namespace}/{name}"),
            why: "an object of another kind".to_owned(),
        }
    }
}

impl<'de, K: Kind> Deserialize<'de> for Slim<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let text = |name: &str| value.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        if let Value::Object(members) = &mut value {
            // Items of lists do not tell, and metadata alone tells that it is such.
            let version =
                if K::GROUP.is_empty() { K::VERSION.to_owned() } else { format!("{}/{}", K::GROUP, K::VERSION) };
            members.insert("apiVersion".to_owned(), version.into());
            members.insert("kind".to_owned(), K::KIND.into());
            if K::SOURCE == Source::Services {
                service::trim(members);
            } else {
                trim(members);
            }
        }
        Ok(Self { meta, value: Arc::new(value), kind: PhantomData })
    }
}

/// Drops what is large and never read, so that a list of pods is small while its last one is still read.
fn trim(members: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Object(spec)) = members.get_mut("spec") {
        for name in [
            "affinity",
            "tolerations",
            "topologySpreadConstraints",
            "securityContext",
            "imagePullSecrets",
            "hostAliases",
            // Of network policies, and of what is made of them.
            "ingress",
            "egress",
            "podSelectorEndpoints",
        ] {
            spec.remove(name);
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = members.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.remove("command");
            container.remove("args");
            if let Some(Value::Array(variables)) = container.get_mut("env") {
                variables.retain(tells);
                variables.shrink_to_fit();
            }
        }
    }
    if let Some(Value::Object(metadata)) = members.get_mut("metadata")
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Whether a variable may say something about credentials: by its name, or by a value that looks like a key's id. What has
/// no such shape is kept too, so that it is found malformed.
fn tells(variable: &Value) -> bool {
    let text = |name: &str| variable.get(name).map(Value::as_str);
    match (text("name"), text("value")) {
        (Some(Some(name)), None) => name.starts_with("AWS_"),
        (Some(Some(name)), Some(Some(value))) => name.starts_with("AWS_") || value.starts_with("AKIA"),
        _ => true,
    }
}

impl<K: Kind> Resource for Slim<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn metadata_api() -> bool {
        K::METADATA_ONLY
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<K> Clone for Slim<K> {
    fn clone(&self) -> Self {
        Self { meta: self.meta.clone(), value: Arc::clone(&self.value), kind: PhantomData }
    }
}

/// Says nothing of what stands in the object: that may be secret.
impl<K: Kind> std::fmt::Debug for Slim<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", K::KIND, self.namespace(), self.name())
    }
}
