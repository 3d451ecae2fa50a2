//! Presets are keys and nothing else.

use coda_manifests::{Format, Keep, Manifest, ManifestError, Preset, Scalar, presets};
use std::path::{Path, PathBuf};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("x.yaml")
}

/// A manifest with one source of these keys.
fn load(source: &str, overrides: &[&str]) -> Result<Manifest, ManifestError> {
    let stage = if source.contains("-sft-") || source.contains("sft") { "post" } else { "pre" };
    let yaml = format!(
        "version: 1\nname: x\nstage: {stage}\ntokenizer: {{path: t.json}}\ndata:\n  out: shards\n  \
         row_length: 64\n  sources:\n    - {{name: a, paths: [a], {source}}}\n"
    );
    Manifest::from_yaml(&yaml, &here(), overrides, &[])
}

fn refused(source: &str) -> String {
    let error = load(source, &[]).expect_err(source);
    assert!(error.is_usage());
    format!("{error}; {}", error.hint().unwrap_or_default())
}

#[test]
fn a_preset_is_the_same_as_its_keys_written_out() {
    assert!(presets().is_sorted_by_key(|preset| preset.name));
    for preset in presets() {
        let short = load(&format!("preset: {}", preset.name), &[]).expect(preset.name);
        let keys = &preset.keys[1..preset.keys.len() - 1];
        let mut long = load(keys, &[]).expect(preset.name);
        assert_eq!(short.hash(), long.hash(), "{}", preset.name);
        long.data.sources[0].preset = Some(preset.name.to_owned());
        assert_eq!(short, long);

        let again = short.to_resolved_yaml();
        let again = Manifest::from_yaml(&again, &here(), &[] as &[&str], &[]).expect(&again);
        assert_eq!(again, short);
        assert!(preset.expansion().is_object() && !preset.to_yaml().is_empty());
        assert!(preset.published.paths.contains("://"));
    }
}

#[test]
fn what_the_source_says_itself_counts() {
    let manifest = load("preset: wikipedia, format: jsonl, license: mine", &[]).expect("fine");
    let source = &manifest.data.sources[0];
    assert_eq!((source.format, source.license.as_deref()), (Format::Jsonl, Some("mine")));
    assert_eq!(source.text_field, "text");

    // Also on the command line, and also to take a key away.
    let keep = "data.sources.0.keep={language: [C]}";
    let python = "preset: the-stack-v2-python, text_field: content";
    let manifest = load(python, &[keep]).expect("fine");
    let wanted = Keep::OneOf(vec![Scalar::Text("C".to_owned())]);
    let found = manifest.data.sources[0].keep.clone().expect("set");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("language".to_owned(), wanted)]);
    for (source, key) in [
        (python, "data.sources.0.keep="),
        ("preset: opc-sft-stage1", "data.sources.0.exclude=[]"),
        ("preset: deepmind-mathematics", "data.sources.0.members="),
    ] {
        let manifest = load(source, &[key]).expect("fine");
        let yaml = manifest.to_resolved_yaml();
        let again = Manifest::from_yaml(&yaml, &here(), &[] as &[&str], &[]).expect(&yaml);
        assert_eq!(again, manifest, "taken away stays away:\n{yaml}");
    }
    assert_eq!(load(python, &["data.sources.0.keep="]).expect("fine").data.sources[0].keep, None);
    // A column with the text makes blobs needless; of blobs, single keys may be given.
    assert_eq!(load(python, &[]).expect("fine").data.sources[0].blobs, None);
    let other = load("preset: the-stack-v2-python, blobs: {store: /swh}", &[]).expect("fine");
    let blobs = other.data.sources[0].blobs.clone().expect("kept");
    assert_eq!((&*blobs.store, blobs.encoding.as_deref()), ("/swh", Some("src_encoding")));
    assert!(Preset::named("wikipedia").is_some());
}

#[test]
fn unknown_presets_and_contradictions_are_named() {
    let message = refused("preset: wikipedai");
    assert!(
        message.contains("data.sources.0.preset") && message.contains("`wikipedia`"),
        "{message}"
    );
    for (source, key) in [
        ("format: text, keep: {a: [b]}", "keep"),
        ("format: code, text_template: '{a}'", "text_template"),
        ("format: code, unnest: {list: a}", "unnest"),
        ("format: jsonl, drop_generated: false", "drop_generated"),
        ("text_template: '{a}', text_field: b", "text_template"),
        ("text_template: a", "text_template"),
        ("text_template: '{a}', blobs: {store: s}", "blobs"),
        ("kind: sft, text_template: '{a}'", "text_template"),
        ("unnest: {list: ''}", "unnest.list"),
        ("unnest: {lists: a}", "unnest.lists"),
        ("keep: {a: []}", "keep.a"),
        ("keep: {a: {}}", "keep.a"),
        ("keep: {a: {min: 3, max: 2}}", "keep.a"),
        ("keep: {a: b}", "keep.a"),
        ("keep: {a: {most: 3}}", "keep.a"),
        ("transforms: [crlf]", "transforms"),
    ] {
        let message = refused(source);
        assert!(message.contains(&format!("data.sources.0.{key}")), "{source}: {message}");
    }
}

#[test]
fn what_a_manifest_did_not_say_before_does_not_change_its_hash() {
    let plain = load("license: x", &[]).expect("fine").hash();
    assert_ne!(load("license: x, transforms: [lf]", &[]).expect("fine").hash(), plain);
    assert_ne!(load("license: x, keep: {a: [b]}", &[]).expect("fine").hash(), plain);
    assert_ne!(load("license: x, drop_vendored: false", &[]).expect("fine").hash(), plain);
}
