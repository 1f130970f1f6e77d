//! The command lines of the manifests are ones that the program takes.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Cli, Command};

#[test]
fn the_program_takes_the_command_lines_of_the_manifests() {
    let renderings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/chart");
    let mut checked = 0;
    for entry in fs::read_dir(&renderings).expect("rendered charts") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a rendered chart");
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let containers = &object["spec"]["template"]["spec"]["containers"];
            let Some(agent) = containers.as_array().and_then(|all| all.iter().find(|one| one["name"] == "sekisho"))
            else {
                continue;
            };
            let words = |field: &str| agent[field].as_array().cloned().unwrap_or_default();
            let line: Vec<String> = [words("command"), words("args")]
                .concat()
                .iter()
                .map(|word| word.as_str().unwrap_or_else(|| panic!("{}: {word} is no text", path.display())).to_owned())
                .collect();
            let taken = Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(matches!(taken.command, Command::Run(_)), "{}: {line:?}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} command lines");
}
