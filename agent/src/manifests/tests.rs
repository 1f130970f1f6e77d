//! Files as people and programs write them, and as they should not.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Limits, Object, Problem};

fn read(name: &str, text: &str) -> (Vec<Object>, Vec<Problem>) {
    read_with(Limits::AGENT, name, text)
}

fn read_all(paths: &[PathBuf], limits: Limits) -> (Vec<Object>, Vec<Problem>) {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        limits.path(path, &mut |found| match found {
            Ok(object) => objects.push(object),
            Err(problem) => problems.push(problem),
        });
    }
    (objects, problems)
}

fn read_with(limits: Limits, name: &str, text: &str) -> (Vec<Object>, Vec<Problem>) {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    limits.reader(name, text.as_bytes(), &mut |found| match found {
        Ok(object) => objects.push(object),
        Err(problem) => problems.push(problem),
    });
    (objects, problems)
}

fn values(name: &str, text: &str) -> Vec<Value> {
    let (objects, problems) = read(name, text);
    assert_eq!(problems, []);
    objects.into_iter().map(|object| object.value).collect()
}

#[test]
fn documents_have_their_number_and_line() {
    let text = "# head\nkind: A\n---\n# nothing here\n---\nkind: B\nnote: |\n  text\n   --- not a mark\n--- # third\nkind: C\n...\n";
    let (objects, problems) = read("x.yaml", text);
    let places: Vec<_> =
        objects.iter().map(|o| (o.value["kind"].as_str().unwrap(), o.place.document, o.place.line)).collect();
    assert_eq!(places, [("A", 1, 1), ("B", 2, 5), ("C", 3, 10)]);
    assert_eq!(problems, []);
}

#[test]
fn a_broken_document_is_named_and_the_next_one_read() {
    let text = "kind: A\n---\nkind: B\nspec: [1,\n  b: {\n---\nkind: C\n";
    let (objects, problems) = read("dir/x.yaml", text);
    assert_eq!(objects.iter().map(|o| o.value["kind"].clone()).collect::<Vec<_>>(), ["A", "C"]);
    assert_eq!(problems.len(), 1);
    let place = &problems[0].place;
    assert_eq!((&*place.file, place.document), ("dir/x.yaml", 2));
    assert!((2..=6).contains(&place.line), "{place}");
    assert_eq!(place.to_string(), format!("dir/x.yaml, document 2, line {}", place.line));
}

#[test]
fn json_may_stand_in_a_row_and_begin_anywhere() {
    let text = "\n{\"kind\": \"A\"}\n\n\t{\"kind\":\n\"B\"}";
    let (objects, _) = read("x", text);
    assert_eq!(objects.iter().map(|o| (o.place.document, o.place.line)).collect::<Vec<_>>(), [(1, 2), (2, 4)]);
    let (objects, problems) = read("x.json", "{\"kind\": \"A\"}\n{\"kind\": canary}");
    assert_eq!((objects.len(), problems.len(), problems[0].place.line), (1, 1, 2));
    assert!(!problems[0].text.contains("canary"));
    assert_eq!(values("x.yaml", "{kind: A, spec: {a: 1}}"), [json!({"kind": "A", "spec": {"a": 1}})]);
}

#[test]
fn lists_are_taken_apart() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}, {"kind": "PodList", "apiVersion": "v1", "items": [{}, 7]}]});
    let found = values("x.json", &list.to_string());
    assert_eq!(found, [json!({"kind": "Pod"}), json!({"kind": "Pod", "apiVersion": "v1"}), json!(7)]);
}

#[test]
fn yaml_is_read_as_the_api_server_reads_it() {
    let text = "base: &base {a: '1', b: '2'}\nlabels:\n  <<: *base\n  b: x\n  1: one\n  true: yes\n";
    let found = values("x.yml", text);
    assert_eq!(found[0]["labels"], json!({"a": "1", "b": "x", "1": "one", "true": "yes"}));
    let (_, problems) = read("x.yaml", "a: 1\na: 2\n");
    assert_eq!(problems[0].text, "a key stands twice");
    assert!(!read("x.yaml", "? [a]\n: b\n").1.is_empty());
    assert!(!read("x.yaml", "a: !secret b\n").1.is_empty());
    assert!(!read("x.yaml", "a: .nan\n").1.is_empty());
}

#[test]
fn aliases_cannot_grow_a_document_beyond_its_budget() {
    let level = |level: usize| {
        let refs = [format!("*a{}", level - 1).as_str(); 10].join(", ");
        format!("a{level}: &a{level} [{refs}]\n")
    };
    let levels: String = (1..9).map(level).collect();
    let (objects, problems) = read("bomb.yaml", &format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{levels}"));
    assert!(objects.is_empty());
    assert_eq!(problems.len(), 1);
    let texts = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 8].join(", "));
    assert_eq!(read("texts.yaml", &texts).1[0].text, super::tree::TOO_MUCH);
}

#[test]
fn depth_size_and_bytes_are_bounded() {
    assert_eq!(read("deep.yaml", &"[".repeat(100_000)).1.len(), 1);
    assert_eq!(read("deep.json", &"[".repeat(100_000)).1.len(), 1);
    let limits = Limits { file_bytes: 10, ..Limits::AGENT };
    assert_eq!(read_with(limits, "x.yaml", "kind: ABCDEF").1[0].text, "is longer than 10 bytes");
    let mut problems = Vec::new();
    Limits::AGENT.reader("x.yaml", &b"a: b\nc: \xff\n"[..], &mut |found| problems.extend(found.err()));
    assert_eq!((problems[0].place.line, problems[0].text.as_str()), (2, "is not UTF-8"));
}

#[test]
fn a_directory_is_read_whole_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("b.yaml", "kind: B");
    write("a/z.YML", "kind: Z");
    write("c.json", "{\"kind\": \"C\"}");
    write("README.md", "kind: No");
    // A mounted ConfigMap: the files are links into a hidden directory.
    write("..2026/d.yaml", "kind: D");
    std::os::unix::fs::symlink("..2026/d.yaml", directory.path().join("d.yaml")).unwrap();
    // A link to a directory would be a way to loop.
    std::os::unix::fs::symlink("..", directory.path().join("a/up")).unwrap();
    // Reading this would wait for ever.
    nix_fifo(&directory.path().join("pipe.yaml"));
    let (objects, problems) = read_all(&[directory.path().to_owned()], Limits::AGENT);
    assert_eq!(problems, []);
    assert_eq!(objects.iter().map(|o| o.value["kind"].as_str().unwrap()).collect::<String>(), "ZBCD");

    let few = Limits { files: 2, ..Limits::AGENT };
    let (objects, problems) = read_all(&[directory.path().to_owned()], few);
    assert_eq!((objects.len(), problems.len()), (2, 1));
    let (_, problems) = read_all(&[directory.path().join("absent.yaml")], Limits::COMMAND);
    assert!(problems[0].text.starts_with("could not be opened"), "{problems:?}");
}

fn nix_fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[-a-z{}\\[\\]:&*<#!|>\"', \n\t.0-9]{0,80}") {
        read("x.yaml", &text);
        read("x.json", &text);
        read("x", &text);
    }
}
