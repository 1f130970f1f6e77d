//! What foreign worlds tell, as small facts: made at the edge (`agent/cluster`, `agent/node`, `agent/aws`), judged in the core.
//!
//! A fact holds no secret and nothing that no decision needs. `None` means that the object does not say; what an object
//! says in a shape that nobody can read is kept as such, so that a verdict can be "cannot tell" and name it.

mod cluster;
mod ec2;
mod host;
mod identity;
mod pod;
mod policy;
mod service;

pub use self::cluster::{
    ClusterFact, CniNodeFacts, CsiNodeFacts, GroupEvent, GroupEventKind, NodeFacts, RemotePod, RemotePodName,
    ServiceAccountFacts, Source,
};
pub use self::ec2::{
    ClusterTag, Ec2Call, Ec2Fact, Ec2Wishes, GroupFacts, InstanceTypeFacts, InterfaceFacts, PeerInterface, SubnetFacts,
};
pub use self::host::{HostFact, LinkFacts, LinkKind, PodHostFacts};
pub use self::identity::{IdentityEnv, Value};
pub use self::pod::{
    Branch, BranchInterface, ContainerFacts, ContainerKind, Dns, Phase, PodFacts, ProbeFacts, ProbeKind, Requests,
    TokenMount, WorkloadRef,
};
pub use self::policy::{Expression, NetworkPolicyFacts, PolicyFacts, Selector};
pub use self::service::{ServiceFacts, ServicePort};
