//! An OCI image layout (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>) in one archive: an index
//! over one image for each architecture, and to each image a bill of materials that refers to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::layer;
use super::root::{Entry, PROGRAM, Root, Tree, USER};
use super::source::Source;
use crate::vm::Arch;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Media type of a `CycloneDX` document, as IANA registered it.
const BILL: &str = "application/vnd.cyclonedx+json";

/// What `PATH` holds, since the manifests name the program and not its path.
const ENVIRONMENT: &str = "PATH=/usr/bin";

/// Names the image for who imports it: as the kubelet writes the short name of the manifests.
const NAME: &str = "docker.io/library/sekisho";

/// What it is, in a line.
pub(super) const DESCRIPTION: &str =
    "node-level agent for Amazon EKS: flows, credential requests and ceilings of every pod";

/// An image in the making.
pub(super) struct Image {
    source: Source,
    /// By digest.
    blobs: BTreeMap<String, Vec<u8>>,
    /// An image for each architecture.
    manifests: Vec<Value>,
    /// What refers to them.
    referrers: Vec<Value>,
    /// Bills of materials by architecture.
    bills: BTreeMap<&'static str, Vec<u8>>,
    /// For people.
    summary: String,
}

impl Image {
    /// Without an architecture.
    pub(super) fn new(source: &Source) -> Self {
        Self {
            source: source.clone(),
            blobs: BTreeMap::new(),
            manifests: Vec::new(),
            referrers: Vec::new(),
            bills: BTreeMap::new(),
            summary: String::new(),
        }
    }

    /// Adds an architecture.
    pub(super) fn add(&mut self, arch: Arch, root: &Root, bill: Vec<u8>) -> Result<()> {
        let epoch_s = self.source.epoch_s;
        let mut layers = Vec::new();
        let mut unpacked = Vec::new();
        for tree in [&root.base, &root.program] {
            let archive = layer::archive(tree, epoch_s)?;
            unpacked.push(layer::digest(&archive));
            layers.push(self.blob(LAYER, layer::compressed(&archive)?));
        }
        let config = self.blob(CONFIG, text(&config(arch, &self.source, &unpacked)));
        let bytes = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum::<u64>();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": layers,
            "annotations": labels(&self.source),
        });
        let mut manifest = self.blob(MANIFEST, text(&manifest));

        let contents = self.blob(BILL, bill.clone());
        let empty = self.blob(EMPTY, b"{}".to_vec());
        let referrer = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BILL,
            "config": empty,
            "layers": [contents],
            "subject": manifest,
            "annotations": { "org.opencontainers.image.created": self.source.created },
        });
        let mut referrer = self.blob(MANIFEST, text(&referrer));
        referrer["artifactType"] = json!(BILL);
        self.referrers.push(referrer);

        manifest["platform"] = json!({ "architecture": arch.debian(), "os": "linux" });
        self.manifests.push(manifest);
        self.bills.insert(arch.debian(), bill);
        // Writing to a string does not fail.
        let _ = write!(self.summary, "{} {}.{} MB, ", arch.debian(), bytes / 1_000_000, bytes / 100_000 % 10);
        Ok(())
    }

    /// Bills of materials, by architecture.
    pub(super) fn bills(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.bills.iter().map(|(arch, bill)| (*arch, bill.as_slice()))
    }

    /// What it is, for people.
    pub(super) fn summary(&self) -> String {
        format!("{}of {}", self.summary, self.source.created)
    }

    /// Digest of the index: what a registry names the image by.
    pub(super) fn digest(&self) -> String {
        layer::digest(&self.index())
    }

    fn index(&self) -> Vec<u8> {
        text(&json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": self.manifests,
            "annotations": labels(&self.source),
        }))
    }

    /// The layout as one archive.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let index = self.index();
        let mut image = descriptor(INDEX, &index);
        image["annotations"] = json!({
            "io.containerd.image.name": format!("{NAME}:{}", self.source.version),
            "org.opencontainers.image.ref.name": self.source.version,
        });
        // Tools find what refers to an image here, as a registry would list it.
        let entries: Vec<&Value> = [&image].into_iter().chain(&self.referrers).collect();
        let entry_point = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });

        let file = |bytes: Vec<u8>| Entry::File(0o644, bytes);
        let mut tree = Tree::from([
            ("oci-layout".to_owned(), file(text(&json!({ "imageLayoutVersion": "1.0.0" })))),
            ("index.json".to_owned(), file(text(&entry_point))),
            ("blobs".to_owned(), Entry::Directory(0o755)),
            ("blobs/sha256".to_owned(), Entry::Directory(0o755)),
            (path(&layer::digest(&index)), file(index)),
        ]);
        tree.extend(self.blobs.iter().map(|(digest, bytes)| (path(digest), file(bytes.clone()))));
        layer::archive(&tree, self.source.epoch_s)
    }

    /// Takes a blob in and describes it.
    fn blob(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let described = descriptor(kind, &bytes);
        self.blobs.insert(layer::digest(&bytes), bytes);
        described
    }
}

/// Where a blob lies in the layout.
fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": layer::digest(bytes), "size": bytes.len() })
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// What a runtime starts, and as whom.
fn config(arch: Arch, source: &Source, layers: &[String]) -> Value {
    let by = |what: &str| json!({ "created": source.created, "created_by": what });
    json!({
        "created": source.created,
        "architecture": arch.debian(),
        "os": "linux",
        "config": {
            "User": USER,
            "Env": [ENVIRONMENT],
            "Entrypoint": [format!("/{PROGRAM}")],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": labels(source),
        },
        "rootfs": { "type": "layers", "diff_ids": layers },
        "history": [by("Debian's packages: libraries, certificates, licences"), by("sekisho")],
    })
}

/// Labels that the specification names.
fn labels(source: &Source) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": "sekisho",
        "org.opencontainers.image.description": DESCRIPTION,
        "org.opencontainers.image.version": source.version,
        "org.opencontainers.image.created": source.created,
        "org.opencontainers.image.licenses": "Apache-2.0",
    });
    if let Some(revision) = &source.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}
