//! `sekisho sg explain`: the real binary over files as the AWS CLI prints them.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CART: &str = "sg-0a11aa11aa11aa11a";
const DATABASE: &str = "sg-0b22bb22bb22bb22b";

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/sg/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn explain(files: &[&str], question: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.args(["sg", "explain"]).args(files.iter().flat_map(|file| ["--groups", file]));
    command.args(question.split_whitespace()).stdin(Stdio::null()).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The answer as JSON, over groups and their prefix list.
#[track_caller]
fn answer(question: &str, exit: i32) -> Value {
    let files = [fixture("groups.json"), fixture("pl-0c33cc33cc33cc33c.json")];
    let output = explain(&files.each_ref().map(String::as_str), &format!("{question} -o json"));
    assert_eq!(output.status.code(), Some(exit), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_missing_rule_on_one_side_is_named() {
    let question = format!(
        "--source-groups {CART} --source-ip 10.0.1.5 --dest 10.0.2.9 --dest-groups {DATABASE} --protocol tcp --port 3306"
    );
    let report = answer(&question, 1);
    assert_eq!((&report["schema"], &report["kind"]), (&"sekisho/1".into(), &"sg_explain".into()));
    assert_eq!(report["verdict"], "no_rule");
    assert_eq!(report["egress"]["verdict"], "allowed");
    assert_eq!(report["egress"]["rules"], serde_json::json!([format!("{CART}:egress:tcp:3306:{DATABASE}")]));
    assert_eq!(report["egress"]["tracking"], "tracked");
    assert_eq!(
        (&report["ingress"]["verdict"], &report["ingress"]["rules"]),
        (&"no_rule".into(), &serde_json::json!([]))
    );
    assert_eq!(report["ingress"]["nearest"][0]["lacks"], "port 3306");
    let missing = report["missing"].as_array().expect("an array");
    assert_eq!((missing.len(), &missing[0]["side"], &missing[0]["group"]), (1, &"ingress".into(), &DATABASE.into()));
    assert_eq!(missing[0]["text"], format!("{DATABASE} has no ingress rule for tcp 3306 from {CART}"));
    assert_eq!(
        missing[0]["aws_cli"],
        format!(
            "aws ec2 authorize-security-group-ingress --group-id {DATABASE} --ip-permissions \
             'IpProtocol=tcp,FromPort=3306,ToPort=3306,UserIdGroupPairs=[{{GroupId={CART}}}]'"
        )
    );
    let terraform = missing[0]["terraform"].as_str().expect("a text");
    assert!(terraform.starts_with("resource \"aws_vpc_security_group_ingress_rule\" \""), "{terraform}");
    assert_eq!(report["why"], missing[0]["text"]);
}

/// With the rule that was missing, from the other form of the CLI's output. Ids that EC2 gave are preferred.
#[test]
fn both_forms_count_together() {
    let question =
        format!("--source-groups {CART} --dest 10.0.2.9 --dest-groups {DATABASE} --protocol tcp --port 3306");
    let files = [fixture("groups.json"), fixture("rules.json")];
    let output = explain(&files.each_ref().map(String::as_str), &question);
    let expected = format!(
        "tcp 3306 to 10.0.2.9\n\n\
         egress   allowed by sgr-0f66ff66ff66ff66f of {CART} (cart): tcp 3306 to {DATABASE}\n\
         ingress  allowed by sgr-0e55ee55ee55ee55e of {DATABASE} (orders-db): tcp 3306 from {CART}\n\
         verdict  allowed: the groups at both ends let it pass\n"
    );
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), expected), "{}", text(&output.stderr));
}

#[test]
fn people_get_the_commands() {
    let question = format!("--source-groups {CART} --dest 10.0.2.9 --dest-groups none --protocol udp --port 53");
    let output = explain(&[&fixture("groups.json")], &question);
    let text = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    for part in [
        "egress   no rule\n",
        "         nearest: ",
        "; it lacks udp 53",
        "ingress  not judged\n         the destination has no groups\n",
        &format!("verdict  no rule: {CART} has no egress rule for udp 53 to 10.0.2.9/32\n"),
        &format!("\naws ec2 authorize-security-group-egress --group-id {CART} --ip-permissions '"),
        "\nresource \"aws_vpc_security_group_egress_rule\" \"",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn one_end_alone_is_judged_alone() {
    let report = answer(&format!("--source-groups {CART} --dest 10.9.9.9 --protocol tcp --port 443"), 0);
    assert_eq!((&report["verdict"], &report["egress"]["verdict"]), (&"allowed".into(), &"allowed".into()));
    assert_eq!(
        (&report["ingress"]["verdict"], &report["ingress"]["not_judged"]),
        (&"cannot_tell".into(), &true.into())
    );
    assert!(report["why"].as_str().expect("a text").contains("ingress was not judged"), "{report}");

    let report = answer(&format!("--source-ip 2001:db8::7 --dest-groups {CART} --protocol tcp --port 8080"), 0);
    assert_eq!(report["ingress"]["rules"], serde_json::json!([format!("{CART}:ingress:tcp:8080:::/0")]));
    assert!(report["why"].as_str().expect("a text").contains("egress was not judged"), "{report}");
}

#[test]
fn prefix_lists_come_from_files_of_their_own() {
    let report = answer(&format!("--source-groups {CART} --dest 52.219.171.9 --protocol tcp --port 443"), 0);
    assert_eq!(report["egress"]["rules"], serde_json::json!([format!("{CART}:egress:tcp:443:pl-0c33cc33cc33cc33c")]));
    let report = answer(&format!("--source-groups {CART} --dest 52.219.172.9 --protocol tcp --port 443"), 1);
    assert_eq!(report["verdict"], "no_rule");

    let question = format!("--source-groups {CART} --dest 52.219.171.9 --protocol tcp --port 443 -o json");
    let without = explain(&[&fixture("groups.json")], &question);
    let report: Value = serde_json::from_slice(&without.stdout).expect("JSON");
    assert_eq!((without.status.code(), &report["verdict"]), (Some(1), &"cannot_tell".into()));
    assert!(report["why"].as_str().expect("a text").contains("get-managed-prefix-list-entries"), "{report}");

    let list = format!("{question} --prefix-list pl-0c33cc33cc33cc33c={}", fixture("pl-0c33cc33cc33cc33c.json"));
    assert_eq!(explain(&[&fixture("groups.json")], &list).status.code(), Some(0));
}

/// What is not known is said, and never taken for a refusal.
#[test]
fn what_is_not_known_is_told() {
    for (question, part) in [
        (format!("--source-groups {CART} --dest 192.0.2.1 --protocol tcp --port 3306"), "groups of the destination"),
        (
            format!("--source-groups {CART},sg-lost --dest 10.0.2.9 --protocol tcp --port 1"),
            "the rules of sg-lost are not known",
        ),
        (
            format!("--source-groups {CART} --dest-groups sg-lost --protocol tcp --port 443"),
            "address of the destination",
        ),
        (format!("--source-groups {CART} --dest 10.0.0.2 --protocol udp --port 53"), "may be the VPC's resolver"),
    ] {
        let report = answer(&question, 1);
        assert_eq!(
            (&report["verdict"], &report["missing"]),
            (&"cannot_tell".into(), &serde_json::json!([])),
            "{question}"
        );
        assert!(report["why"].as_str().expect("a text").contains(part), "{report}");
    }
    let question = format!("--source-groups {CART} --dest 10.0.0.2 --protocol udp --port 53");
    let report = answer(&format!("{question} --vpc-cidr 10.0.0.0/16"), 0);
    assert_eq!((&report["verdict"], &report["egress"]["rules"]), (&"allowed".into(), &serde_json::json!([])));
    assert_eq!(answer(&format!("{question} --vpc-cidr 10.1.0.0/16"), 1)["verdict"], "no_rule");
}

#[test]
fn protocols_without_ports() {
    let ask = |question: &str, exit| answer(&format!("--source-groups {CART} {question}"), exit);
    let echo = ask("--dest 10.0.2.9 --protocol icmp", 0);
    assert_eq!(echo["flow"], "icmp type 8 code 0 to 10.0.2.9");
    assert_eq!(
        ask("--dest 10.0.2.9 --protocol icmp --icmp-type 13", 1)["egress"]["nearest"][0]["lacks"],
        "type 13 code 0"
    );
    assert_eq!(ask("--dest 2001:db8::1 --protocol icmpv6", 1)["flow"], "icmpv6 type 128 code 0 to 2001:db8::1");
    assert_eq!(ask("--dest 10.0.2.9 --protocol 50", 1)["flow"], "protocol 50 to 10.0.2.9");
    assert_eq!(ask("--dest 10.0.2.9 --protocol 6 --port 443", 0)["flow"], "tcp 443 to 10.0.2.9");
}

#[test]
fn questions_without_sense_are_explained() {
    let groups = fixture("groups.json");
    let from = format!("--source-groups {CART}");
    for (question, part) in [
        (format!("{from} --dest 10.0.0.1 --protocol tcp --port 0"), "1..=65535"),
        (format!("{from} --dest 10.0.0.1 --protocol tcp --port 70000"), "1..=65535"),
        (format!("{from} --dest 10.0.0.1 --protocol tcp"), "needs the port"),
        (format!("{from} --dest 10.0.0.1 --protocol icmp --port 8"), "--port goes with"),
        (format!("{from} --dest 10.0.0.1 --protocol tcp --port 1 --icmp-type 8"), "--icmp-type"),
        (format!("{from} --dest 10.0.0.1 --protocol icmp --icmp-type 256"), "256 is not in"),
        (format!("{from} --dest 2001:db8::1 --protocol icmp"), "icmpv6 of IPv6"),
        (format!("{from} --dest 10.0.0.1 --source-ip 2001:db8::1 --protocol tcp --port 1"), "10.0.0.1 is IPv4"),
        (format!("{from} --dest 10.0.0.1 --ipv6 --protocol tcp --port 1"), "--ipv6"),
        (format!("{from} --dest 10.0.0.256 --protocol tcp --port 1"), "10.0.0.256"),
        (format!("{from} --dest 10.0.0.1 --protocol all --port 1"), "a flow has one protocol"),
        (format!("{from} --dest 10.0.0.1 --protocol 256"), "a flow has one protocol"),
        ("--source-groups cart --dest 10.0.0.1 --protocol tcp --port 1".to_owned(), "expected sg-"),
        ("--source-groups sg-a, --dest 10.0.0.1 --protocol tcp --port 1".to_owned(), "expected sg-"),
        ("--source-groups none --dest 10.0.0.1 --protocol tcp --port 1".to_owned(), "no end has groups"),
        ("--source-ip 10.0.0.2 --dest 10.0.0.1 --protocol tcp --port 1".to_owned(), "no end has groups"),
        ("--dest 10.0.0.1 --protocol tcp --port 1".to_owned(), "--source-groups"),
        (format!("{from} --protocol tcp --port 1"), "--dest"),
        (format!("{from} --dest 10.0.0.1 --protocol tcp --port 1 --prefix-list pl-1"), "pl-…=FILE"),
        (format!("{from} --dest 10.0.0.1 --protocol tcp --port 1 --vpc-cidr 10.0.0.0"), "10.0.0.0"),
    ] {
        let output = explain(&[&groups], &question);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""), "{question}: {said}");
        assert!(said.starts_with("error: ") && said.contains(part) && said.contains("--help"), "{question}: {said}");
    }
}

#[test]
fn files_that_cannot_be_used_are_explained() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("writes");
        path
    };
    let group = |permission: &str| {
        format!(
            r#"{{"SecurityGroups":[{{"GroupId":"sg-a","IpPermissions":[{permission}],"IpPermissionsEgress":[]}}]}}"#
        )
    };
    let list = fixture("pl-0c33cc33cc33cc33c.json");
    for (path, parts) in [
        (directory.path().join("nowhere.json"), &["cannot open it", "No such file"][..]),
        (directory.path().to_owned(), &["cannot read it"]),
        (write("empty.json", b""), &["is empty", "aws ec2 describe-security-groups"]),
        (write("blank.json", b"\n"), &["is empty"]),
        (write("binary.json", b"\xff\xfe{"), &["no text in UTF-8"]),
        (write("cut.json", b"{\"SecurityGroups\": [{"), &["SecurityGroups[0]", "line 1", "as it printed it"]),
        (write("text.json", b"SECURITYGROUPS\tcart"), &["line 1, column 1"]),
        (write("other.json", b"{\"Instances\": []}"), &["none of the keys", "describe-security-group-rules"]),
        (write("array.json", b"[]"), &["line 1"]),
        (
            write("page.json", b"{\"SecurityGroups\": [], \"NextToken\": \"abc\"}"),
            &["one page of several", "--max-items"],
        ),
        (
            write("port.json", group(r#"{"IpProtocol":"tcp","FromPort":1,"ToPort":70000}"#).as_bytes()),
            &["SecurityGroups[0].IpPermissions[0]", "ToPort 70000"],
        ),
        (
            write("net.json", group(r#"{"IpProtocol":"-1","IpRanges":[{"CidrIp":"10.0.0.0/64"}]}"#).as_bytes()),
            &["SecurityGroups[0].IpPermissions[0].IpRanges[0].CidrIp", "10.0.0.0/64", "expected 10.0.0.0/16"],
        ),
        (write("entries.json", &std::fs::read(list).expect("reads")), &["--prefix-list ID=FILE"]),
    ] {
        let path: &Path = &path;
        let name = path.to_str().expect("UTF-8");
        let output = explain(&[name], "--source-groups sg-a --dest 10.0.0.1 --protocol tcp --port 1");
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(3), ""), "{said}");
        assert!(said.starts_with(&format!("sekisho: {name}: ")), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
    // More than is read, without writing that much.
    let large = directory.path().join("large.json");
    std::fs::File::create(&large).expect("creates").set_len(64 * 1024 * 1024 + 1).expect("grows");
    let output =
        explain(&[large.to_str().expect("UTF-8")], "--source-groups sg-a --dest 10.0.0.1 --protocol tcp --port 1");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("more than 64 MiB"), "{}", text(&output.stderr));
}
