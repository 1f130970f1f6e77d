//! The layout, put together from a root of the test's own.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::Value;

use super::root::{Entry, Root, Tree};
use super::*;

fn source(revision: Option<&str>) -> Source {
    Source {
        version: "1.2.3".to_owned(),
        revision: revision.map(str::to_owned),
        epoch_s: 7,
        created: "1970-01-01T00:00:07Z".to_owned(),
    }
}

fn root(program: &str) -> Root {
    Root {
        base: Tree::from([("etc".to_owned(), Entry::Directory(0o755))]),
        program: Tree::from([("sekisho".to_owned(), Entry::File(0o755, program.into()))]),
    }
}

fn image(program: &str) -> Image {
    let mut image = Image::new(&source(Some("abc")));
    for arch in [Arch::Amd64, Arch::Arm64] {
        image.add(arch, &root(program), format!("bill of {arch:?}").into_bytes()).unwrap();
    }
    image
}

/// Files of the layout by path.
fn files(image: &Image) -> BTreeMap<String, Vec<u8>> {
    let archive = image.archive().unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    files
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = files.get(&format!("blobs/{}", digest.replace(':', "/"))).unwrap();
    assert_eq!(layer::digest(bytes), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn everything_in_a_layout_is_what_its_digest_says() {
    let image = image("program");
    let files = files(&image);
    let entry_point = json(&files["index.json"]);
    let [index, bills @ ..] = entry_point["manifests"].as_array().unwrap().as_slice() else { panic!("{entry_point}") };
    assert_eq!(index["digest"], image.digest());
    let index = json(blob(&files, index));
    for (manifest, arch) in index["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"]) {
        assert_eq!(manifest["platform"]["architecture"], arch);
        let manifest = json(blob(&files, manifest));
        let config = json(blob(&files, &manifest["config"]));
        assert_eq!(config["architecture"], arch);
        for (layer, unpacked) in
            manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
        {
            let mut archive = Vec::new();
            flate2::read::GzDecoder::new(blob(&files, layer)).read_to_end(&mut archive).unwrap();
            assert_eq!(layer::digest(&archive), unpacked.as_str().unwrap());
        }
    }
    assert_eq!(bills.len(), 2);
    for (bill, arch) in bills.iter().zip(["Amd64", "Arm64"]) {
        let manifest = json(blob(&files, bill));
        let subject = blob(&files, &manifest["subject"]);
        assert_eq!(json(subject)["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(blob(&files, &manifest["layers"][0]), format!("bill of {arch}").as_bytes());
    }
}

#[test]
fn the_same_makes_the_same_and_another_program_another() {
    assert_eq!(image("a").archive().unwrap(), image("a").archive().unwrap());
    assert_ne!(image("a").digest(), image("b").digest());
}

#[test]
fn labels_name_a_commit_only_when_it_is_what_was_built() {
    for (revision, expected) in [(Some("abc"), Some("abc")), (None, None)] {
        let mut image = Image::new(&source(revision));
        image.add(Arch::Amd64, &root("a"), Vec::new()).unwrap();
        let files = files(&image);
        let entry_point = json(&files["index.json"]);
        let index = json(blob(&files, &entry_point["manifests"][0]));
        let label = index["annotations"].get("org.opencontainers.image.revision").and_then(Value::as_str);
        assert_eq!(label, expected);
    }
}

#[test]
fn a_path_of_this_machine_is_found() {
    let root = workspace::root().display().to_string();
    assert!(names_nothing_of_this_machine(format!("a{root}/b").as_bytes()).is_err());
    assert!(names_nothing_of_this_machine(b"/sekisho/agent/src/main.rs").is_ok());
}

#[test]
fn bills_lie_beside_the_image() {
    assert_eq!(beside(Path::new("a/b.oci.tar"), ".amd64.cdx.json"), Path::new("a/b.amd64.cdx.json"));
    assert_eq!(beside(Path::new("b"), ".x"), Path::new("b.x"));
}

/// What people with Docker get is what is made here: its file system is, and what a runtime reads of it is said twice.
#[test]
fn the_dockerfile_says_the_same_as_the_image() {
    let text = fs::read_to_string(workspace::root().join("deploy/image/Dockerfile")).unwrap();
    let last = text.rsplit("\nFROM ").next().unwrap();
    let mut lines = last.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("scratch"));
    let lines: Vec<_> = lines.collect();

    let image = image("a");
    let files = files(&image);
    let index = json(blob(&files, &json(&files["index.json"])["manifests"][0]));
    let manifest = json(blob(&files, &index["manifests"][0]));
    let config = &json(blob(&files, &manifest["config"]))["config"];
    let quoted = |value: &Value| value.as_str().unwrap().to_owned();
    let mut expected = vec!["COPY --from=build /image-root/ /".to_owned()];
    expected.push(format!("ENV {}", quoted(&config["Env"][0])));
    expected.push(format!("USER {}", quoted(&config["User"])));
    expected.push(format!("WORKDIR {}", quoted(&config["WorkingDir"])));
    expected.push(format!("STOPSIGNAL {}", quoted(&config["StopSignal"])));
    expected.push(format!("ENTRYPOINT {}", config["Entrypoint"]));
    for (name, value) in config["Labels"].as_object().unwrap() {
        // What changes with each build is given to it.
        let value = match name.rsplit('.').next() {
            Some("created") => "$CREATED".to_owned(),
            Some("revision") => "$REVISION".to_owned(),
            Some("version") => env!("CARGO_PKG_VERSION").to_owned(),
            _ => quoted(value),
        };
        expected.push(format!("LABEL {name}=\"{value}\""));
    }
    expected.retain(|line| !lines.contains(&line.as_str()));
    assert_eq!(expected, [""; 0], "not in the Dockerfile");
    assert_eq!(lines.len(), 6 + config["Labels"].as_object().unwrap().len() + 2, "more in the Dockerfile than here");
    assert!(text.contains("cargo xtask image --root /image-root"));
}
