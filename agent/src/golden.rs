//! Tests compare generated documentation with the files that hold it; `SEKISHO_UPDATE_DOCS=1` writes them anew.

use std::path::Path;

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

/// The part of the file between the markers must be `expected`.
pub(crate) fn compare_section(relative: &Path, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(relative);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (head, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{}: no begin marker", path.display()));
    let (section, tail) = rest.split_once(END).unwrap_or_else(|| panic!("{}: no end marker", path.display()));
    if std::env::var_os("SEKISHO_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{expected}{END}{tail}")).expect("the file can be written");
        return;
    }
    assert_eq!(section, expected, "{} is out of date: run the tests once with SEKISHO_UPDATE_DOCS=1", path.display());
}
