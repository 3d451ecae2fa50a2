//! Every manifest that ships loads, says what the report says, and survives a round trip.

use coda_manifests::{Manifest, Profile, Stage};
use std::path::{Path, PathBuf};

const NONE: &[&str] = &[];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in [folder(), folder().join("quickstart")] {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")));
    }
    files.sort();
    files
}

fn load(path: &Path) -> Manifest {
    match Manifest::load(path, NONE, &[]) {
        Ok(manifest) => manifest,
        Err(error) => panic!("{error}\nhint: {:?}", error.hint()),
    }
}

#[test]
fn every_shipped_manifest_loads_and_its_paths_resolve() {
    let files = shipped();
    assert_eq!(files.len(), 7, "{files:?}");
    for file in files {
        let manifest = load(&file);
        let mut paths = vec![&manifest.tokenizer.path, &manifest.data.out];
        paths.extend(&manifest.train.out);
        paths.extend(manifest.model.as_ref().and_then(|model| model.init.as_ref()));
        for path in paths {
            manifest.resolve(path).unwrap();
        }
        for glob in manifest.data.sources.iter().flat_map(|source| &source.paths) {
            manifest.roots().resolve_glob(glob).unwrap();
        }
    }
}

#[test]
fn resolved_yaml_loads_to_the_same_manifest() {
    for file in shipped() {
        let manifest = load(&file);
        let yaml = manifest.to_resolved_yaml();
        let again = Manifest::from_yaml(&yaml, &file, NONE, &[])
            .unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(again, manifest);
        assert_eq!(again.hash(), manifest.hash());
    }
}

fn tokens(name: &str) -> Vec<(String, u64)> {
    let manifest = load(&folder().join(name));
    let budget = |tokens: Option<coda_manifests::TokenCount>| tokens.map_or(0, |tokens| tokens.0);
    manifest.data.sources.iter().map(|s| (s.name.clone(), budget(s.tokens))).collect()
}

/// Method §5: data in billions of tokens.
#[test]
fn the_mixes_are_the_published_ones() {
    let million = 1_000_000;
    let named = |list: &[(&str, u64)]| {
        list.iter().map(|(name, tokens)| ((*name).to_owned(), tokens * million)).collect::<Vec<_>>()
    };
    let pre = [
        ("dclm-baseline-1.0", 60_170),
        ("the-stack-v2-python", 50_750),
        ("the-stack-v2-train-smol", 38_220),
        ("open-web-math", 12_980),
        ("redpajama-arxiv", 9_180),
        ("wikipedia-en", 5_410),
        ("deepmind-mathematics", 3_240),
    ];
    assert_eq!(tokens("pretrain.yaml"), named(&pre));
    let mid = [
        ("redpajama-arxiv", 9_180),
        ("gutenberg-english", 3_240),
        ("smollm-python-edu", 1_880),
        ("opc-annealing-corpus", 6_470),
        ("the-stack-v2-python", 200),
    ];
    assert_eq!(tokens("midtrain.yaml"), named(&mid));
}

#[test]
fn the_full_manifests_follow_the_paper() {
    for (name, stage, row_length) in [
        ("pretrain.yaml", Stage::Pre, 8192),
        ("midtrain.yaml", Stage::Mid, 8192),
        ("posttrain.yaml", Stage::Post, 1024),
        ("posttrain-stage2.yaml", Stage::Post, 1024),
    ] {
        let manifest = load(&folder().join(name));
        assert_eq!((manifest.stage, manifest.profile), (stage, Profile::CodaPaper), "{name}");
        assert_eq!(manifest.data.row_length, row_length, "{name}");
    }
}
