//! What a cgroup path tells: which pod, container or unit lives there.
//!
//! Paths are written by the kubelet, a container runtime and systemd, and below a container by whoever runs in it. So
//! the first pod on the path counts, else the first container, else the innermost unit: what a container names its own
//! sub-cgroups never changes who it is.

mod index;

pub use self::index::{CgroupIndex, MAX_CGROUPS, REMEMBER_GONE_NS};

/// Inode of the cgroup2 root. A process that lives only in version 1 hierarchies reports it too.
pub const ROOT_ID: u64 = 1;

/// Hex digits of a container id, as containerd, CRI-O, Docker and Podman make them.
const CONTAINER_ID_DIGITS: usize = 64;
/// Hex digits of a static pod's uid: the hash of its manifest.
const STATIC_UID_DIGITS: usize = 32;
/// Positions of the dashes in a UUID of 36 characters.
const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];
const UUID_LEN: usize = 36;
/// Longest unit name kept; a file name has no more bytes.
const UNIT_BYTES: usize = 255;
/// What /proc appends to the path of a cgroup that is gone.
const DELETED: &str = " (deleted)";

/// What a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CgroupIdentity {
    /// The root: kernel work, sockets without an owner, processes that live in version 1 hierarchies alone.
    Root,
    /// A pod, or a container of one.
    Pod(PodCgroup),
    /// It lies where a pod's cgroup lies, but its name holds no uid that could be read.
    PodWithoutUid,
    /// A container outside Kubernetes.
    Container(ContainerRef),
    /// A unit of systemd: the innermost `.service`, `.scope` or `.slice`.
    Unit(String),
    /// A path that none of the above made.
    Other,
}

/// The cgroup of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodCgroup {
    /// The pod's uid with dashes; for a static pod the hash of its manifest (32 hex digits, the annotation
    /// `kubernetes.io/config.hash`), which is not the uid of its mirror in the API.
    pub uid: String,
    /// Quality of service, as the path tells it.
    pub qos: Qos,
    /// The container; `None` for the pod's own cgroup and the runtime's helpers in it.
    pub container: Option<ContainerRef>,
}

impl PodCgroup {
    /// Whether the kubelet runs this pod from a file, so that the API server knows it by another uid.
    pub fn is_static(&self) -> bool {
        self.uid.len() == STATIC_UID_DIGITS
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// 64 hex digits.
    pub id: String,
    /// Who made it.
    pub runtime: Runtime,
}

/// Container runtime, as the cgroup's name tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd's CRI plugin.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker.
    Docker,
    /// The name does not say: the cgroupfs driver uses the bare id.
    Unknown,
}

/// Quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    /// Guaranteed: the pod's cgroup stands directly below kubepods.
    Guaranteed,
    /// Burstable.
    Burstable,
    /// Best effort.
    BestEffort,
}

/// Reads a cgroup path: cgroup2 or a version 1 hierarchy, systemd or cgroupfs driver. Never fails: see
/// [`CgroupIdentity::Other`].
pub fn parse(path: &str) -> CgroupIdentity {
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    let mut walk = Walk::default();
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
    if segments.peek().is_none() {
        return CgroupIdentity::Root;
    }
    while let Some(segment) = segments.next() {
        match walk.pod(segment) {
            Found::Pod { uid, qos, mut container } => {
                if container.is_none() {
                    container = segments.next().and_then(container_ref);
                }
                return CgroupIdentity::Pod(PodCgroup { uid, qos, container });
            }
            Found::Unreadable => return CgroupIdentity::PodWithoutUid,
            Found::Nothing => walk.note(segment),
        }
    }
    walk.without_pod()
}

// === impl Walk ===

/// What was met on the way down a path.
#[derive(Default)]
struct Walk<'a> {
    /// Directly below the cgroupfs driver's `kubepods` (or its directory of a quality of service).
    kubepods: Option<Qos>,
    container: Option<ContainerRef>,
    unit: Option<&'a str>,
    parent: &'a str,
}

enum Found {
    Pod { uid: String, qos: Qos, container: Option<ContainerRef> },
    Unreadable,
    Nothing,
}

impl<'a> Walk<'a> {
    fn pod(&self, segment: &str) -> Found {
        // `slice:prefix:id`, when the kubelet speaks systemd and the runtime does not.
        let (slice, rest) = segment.split_once(':').map_or((segment, None), |(slice, rest)| (slice, Some(rest)));
        if let Some((uid, qos)) = systemd_pod(slice) {
            let container = rest.and_then(|rest| container_ref(&rest.replace(':', "-")));
            return uid.map_or(Found::Unreadable, |uid| Found::Pod { uid, qos, container });
        }
        match (self.kubepods, segment.strip_prefix("pod")) {
            (Some(qos), Some(uid)) => {
                pod_uid(uid).map_or(Found::Unreadable, |uid| Found::Pod { uid, qos, container: None })
            }
            _ => Found::Nothing,
        }
    }

    fn note(&mut self, segment: &'a str) {
        self.kubepods = match (self.kubepods, segment) {
            (_, "kubepods") => Some(Qos::Guaranteed),
            (Some(_), "burstable") => Some(Qos::Burstable),
            (Some(_), "besteffort") => Some(Qos::BestEffort),
            _ => None,
        };
        if self.container.is_none() {
            self.container = match segment.split_once(':') {
                Some((_, rest)) => container_ref(&rest.replace(':', "-")),
                None => container_ref(segment),
            };
            // `/docker/<id>`: the parent tells what the bare id does not.
            if let Some(container) = &mut self.container
                && container.runtime == Runtime::Unknown
                && self.parent == "docker"
            {
                container.runtime = Runtime::Docker;
            }
        }
        if is_unit(segment) {
            self.unit = Some(segment);
        }
        self.parent = segment;
    }

    fn without_pod(self) -> CgroupIdentity {
        match (self.container, self.unit) {
            (Some(container), _) => CgroupIdentity::Container(container),
            (None, Some(unit)) => CgroupIdentity::Unit(unit_name(unit)),
            (None, None) => CgroupIdentity::Other,
        }
    }
}

// === helpers ===

/// `kubepods[-QOS]-podUID.slice`, with any prefix that ends in a dash (`kubelet-kubepods-…` under a cgroup root of its
/// own). The inner `None`: a pod's slice whose uid cannot be read.
fn systemd_pod(segment: &str) -> Option<(Option<String>, Qos)> {
    let name = segment.strip_suffix(".slice")?;
    let (before, after) = name.split_once("kubepods-")?;
    if !(before.is_empty() || before.ends_with('-')) {
        return None;
    }
    let (qos, after) = if let Some(after) = after.strip_prefix("burstable-") {
        (Qos::Burstable, after)
    } else if let Some(after) = after.strip_prefix("besteffort-") {
        (Qos::BestEffort, after)
    } else {
        (Qos::Guaranteed, after)
    };
    // systemd gives the dash a meaning in slice names, so the kubelet writes `_`.
    let uid = after.strip_prefix("pod")?;
    Some((pod_uid(&uid.replace('_', "-")), qos))
}

/// A UUID, or the 32 hex digits of a static pod. Anything else (a path cut short, too) is not taken for a uid.
fn pod_uid(uid: &str) -> Option<String> {
    let bytes = uid.as_bytes();
    let valid = match bytes.len() {
        STATIC_UID_DIGITS => bytes.iter().all(u8::is_ascii_hexdigit),
        UUID_LEN => bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if UUID_DASHES.contains(&at) { *byte == b'-' } else { byte.is_ascii_hexdigit() }),
        _ => false,
    };
    valid.then(|| uid.to_owned())
}

/// `<id>`, `<prefix>-<id>` or `<prefix>-<id>.scope`. A monitor (`crio-conmon-<id>.scope`) stands outside its container.
fn container_ref(segment: &str) -> Option<ContainerRef> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let split = name.len().checked_sub(CONTAINER_ID_DIGITS)?;
    let (prefix, id) = name.split_at_checked(split)?;
    if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let runtime = match prefix {
        "cri-containerd-" => Runtime::Containerd,
        "crio-" => Runtime::Crio,
        "docker-" => Runtime::Docker,
        "" => Runtime::Unknown,
        other if other.ends_with("conmon-") => return None,
        other if other.ends_with('-') => Runtime::Unknown,
        _ => return None,
    };
    Some(ContainerRef { id: id.to_owned(), runtime })
}

fn is_unit(segment: &str) -> bool {
    [".service", ".scope", ".slice"].iter().any(|suffix| segment.len() > suffix.len() && segment.ends_with(suffix))
}

/// The unit as people know it. A container's monitor has a unit per container: their names would be as many.
fn unit_name(unit: &str) -> String {
    let stem = unit.strip_suffix(".scope").unwrap_or(unit);
    let id = stem.len().checked_sub(CONTAINER_ID_DIGITS).and_then(|at| stem.split_at_checked(at));
    if let Some((prefix, id)) = id
        && prefix.ends_with("conmon-")
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return prefix.trim_end_matches('-').to_owned();
    }
    let mut end = unit.len().min(UNIT_BYTES);
    while !unit.is_char_boundary(end) {
        end -= 1;
    }
    unit.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
