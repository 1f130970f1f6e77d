//! Broken links and missing tests are found, whole ones are not.

use super::super::fixture::{shown, tree};
use super::*;

const PROMISES: &str = "# Promises\n\n1. It holds. [`it_holds`](tests/a.rs)\n2. It will hold (pending).\n";

#[test]
fn links_that_lead_nowhere_are_found() {
    for wrong in [
        "[a](b.md)",
        "[a](docs/)",
        "[a](../c.md)",
        "[a](#nowhere)",
        "[a](docs.md#nowhere)",
        "![a](b.png)",
        "[a][b]\n\n[b]: c.md",
    ] {
        let files = [("docs.md", "# Somewhere\n"), ("README.md", wrong)];
        assert_eq!(links_resolve(&tree(&files)).len(), 1, "{wrong}");
    }
}

#[test]
fn links_that_lead_somewhere_are_left_alone() {
    let files = [
        (
            "docs/a.md",
            "# One `two`: three?\n[up](../README.md) [here](#one-two-three) [dir](../docs) [root](/README.md)",
        ),
        (
            "README.md",
            "[a](docs/a.md#one-two-three) [b](https://example.com/x) [c](docs/) `[d](nowhere.md)`\n\n```\n[e](nowhere.md)\n```\n",
        ),
        ("docs/b.md", "# Same\n# Same\n[second](#same-1)"),
    ];
    assert_eq!(shown(&links_resolve(&tree(&files))), [""; 0]);
}

#[test]
fn a_broken_link_is_named_with_its_line() {
    let found = links_resolve(&tree(&[("README.md", "# A\n\n[a](b.md)\n")]));
    assert_eq!(shown(&found), ["README.md:3: the link to `b.md` leads to no file"]);
}

#[test]
fn promises_with_tests_are_kept() {
    let files = [("SPECIFICATION.md", PROMISES), ("tests/a.rs", "#[test]\nfn it_holds() {}\n")];
    assert_eq!(shown(&promises_have_tests(&tree(&files))), [""; 0]);
}

#[test]
fn promises_without_tests_are_found() {
    let missing = [("SPECIFICATION.md", PROMISES), ("tests/a.rs", "#[test]\nfn it_held() {}\nfn it_holds() {}\n")];
    assert_eq!(
        shown(&promises_have_tests(&tree(&missing))),
        ["SPECIFICATION.md:3: `tests/a.rs` has no test `it_holds`"]
    );

    let unnamed = [("SPECIFICATION.md", "1. It holds.\n   - and this too\n2. [Text](a.md)\n")];
    assert_eq!(promises_have_tests(&tree(&unnamed)).len(), 2);
}

#[test]
fn tests_are_told_from_other_functions() {
    assert!(has_test("    #[test]\n    // why\n    #[should_panic]\n    fn a() {}", "a"));
    assert!(!has_test("#[test]\n#[ignore = \"slow\"]\nfn a() {}", "a"), "a test that does not run holds nothing");
    assert!(has_test("#[tokio::test(flavor = \"current_thread\")]\nasync fn a() {}", "a"));
    assert!(has_test("proptest! {\n    #[test]\n    fn a(x in 0..1) {}\n}", "a"));
    assert!(!has_test("#[test]\nfn b() {}\nfn a() {}", "a"));
    assert!(!has_test("#[test]\nfn ab() {}", "a"));
    assert!(!has_test("#[inline]\nfn a() {}", "a"));
}
