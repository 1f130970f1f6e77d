//! No program at a cgroup hook ever refuses a packet, a connection or a socket. What the kernel does there depends on the
//! return value alone, so each such program has one form, in which the value cannot depend on anything:
//!
//! ```text
//! #[cgroup_skb]
//! pub fn name(ctx: SkBuffContext) -> i32 {
//!     try_name(&ctx);
//!     ALLOW
//! }
//! ```
//!
//! with one `const ALLOW: i32 = 1;` for all of them. The call may have more arguments, as long as they are names and
//! literals, and its result may be bound to `_`. `sock_ops` programs return `ALLOW as u32`.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::paths::tokens;
use super::{Source, Violation, rust};

/// Where the eBPF programs are.
const PROGRAMS: &str = "agent-ebpf/src/";

/// Attributes of programs whose return value lets pass or refuses.
const REFUSING: [&str; 7] =
    ["cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_sysctl", "cgroup_device", "sock_ops"];

/// The constant's definition, without blanks.
const ALLOW: &str = "constALLOW:i32=1;";

/// Cgroup programs have the one form, and `ALLOW` one value.
pub(super) fn cgroup_programs_allow(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut programs, mut constants) = (0_usize, 0_usize);
    for source in rust(tree).filter(|source| source.path.starts_with(PROGRAMS)) {
        let mut reader = Reader { source, violations: Vec::new(), programs: 0, constants: 0 };
        if let Some(tokens) = tokens(source) {
            reader.read(tokens);
        }
        programs += reader.programs;
        constants += reader.constants;
        violations.append(&mut reader.violations);
    }
    if programs > 0 && constants != 1 {
        let text = format!("`const ALLOW: i32 = 1;` is there {constants} times: one definition serves all programs");
        violations.push(Violation { path: PROGRAMS.to_owned(), line: 0, text });
    }
    violations
}

struct Reader<'a> {
    source: &'a Source,
    violations: Vec<Violation>,
    programs: usize,
    constants: usize,
}

impl Reader<'_> {
    /// Looks at all tokens, macro bodies included.
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    if let Some(program) = follows_hash(&tokens, at).then(|| refusing(group)).flatten() {
                        self.programs += 1;
                        self.check(&program, group, tokens.get(at + 1..).unwrap_or_default());
                    }
                    self.read(group.stream());
                }
                TokenTree::Ident(word) if word == "ALLOW" => self.check_constant(&tokens, at),
                _ => {}
            }
        }
    }

    fn check(&mut self, program: &str, attribute: &Group, item: &[TokenTree]) {
        if !has_the_form(item) {
            let text = format!(
                "a `{program}` program is not `pub fn name(ctx: …) -> i32 {{ try_name(&ctx); ALLOW }}`: it might refuse"
            );
            self.violations.push(Violation::new(self.source, attribute.span_open().start().line, text));
        }
    }

    /// `ALLOW` is defined with its one value, and never bound to another.
    fn check_constant(&mut self, tokens: &[TokenTree], at: usize) {
        let Some(before) = at.checked_sub(1).and_then(|before| tokens.get(before)) else { return };
        let before = before.to_string();
        if before == "const" {
            let definition = text(tokens.get(at - 1..at + 6).unwrap_or_default());
            if definition == ALLOW {
                self.constants += 1;
                return;
            }
        } else if !["static", "let", "mut", "as"].contains(&before.as_str()) {
            return;
        }
        let line = tokens.get(at).map_or(0, |token| token.span().start().line);
        self.violations.push(Violation::new(self.source, line, "`ALLOW` is the constant 1 and nothing else"));
    }
}

fn follows_hash(tokens: &[TokenTree], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    matches!(before, Some(TokenTree::Punct(punct)) if punct.as_char() == '#')
}

/// The attribute's name if it makes a program that may refuse: `[cgroup_skb(egress)]`, `[aya_ebpf::macros::cgroup_skb]`.
fn refusing(attribute: &Group) -> Option<String> {
    if attribute.delimiter() != Delimiter::Bracket {
        return None;
    }
    let words = attribute.stream().into_iter().filter_map(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    });
    // The name is the last word outside the arguments, which are a group.
    words.last().filter(|name| REFUSING.contains(&name.as_str()))
}

/// Whether what follows an attribute is, further attributes aside, a function of the one form.
fn has_the_form(item: &[TokenTree]) -> bool {
    let mut rest = item;
    while let [TokenTree::Punct(hash), TokenTree::Group(_), after @ ..] = rest
        && hash.as_char() == '#'
    {
        rest = after;
    }
    let [visibility, function, TokenTree::Ident(_), TokenTree::Group(_), arrow @ .., TokenTree::Group(body)] =
        rest.get(..8).unwrap_or_default()
    else {
        return false;
    };
    let body: Vec<_> = body.stream().into_iter().collect();
    visibility.to_string() == "pub"
        && function.to_string() == "fn"
        && ["->i32", "->u32"].contains(&text(arrow).as_str())
        && allows(&body)
}

/// `[let _ =] try_name(&ctx, …); ALLOW [as u32]`
fn allows(body: &[TokenTree]) -> bool {
    let call = match body.get(..3) {
        Some(binding) if text(binding) == "let_=" => body.get(3..).unwrap_or_default(),
        _ => body,
    };
    let [TokenTree::Ident(function), TokenTree::Group(arguments), verdict @ ..] = call else { return false };
    function.to_string().starts_with("try_")
        && arguments.delimiter() == Delimiter::Parenthesis
        && arguments.stream().into_iter().all(|token| is_plain(&token))
        && [";ALLOW", ";ALLOWasu32"].contains(&text(verdict).as_str())
}

/// A token of an argument that cannot leave the function.
fn is_plain(token: &TokenTree) -> bool {
    match token {
        TokenTree::Ident(word) => word != "return" && word != "break",
        TokenTree::Punct(punct) => ['&', ',', ':'].contains(&punct.as_char()),
        TokenTree::Literal(_) => true,
        TokenTree::Group(_) => false,
    }
}

/// Tokens without blanks.
fn text(tokens: &[TokenTree]) -> String {
    tokens.iter().map(|token| token.to_string().split_whitespace().collect::<String>()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{shown, tree};
    use super::*;

    const CONSTANT: &str = "pub(crate) const ALLOW: i32 = 1;";

    fn found(text: &str) -> Vec<String> {
        shown(&cgroup_programs_allow(&tree(&[("agent-ebpf/src/main.rs", CONSTANT), ("agent-ebpf/src/a.rs", text)])))
    }

    #[test]
    fn the_one_form_is_right() {
        for right in [
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { let _ = try_egress(&ctx); ALLOW }",
            "#[cgroup_skb(egress)] pub fn egress(ctx: SkBuffContext) -> i32 { try_packet(&ctx, true, Way::Out); ALLOW }",
            "#[sock_ops] pub fn tcp(ctx: SockOpsContext) -> u32 { try_tcp(&ctx); ALLOW as u32 }",
            "#[cgroup_sock(sock_release)]\n#[inline]\npub fn release(c: SockContext) -> i32 {\n    let _ = try_release(&mut c);\n    ALLOW\n}",
            "#[tracepoint] pub fn exec(ctx: TracePointContext) -> u32 { 0 }",
            "#[map] static A: Array<u64> = Array::new();",
        ] {
            assert_eq!(found(right), [""; 0], "{right}");
        }
    }

    #[test]
    fn every_other_form_is_found() {
        for wrong in [
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { try_egress(&ctx) }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { let _ = try_egress(&ctx); 0 }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { let _ = try_egress(&ctx)?; ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { try_egress(&ctx?); ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { try_egress(&ctx, return 0); ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { try_egress({ return 0; }); ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { try_a(&ctx); try_b(&ctx); ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { let ALLOW = 0; try_egress(&ctx); ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { if drop(&ctx) { return 0; } ALLOW }",
            "#[cgroup_skb] pub fn egress(ctx: SkBuffContext) -> i32 { let _ = try_egress(&ctx); ALLOW & 0 }",
            "#[cgroup_skb(egress)] pub unsafe fn egress(ctx: SkBuffContext) -> i32 { let _ = try_egress(&ctx); ALLOW }",
            "#[aya_ebpf::macros::cgroup_sock_addr(connect4)] pub fn connect(ctx: C) -> i32 { 1 }",
            "macro_rules! m { () => { #[cgroup_sock] pub fn release(ctx: C) -> i32 { 1 } } }",
            "mod inner { #[sock_ops] pub fn tcp(ctx: C) -> u32 { 0 } }",
            "#[cgroup_skb]",
        ] {
            assert!(!found(wrong).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn allow_is_one_and_is_there_once() {
        let program = "#[cgroup_skb] pub fn egress(ctx: C) -> i32 { let _ = try_egress(&ctx); ALLOW }";
        let with = |constant: &str| {
            shown(&cgroup_programs_allow(&tree(&[("agent-ebpf/src/main.rs", &format!("{constant}\n{program}"))]))).len()
        };
        assert_eq!(with("const ALLOW: i32 = 1;"), 0);
        assert_eq!(with(""), 1, "no definition");
        assert!(with("const ALLOW: i32 = 0;") > 0);
        assert!(with("const ALLOW: i32 = 1 - 1;") > 0);
        assert!(with("const ALLOW: i32 = 1; mod a { const ALLOW: i32 = 1; }") > 0);
        assert!(with("const ALLOW: i32 = 1; fn f() { let ALLOW = 0; }") > 0);
        assert!(with("const ALLOW: i32 = 1; use a::DENY as ALLOW;") > 0);
    }

    #[test]
    fn other_packages_are_left_alone() {
        let elsewhere = tree(&[("xtask/src/a.rs", "#[cgroup_skb] pub fn egress() -> i32 { 0 }")]);
        assert!(cgroup_programs_allow(&elsewhere).is_empty());
    }
}
