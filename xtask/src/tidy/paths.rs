//! The paths that a Rust source names (`a::b::C`), also inside macros, read from its tokens.

use std::str::FromStr as _;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{Source, Violation, rust};

/// A path that a source names, with imports unfolded: `use a::{b, c::D}` names `a::b` and `a::c::D`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its segments. A path of one segment appears only in imports.
    pub(super) segments: Vec<String>,
    /// Line in the source.
    pub(super) line: usize,
    /// Inline modules around it, outermost first.
    pub(super) within: Vec<String>,
    /// It stands in code that only tests have.
    pub(super) in_test: bool,
}

/// The tokens of a source, None when it is no Rust.
pub(super) fn tokens(source: &Source) -> Option<TokenStream> {
    TokenStream::from_str(&source.text).ok()
}

/// Sources that no other rule can judge.
pub(super) fn readable(tree: &[Source]) -> Vec<Violation> {
    rust(tree)
        .filter(|source| tokens(source).is_none())
        .map(|source| Violation::new(source, 0, "cannot be split into tokens: is it Rust?"))
        .collect()
}

/// All paths of a source in their order.
pub(super) fn named(source: &Source) -> Vec<Named> {
    let mut reader = Reader { found: Vec::new(), within: Vec::new() };
    if let Some(tokens) = tokens(source) {
        reader.read(tokens, false);
    }
    reader.found
}

struct Reader {
    found: Vec<Named>,
    within: Vec<String>,
}

impl Reader {
    /// Reads one level of tokens and what is inside its groups. `in_test`: everything in it is for tests.
    fn read(&mut self, tokens: TokenStream, in_test: bool) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        // The item that is being read has the attribute `cfg(test)`.
        let mut test_item = false;
        while let Some(token) = tokens.get(at) {
            let test = in_test || test_item;
            let rest = tokens.get(at..).unwrap_or_default();
            let length = match rest {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] if hash.as_char() == '#' => {
                    test_item |= is_cfg_test(attribute.stream());
                    self.read(attribute.stream(), test);
                    2
                }
                // `impl A + use<'a>` is no import.
                [TokenTree::Ident(word), next, ..] if word == "use" && !is_punct(next, '<') => {
                    let length = rest.iter().position(is_semicolon).unwrap_or(rest.len());
                    self.import(rest.get(1..length).unwrap_or_default(), &[], test);
                    length
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..] if word == "mod" => {
                    self.within.push(name.to_string());
                    self.read(body.stream(), test);
                    self.within.pop();
                    3
                }
                [TokenTree::Ident(first), ..] => {
                    let (path, length) = leading_path(rest);
                    // A lone identifier may be anything.
                    if path.len() > 1 {
                        self.note(path, first.span().start().line, test);
                    }
                    length
                }
                [TokenTree::Group(group), ..] => {
                    self.read(group.stream(), test);
                    1
                }
                _ => 1,
            };
            at += length;
            // An item ends with a block or a semicolon.
            let last = tokens.get(at.saturating_sub(1)).unwrap_or(token);
            test_item &= !(is_semicolon(last) || is_block(last));
        }
    }

    /// The tree between `use` and its semicolon, or a part of it behind a prefix.
    fn import(&mut self, tree: &[TokenTree], prefix: &[String], in_test: bool) {
        for branch in tree.split(|token| is_punct(token, ',')) {
            let start = branch.iter().take_while(|token| is_punct(token, ':')).count();
            let branch = branch.get(start..).unwrap_or_default();
            let Some(first) = branch.first() else { continue };
            let line = first.span().start().line;
            let (segments, length) = leading_path(branch);
            let mut path = prefix.to_vec();
            // `{self}` is the prefix itself.
            path.extend(segments.into_iter().filter(|segment| segment != "self" || prefix.is_empty()));
            let after = branch.get(length..).unwrap_or_default();
            match after.iter().find(|token| !is_punct(token, ':')) {
                Some(TokenTree::Group(group)) => {
                    self.import(&group.stream().into_iter().collect::<Vec<_>>(), &path, in_test);
                    continue;
                }
                Some(star) if is_punct(star, '*') => path.push("*".to_owned()),
                _ => {}
            }
            self.note(path, line, in_test);
        }
    }

    fn note(&mut self, segments: Vec<String>, line: usize, in_test: bool) {
        self.found.push(Named { segments, line, within: self.within.clone(), in_test });
    }
}

/// `a::b::c` at the start of some tokens, and how many tokens it takes.
fn leading_path(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut length = 0;
    while let Some(TokenTree::Ident(word)) = tokens.get(length) {
        path.push(word.to_string().trim_start_matches("r#").to_owned());
        length += 1;
        match tokens.get(length..) {
            Some([first, second, TokenTree::Ident(_), ..]) if is_punct(first, ':') && is_punct(second, ':') => {
                length += 2;
            }
            _ => break,
        }
    }
    (path, length)
}

fn is_punct(token: &TokenTree, punct: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == punct)
}

fn is_semicolon(token: &TokenTree) -> bool {
    is_punct(token, ';')
}

fn is_block(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// `cfg(test)` alone; `cfg(any(test, …))` is also there without tests.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let text: String = attribute.into_iter().map(|token| token.to_string()).collect();
    text.split_whitespace().collect::<String>() == "cfg(test)"
}

#[cfg(test)]
mod tests {
    use super::super::fixture::tree;
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        named(&tree(&[("a.rs", text)])[0]).into_iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn imports_are_unfolded() {
        assert_eq!(
            paths("use a::{self, b::C, d::{e as f, g::*}};\nuse ::h;\npub(crate) use r#i::j;"),
            ["a", "a::b::C", "a::d::e", "a::d::g::*", "h", "i::j"]
        );
    }

    #[test]
    fn paths_in_code_types_macros_and_attributes_count() {
        assert_eq!(
            paths(
                "#[derive(serde::Serialize)] struct A { b: aya::Ebpf }\nfn f() -> Vec<kube::Client> { select! { x = std::fs::read(y) => z } }"
            ),
            ["serde::Serialize", "aya::Ebpf", "kube::Client", "std::fs::read"]
        );
    }

    #[test]
    fn words_in_comments_and_texts_do_not_count() {
        assert!(paths("fn f() -> impl A + use<'_> {} struct S;").is_empty());
        assert!(paths("// aya::Ebpf\n/// kube::Client\nconst A: &str = \"aya::Ebpf\";").is_empty());
    }

    #[test]
    fn generic_arguments_do_not_join_paths() {
        assert_eq!(paths("fn f() { let _ = a::b::<c::D>(e); x.y::<u8>(); }"), ["a::b", "c::D"]);
    }

    #[test]
    fn code_for_tests_is_told_apart() {
        let source = &tree(&[(
            "a.rs",
            "use a::b;\n#[cfg(test)]\nuse c::d;\n#[cfg(test)]\nmod tests { use e::f; fn g() { h::i(); } }\nfn j() { k::l() }",
        )])[0];
        let found: Vec<_> = named(source).into_iter().map(|n| (n.segments.join("::"), n.in_test, n.line)).collect();
        let expected =
            [("a::b", false, 1), ("c::d", true, 3), ("e::f", true, 5), ("h::i", true, 5), ("k::l", false, 6)];
        assert_eq!(found, expected.map(|(path, test, line)| (path.to_owned(), test, line)));
    }

    #[test]
    fn inline_modules_are_remembered() {
        let source = &tree(&[("a.rs", "mod b { mod c { use super::d; } } use e::f;")])[0];
        let within: Vec<_> = named(source).into_iter().map(|named| named.within).collect();
        assert_eq!(within, [vec!["b".to_owned(), "c".to_owned()], vec![]]);
    }

    #[test]
    fn what_is_no_rust_is_reported() {
        assert_eq!(readable(&tree(&[("a.rs", "fn f( {")])).len(), 1);
        assert!(readable(&tree(&[("a.rs", "fn f() {}"), ("a.md", "(")])).is_empty());
    }
}
