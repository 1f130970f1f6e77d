//! Each rule finds what it should and nothing else.

use super::super::fixture::{shown, tree};
use super::*;

#[test]
fn parts_do_not_name_each_other() {
    let wrong = [
        ("agent/src/kernel/rings.rs", "use crate::cluster::Pods;"),
        ("agent/src/node.rs", "fn f() { crate::aws::ask() }"),
        ("agent/src/api/socket.rs", "use crate::{api::x, history::{Store}};"),
        ("agent/src/export/mod.rs", "use super::telemetry::Metrics;"),
        ("agent/src/http/server.rs", "mod tests { use super::super::super::kernel; }"),
        ("agent/src/telemetry.rs", "use crate::*;"),
    ];
    for (path, text) in wrong {
        assert_eq!(direction(&tree(&[(path, text)])).len(), 1, "{path}: {text}");
    }
    let right = [
        (
            "agent/src/kernel/rings.rs",
            "use crate::kernel::maps; use super::maps; use agent_core::Input; use crate::config;",
        ),
        ("agent/src/kernel/load.rs", "mod tests { use super::*; use super::super::maps; }"),
        ("agent/src/tasks/engine.rs", "use crate::{kernel, cluster};"),
        ("agent/src/main.rs", "mod kernel; mod command; fn main() { command::run() }"),
    ];
    assert_eq!(shown(&direction(&tree(&right))), [""; 0]);
}

#[test]
fn knowledge_goes_upwards_only() {
    let wrong = [
        ("agent/src/kernel.rs", "use crate::tasks::Stop;"),
        ("agent/src/tasks.rs", "use crate::command::Arguments;"),
        ("agent/src/command/run.rs", "fn f() { crate::main() }"),
        ("agent/src/config.rs", "use crate::kernel::Options;"),
    ];
    for (path, text) in wrong {
        assert_eq!(direction(&tree(&[(path, text)])).len(), 1, "{path}: {text}");
    }
    let right = [("agent/src/command/run.rs", "use crate::tasks; use crate::kernel; use crate::config;")];
    assert_eq!(shown(&direction(&tree(&right))), [""; 0]);
}

#[test]
fn a_violation_says_where_and_why() {
    let found = direction(&tree(&[("agent/src/kernel.rs", "//! Doc.\n\nuse crate::api::Socket;")]));
    assert_eq!(
        shown(&found),
        [
            "agent/src/kernel.rs:3: `kernel` names `api`: parts never name each other: let them meet in `tasks` through core's types"
        ]
    );
}

#[test]
fn foreign_crates_have_one_owner() {
    let wrong = [
        ("agent/src/tasks.rs", "fn f(e: aya::Ebpf) {}"),
        ("agent/src/node.rs", "use aya_log::EbpfLogger;"),
        ("agent/src/api.rs", "use prometheus_client::registry::Registry;"),
        ("agent/src/main.rs", "use kube;"),
        ("agent/src/cluster.rs", "fn f() { aws_sdk_ec2::Client::new() }"),
        ("agent/src/export.rs", "#[cfg(test)] mod tests { use rusqlite::Connection; }"),
    ];
    for (path, text) in wrong {
        assert_eq!(foreign_worlds(&tree(&[(path, text)])).len(), 1, "{path}: {text}");
    }
    let right = [
        ("agent/src/kernel/object.rs", "static A: &[u8] = aya::include_bytes_aligned!(\"x\");"),
        ("agent/src/telemetry/flows.rs", "use prometheus_client::registry::Registry;"),
        ("agent/src/aws.rs", "use aws_sdk_ec2::Client;"),
        ("agent/src/node.rs", "use ayala::x; fn f() { crate::telemetry_like::aya() }"),
        ("xtask/src/main.rs", "use aya::Ebpf;"),
    ];
    assert_eq!(shown(&foreign_worlds(&tree(&right))), [""; 0]);
}

#[test]
fn the_core_depends_on_no_world() {
    let manifest = |text| core_is_pure(&tree(&[("agent/core/Cargo.toml", text)])).len();
    assert_eq!(manifest("[dependencies]\ntokio.workspace = true\nprometheus-client = \"1\"\nserde = \"1\"\n"), 2);
    assert_eq!(manifest("[dependencies]\nserde = \"1\"\n[dev-dependencies]\ntokio = \"1\"\n"), 0);
    assert_eq!(manifest("[dependencies"), 1);
}

#[test]
fn the_core_names_no_clock_file_or_socket() {
    let count = |path, text| core_is_pure(&tree(&[(path, text)])).len();
    for wrong in [
        "use std::time::Instant;",
        "use std::time;",
        "use std::time::*;",
        "use std::{fs, fmt};",
        "fn f() { std::fs::read(x); }",
        "use std::net::{IpAddr, TcpStream};",
        "fn f() { jiff::Timestamp::now() }",
        "fn f() { Timestamp::now() }",
        "fn f() { std::env::var(x); }",
    ] {
        assert_eq!(count("agent/core/src/a.rs", wrong), 1, "{wrong}");
    }
    for right in [
        "use std::time::Duration;",
        "use std::net::{IpAddr, Ipv4Addr};",
        "use std::fmt;",
        "use jiff::Timestamp;",
        "#[cfg(test)] mod tests { use std::fs; }",
    ] {
        assert_eq!(count("agent/core/src/a.rs", right), 0, "{right}");
    }
    assert_eq!(count("agent/core/src/a/tests.rs", "use std::fs;"), 0);
    assert_eq!(count("agent/src/a.rs", "use std::fs;"), 0);
}
