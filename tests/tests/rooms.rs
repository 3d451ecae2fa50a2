//! Which room may use which, and which foreign crates live where.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// The arrows between rooms: every package with what it may use of ours when it is built.
const ARROWS: [(&str, &[&str]); 19] = [
    ("coda-random", &[]),
    ("coda-hlo", &[]),
    ("coda-manifests", &[]),
    ("coda-cli", &[]),
    ("coda-shards", &["coda-manifests", "coda-random"]),
    ("coda-ingest", &["coda-cli", "coda-manifests", "coda-shards"]),
    ("coda-curriculum", &["coda-manifests", "coda-random"]),
    ("coda-stages", &["coda-curriculum", "coda-manifests"]),
    (
        "coda-curriculum-cli",
        &["coda-cli", "coda-curriculum", "coda-manifests", "coda-shards", "coda-stages"],
    ),
    ("coda-pjrt", &[]),
    ("coda-cuda", &["coda-shards"]),
    ("coda-cuda-emulator", &[]),
    ("coda-sandbox", &[]),
    (
        "coda-trainer",
        &[
            "coda-cli",
            "coda-cuda",
            "coda-curriculum",
            "coda-hlo",
            "coda-manifests",
            "coda-pjrt",
            "coda-pjrt",
            "coda-random",
            "coda-sandbox",
            "coda-shards",
            "coda-stages",
        ],
    ),
    ("coda-serve", &["coda-cli", "coda-trainer"]),
    ("coda-tests", &[]),
    ("coda-bench-ingest", &["coda-ingest", "coda-manifests", "coda-shards"]),
    ("coda-benches", &["coda-random", "coda-shards", "coda-trainer"]),
    ("xtask", &["coda-cli"]),
];

/// Foreign crates that only some rooms may name, by the start of the crate's name.
const CONFINED: [(&str, &[&str]); 19] = [
    ("polars", &["coda-ingest"]),
    ("tikv-jemalloc", &["coda-ingest"]),
    ("arrow2", &["coda-shards"]),
    ("dfdx", &["coda-trainer"]),
    ("gemm", &["coda-trainer"]),
    ("cudarc", &["coda-cuda"]),
    ("landlock", &["coda-sandbox"]),
    ("libloading", &["coda-cuda", "coda-cuda-emulator", "coda-pjrt"]),
    ("prost", &["coda-pjrt"]),
    ("tokenizers", &["coda-curriculum-cli", "coda-ingest", "coda-trainer"]),
    ("indicatif", &["coda-cli", "coda-ingest"]),
    ("object_store", &["coda-ingest"]),
    ("reqwest", &["coda-ingest"]),
    ("ring", &["coda-ingest"]),
    ("rustls", &["coda-ingest"]),
    ("seccompiler", &["coda-sandbox"]),
    ("tokio", &["coda-ingest", "coda-serve"]),
    ("axum", &["coda-serve"]),
    ("hyper", &["coda-serve"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .no_deps()
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("metadata")
}

/// What a package names in `[dependencies]`, without dev- and build-dependencies.
fn used(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
}

#[test]
fn rooms_use_only_the_rooms_that_the_design_allows() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "a room that the table does not know");
    for package in &metadata.packages {
        let arrows: BTreeSet<&str> = used(package).filter(|name| ours.contains(name)).collect();
        let allowed: BTreeSet<&str> = allowed[package.name.as_str()].iter().copied().collect();
        let new: Vec<_> = arrows.difference(&allowed).collect();
        assert!(new.is_empty(), "{} has new arrows to {new:?}", package.name);
    }
}

#[test]
fn heavy_crates_stay_in_their_room() {
    for package in &metadata().packages {
        for name in used(package) {
            for (start, rooms) in CONFINED {
                let allowed = !name.starts_with(start) || rooms.contains(&package.name.as_str());
                assert!(allowed, "{} may not use {name}", package.name);
            }
        }
    }
}

#[test]
fn arrow2_stays_in_one_module_of_shards() {
    let shards = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shards/src");
    let (mut naming, mut folders) = (Vec::new(), vec![shards.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).expect("text").contains("arrow2::") {
                let name = path.strip_prefix(&shards).expect("below");
                naming.push(name.to_string_lossy().into_owned());
            }
        }
    }
    naming.sort();
    assert_eq!(naming, ["arrow/mod.rs", "arrow/stream.rs"]);
}

/// `cargo build` after `cargo test` compiles nothing anew only while the tests' own dependencies ask no more
/// of a shared crate than the programs do.
#[test]
fn programs_and_tests_want_the_same_features_of_shared_crates() {
    // A package may be there twice: what runs while building has features of its own.
    let features = |kinds: &str| -> BTreeSet<String> {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--workspace", "--prefix", "none"])
            .args(["--format", "{p} {f}", "--edges", kinds])
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let lines = String::from_utf8(tree.stdout).expect("text");
        lines.lines().map(|line| line.trim_end_matches(" (*)").trim_end().to_owned()).collect()
    };
    let (programs, tests) = (features("normal,build"), features("normal,build,dev"));
    assert!(programs.len() > 100, "the tree was read");
    let other: Vec<&String> = programs.difference(&tests).collect();
    assert!(
        other.is_empty(),
        "tests want other features of {other:?}: name them in the root Cargo.toml"
    );
}
