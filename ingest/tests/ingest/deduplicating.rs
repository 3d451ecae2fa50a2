//! Near duplicates against exact similarities, and the state that can be taken back and read again.

use coda_ingest::{
    dedup::{Deduper, Marker, Marks, Verdict},
    words::Words,
};
use coda_manifests::{Dedup, DedupScope, Near};
use proptest::prelude::*;
use std::{collections::BTreeSet, path::Path};

fn keys(near: Option<Near>) -> Dedup {
    // The smallest tables: runs on disk from the first hundreds of documents on.
    Dedup { exact: true, scope: DedupScope::All, near, memory: 1 << 20 }
}

fn near(threshold: f64) -> Near {
    Near { threshold, ngram: 2, bands: 40, rows: 4, seed: 3 }
}

fn marks(marker: &Marker, text: &str) -> Marks {
    marker.marks(text, &mut Words::default())
}

/// Texts of 60 words, each a variant of one of `families`, with some words changed.
fn texts(count: u64, families: u64) -> Vec<String> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut roll = move |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % most
    };
    (0..count)
        .map(|_| {
            let family = roll(families);
            let changes = roll(12);
            let changed: BTreeSet<u64> = (0..changes).map(|_| roll(60)).collect();
            let mut word = |at: u64| {
                if changed.contains(&at) {
                    format!("x{}", roll(1 << 40))
                } else {
                    format!("f{family}w{at}")
                }
            };
            (0..60).map(&mut word).collect::<Vec<String>>().join(" ")
        })
        .collect()
}

fn pairs(text: &str) -> BTreeSet<(&str, &str)> {
    let words: Vec<&str> = text.split(' ').collect();
    words.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

fn jaccard(a: &str, b: &str) -> f64 {
    let (a, b) = (pairs(a), pairs(b));
    a.intersection(&b).count() as f64 / a.union(&b).count() as f64
}

/// Every decision is right up to the error of the estimate: 160 bins give a standard deviation of 4 %
/// at most.
#[test]
fn decisions_are_those_of_exact_similarity() {
    const THRESHOLD: f64 = 0.6;
    let folder = tempfile::tempdir().expect("a folder");
    let keys = keys(Some(near(THRESHOLD)));
    let dedup = Deduper::open(folder.path(), &keys).expect("opens");
    let marker = Marker::new(&keys);
    let texts = texts(600, 40);
    let mut kept: Vec<usize> = Vec::new();
    let (mut near, mut errors) = (0, 0.0);
    for (index, text) in texts.iter().enumerate() {
        let (ordinal, verdict) = dedup.decide(&marks(&marker, text), 0).expect("decides");
        assert_eq!(ordinal, index as u64 + 1);
        let most = kept.iter().map(|&other| jaccard(text, &texts[other])).fold(0.0, f64::max);
        let place = |first: u64| usize::try_from(first).expect("small") - 1;
        match verdict {
            Verdict::New => {
                assert!(most < THRESHOLD + 0.16, "{most} was not found");
                kept.push(index);
            }
            Verdict::Exact { first } => assert_eq!(texts[place(first)], *text),
            Verdict::Near { first, similarity } => {
                assert!(kept.contains(&place(first)), "the first is one that was taken in");
                let truth = jaccard(text, &texts[place(first)]);
                assert!((truth - similarity).abs() < 0.16, "{similarity} estimated, {truth} true");
                errors += truth - similarity;
                near += 1;
            }
        }
    }
    assert!(near > 200 && kept.len() > 60, "{near} near duplicates, {} kept", kept.len());
    assert!((errors / f64::from(near)).abs() < 0.02, "the estimates are {errors} off in all");
}

#[test]
fn exact_duplicates_are_found_in_all_sources_or_in_one() {
    for (scope, expected) in
        [(DedupScope::All, Verdict::Exact { first: 1 }), (DedupScope::Source, Verdict::New)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Dedup { scope, ..keys(Some(near(0.9))) };
        let dedup = Deduper::open(folder.path(), &keys).expect("opens");
        let marker = Marker::new(&keys);
        let decide =
            |text: &str, source| dedup.decide(&marks(&marker, text), source).expect("decides").1;
        assert_eq!(decide("one text", 0), Verdict::New);
        assert_eq!(decide("one text", 1), expected, "{scope:?}");
        assert_eq!(decide("one text", 0), Verdict::Exact { first: 1 });
        // The same words in another dress.
        assert_eq!(decide("One, text!", 0), Verdict::Near { first: 1, similarity: 1.0 });
        // Texts without words are compared whole.
        assert_eq!(decide("...", 0), Verdict::New);
        assert_eq!(decide("..", 0), Verdict::New);
    }
}

fn decide_all(dedup: &Deduper, marks: &[Marks]) -> Vec<Verdict> {
    marks.iter().map(|marks| dedup.decide(marks, 0).expect("decides").1).collect()
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    entries.map(|e| if e.path().is_dir() { files(&e.path()) } else { 1 }).sum()
}

/// Enough documents that tables are written and merged; stopped, read again and taken back anywhere,
/// the decisions after it are the same.
#[test]
fn the_state_goes_back_to_any_document_and_stays_in_its_memory() {
    let keys = keys(Some(near(0.7)));
    let marker = Marker::new(&keys);
    let marks: Vec<Marks> = texts(6000, 3000).iter().map(|text| marks(&marker, text)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let dedup = Deduper::open(folder.path(), &keys).expect("opens");
    let mut verdicts = Vec::new();
    for batch in marks.chunks(100) {
        verdicts.extend(decide_all(&dedup, batch));
        assert!(dedup.memory() <= keys.memory, "{} bytes", dedup.memory());
    }
    assert!(files(folder.path()) > 5, "something was written");
    dedup.flush().expect("written");
    assert_eq!(dedup.decided(), 6000);
    drop(dedup);
    for back in [5999, 4321, 4320, 777, 1, 0] {
        let dedup = Deduper::open(folder.path(), &keys).expect("opens");
        dedup.resume(back).expect("goes back");
        let from = usize::try_from(back).expect("small");
        assert!(decide_all(&dedup, &marks[from..]) == verdicts[from..], "after {back}");
        dedup.flush().expect("written");
    }
    let dedup = Deduper::open(folder.path(), &keys).expect("opens");
    let error = dedup.resume(6001).expect_err("it does not know so many");
    assert!(error.to_string().contains("6000"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Every document is new or has the text of the first document with it, as a map says.
    #[test]
    fn exact_duplicates_are_those_of_a_map(numbers in prop::collection::vec(0_u32..30, 0..80)) {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = keys(None);
        let dedup = Deduper::open(folder.path(), &keys).expect("opens");
        let marker = Marker::new(&keys);
        let mut firsts = std::collections::HashMap::new();
        for (ordinal, number) in (1..).zip(numbers) {
            let text = format!("text {number}");
            let first = *firsts.entry(number).or_insert(ordinal);
            let expected = if first == ordinal { Verdict::New } else { Verdict::Exact { first } };
            let decided = dedup.decide(&marks(&marker, &text), 0).expect("decides");
            prop_assert_eq!(decided, (ordinal, expected));
        }
    }
}
