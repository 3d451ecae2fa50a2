//! Nothing outside the allowed roots is opened.

use coda_manifests::{Manifest, PathError, Roots};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `home/manifests` is the manifest's folder; `home/outside/secret` must stay closed.
fn home() -> (TempDir, PathBuf, Roots) {
    let dir = TempDir::new().unwrap();
    let home = dir.path().canonicalize().unwrap();
    for folder in ["manifests/data", "outside", "manifests-too"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    for file in ["outside/secret", "manifests/data/a.jsonl", "manifests-too/b"] {
        fs::write(home.join(file), "x").unwrap();
    }
    let roots = Roots::new(&home.join("manifests")).unwrap();
    (dir, home, roots)
}

fn outside(result: &Result<PathBuf, PathError>) -> bool {
    matches!(result, Err(PathError::Outside { .. }))
}

#[test]
fn paths_inside_resolve_whether_they_exist_or_not() {
    let (_dir, home, roots) = home();
    let resolved = |text: &str| roots.resolve(text).unwrap();
    assert_eq!(resolved("data/a.jsonl"), home.join("manifests/data/a.jsonl"));
    assert_eq!(resolved("data/../data/./a.jsonl"), home.join("manifests/data/a.jsonl"));
    assert_eq!(resolved("new/deep/out"), home.join("manifests/new/deep/out"));
    assert_eq!(resolved("../manifests/new"), home.join("manifests/new"));
    let absolute = home.join("manifests/data");
    assert_eq!(resolved(absolute.to_str().unwrap()), absolute);
}

#[test]
fn paths_outside_are_refused() {
    let (_dir, home, roots) = home();
    let absolute = home.join("outside/secret");
    for text in ["../outside/secret", "data/../../outside", "..", "/etc/passwd", "/"] {
        assert!(outside(&roots.resolve(text)), "{text}");
    }
    assert!(outside(&roots.resolve(absolute.to_str().unwrap())));
    // A name that begins like a root is not inside it.
    assert!(outside(&roots.resolve("../manifests-too/b")));
}

#[test]
fn malformed_paths_are_refused() {
    let (_dir, _home, roots) = home();
    for text in ["", "a\0b", "new/../../outside/secret", "new/../x"] {
        let error = roots.resolve(text).unwrap_err();
        assert!(matches!(error, PathError::Malformed { .. }), "{text:?}: {error}");
        assert!(error.hint().is_some() && error.is_usage());
    }
    let long = "x".repeat(5000);
    assert!(matches!(roots.resolve(&long), Err(PathError::LookUp { .. })));
}

#[test]
fn links_lead_nowhere_outside() {
    let (_dir, home, roots) = home();
    let link =
        |target: &str, name: &str| symlink(target, home.join("manifests").join(name)).unwrap();
    link("../outside", "folder");
    link("../outside/secret", "file");
    link("/nonexistent/target", "dangling");
    link("data", "within");
    link("loop", "loop");
    assert!(outside(&roots.resolve("folder/secret")));
    assert!(outside(&roots.resolve("folder/new")));
    assert!(outside(&roots.resolve("file")));
    assert!(outside(&roots.admit(&home.join("manifests/file"))));
    assert!(roots.resolve("dangling").is_err());
    assert!(roots.resolve("dangling/x").is_err());
    assert!(roots.resolve("loop").is_err());
    // `..` after a link means the parent of its target, which the system would open.
    assert!(outside(&roots.resolve("folder/../manifests-too/b")));
    assert_eq!(roots.resolve("within/a.jsonl").unwrap(), home.join("manifests/data/a.jsonl"));
}

#[test]
fn globs_keep_their_pattern_and_stay_inside() {
    let (_dir, home, roots) = home();
    let resolved = |text: &str| roots.resolve_glob(text).unwrap();
    assert_eq!(resolved("data/**/*.jsonl"), home.join("manifests/data/**/*.jsonl"));
    assert_eq!(resolved("*.jsonl"), home.join("manifests/*.jsonl"));
    assert_eq!(resolved("data/a.jsonl"), home.join("manifests/data/a.jsonl"));
    assert!(outside(&roots.resolve_glob("../*/secret")));
    assert!(outside(&roots.resolve_glob("/etc/*")));
    for text in ["*/../../outside/secret", "data/{a,b}/../x", "", "a\0*"] {
        assert!(matches!(roots.resolve_glob(text), Err(PathError::Malformed { .. })), "{text:?}");
    }
}

#[test]
fn allowed_roots_and_paths_of_the_command_line_open_more() {
    let (_dir, home, _) = home();
    let file = home.join("manifests/m.yaml");
    let yaml = "
version: 1
name: m
stage: pre
tokenizer: {path: t.json}
data: {out: out, row_length: 8, sources: [{name: s, paths: [x.jsonl]}]}
";
    let none: &[&str] = &[];
    let load = |overrides: &[&str], allowed: &[PathBuf]| {
        Manifest::from_yaml(yaml, &file, overrides, allowed).unwrap()
    };
    assert_eq!(load(none, &[]).roots().base(), home.join("manifests"));
    assert!(outside(&load(none, &[]).resolve("../outside/secret")));
    let secret = home.join("outside/secret");
    assert_eq!(
        load(&["allowed_roots=[../outside]"], &[]).resolve("../outside/secret").unwrap(),
        secret
    );
    assert_eq!(
        load(none, std::slice::from_ref(&secret)).resolve("../outside/secret").unwrap(),
        secret
    );
    let mut manifest = load(none, &[]);
    manifest.allow(Path::new(&home.join("not-there-yet"))).unwrap();
    assert!(manifest.resolve("../not-there-yet/shards").is_ok());
    assert!(outside(&manifest.resolve("../outside/secret")));
}

/// Whatever is written, what resolves is inside, also after the system has followed it.
#[test]
fn whatever_resolves_is_inside() {
    let (_dir, home, roots) = home();
    symlink("../outside", home.join("manifests/folder")).unwrap();
    symlink("data", home.join("manifests/within")).unwrap();
    let part = prop::sample::select(vec![
        "..", ".", "data", "folder", "within", "new", "a.jsonl", "/", "*", "\0", "é", "",
    ]);
    let config = ProptestConfig { cases: 5000, failure_persistence: None, ..Default::default() };
    proptest!(config, |(parts in prop::collection::vec(part, 0..7))| {
        let text = parts.join("/");
        for resolved in [roots.resolve(&text), roots.resolve_glob(&text)].into_iter().flatten() {
            prop_assert!(resolved.starts_with(home.join("manifests")), "{text:?} -> {resolved:?}");
            if let Ok(real) = resolved.canonicalize() {
                prop_assert!(real.starts_with(home.join("manifests")));
            }
        }
    });
}
