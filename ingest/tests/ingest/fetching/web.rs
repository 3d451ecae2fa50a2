//! Files of the web: every fault on the way, and that what arrives is what was listed.

use super::{
    content, fetch, fetcher, files_below, list,
    server::{Fault, Page, Server},
};
use coda_ingest::fetch::{FetchError, Problem};
use proptest::prelude::*;
use std::fs;

const LENGTH: usize = 700_000;

fn problem(error: FetchError) -> Problem {
    match error {
        FetchError::Remote { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Status(500, None)),
        Just(Fault::Status(503, Some(0))),
        Just(Fault::Status(429, None)),
        (0..LENGTH).prop_map(Fault::Cut),
        Just(Fault::IgnoreRange),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_arrives_through_faults_that_pass(faults in prop::collection::vec(fault(), 0..4)) {
        let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
        let whole = content(LENGTH);
        server.page("/a/x.jsonl.zst", Page::File(whole.clone(), "v1"));
        let fetcher = fetcher(cache.path());
        let found = list(&fetcher, &server.url("/a/x.jsonl.zst")).expect("listed");
        prop_assert_eq!((found.len(), found[0].bytes), (1, LENGTH as u64));
        server.faults(&faults);
        fetch(&fetcher, &found).expect("fewer faults than attempts");
        prop_assert_eq!(fs::read(&found[0].path).expect("there"), whole);
        prop_assert!(found[0].path.ends_with("x.jsonl.zst"), "decoders go by the name");
        let left = files_below(cache.path());
        prop_assert!(!left.iter().any(|name| name.contains(".part")), "{:?}", left);
        // It is there: no request is made again.
        server.requests();
        fetch(&fetcher, &found).expect("in the cache");
        prop_assert!(server.requests().is_empty());
    }
}

#[test]
fn a_stalled_connection_is_given_up_and_taken_up_where_it_stalled() {
    let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
    let whole = content(LENGTH);
    server.page("/x.gz", Page::File(whole.clone(), "v1"));
    let fetcher = fetcher(cache.path());
    let found = list(&fetcher, &server.url("/x.gz")).expect("listed");
    server.requests();
    server.faults(&[Fault::Stall(300_000), Fault::Stall(0), Fault::Cut(100_000)]);
    fetch(&fetcher, &found).expect("arrives");
    assert_eq!(fs::read(&found[0].path).expect("there"), whole);
    let ranges: Vec<Option<String>> =
        server.requests().iter().map(|r| r.headers.get("range").cloned()).collect();
    let from = |start: u32| Some(format!("bytes={start}-"));
    assert_eq!(ranges, [None, from(300_000), from(300_000), from(400_000)]);
}

#[test]
fn a_later_run_takes_up_what_an_earlier_one_left() {
    let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
    let whole = content(LENGTH);
    server.page("/x.gz", Page::File(whole.clone(), "v1"));
    let first = fetcher(cache.path());
    let found = list(&first, &server.url("/x.gz")).expect("listed");
    let no = Fault::Status(500, None);
    server.faults(&[Fault::Cut(200_000), no.clone(), no.clone(), no]);
    let error = fetch(&first, &found).expect_err("too many faults");
    assert!(error.hint().is_some_and(|hint| hint.contains("goes on")), "{error}");
    assert!(!error.is_usage() && !found[0].path.exists());
    drop(first);
    server.requests();
    let second = fetcher(cache.path());
    assert_eq!(list(&second, &server.url("/x.gz")).expect("listed"), found);
    fetch(&second, &found).expect("arrives");
    assert_eq!(fs::read(&found[0].path).expect("there"), whole);
    assert_eq!(server.requests()[1].headers["range"], "bytes=200000-");
}

#[test]
fn another_version_is_never_mixed_in() {
    for fault in [Fault::OtherTag, Fault::OtherSize] {
        let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
        server.page("/x.gz", Page::File(content(LENGTH), "v1"));
        let fetcher = fetcher(cache.path());
        let found = list(&fetcher, &server.url("/x.gz")).expect("listed");
        server.faults(&[Fault::Cut(300_000), fault.clone()]);
        let error = fetch(&fetcher, &found).expect_err("another version");
        assert!(error.hint().is_some_and(|hint| hint.contains("anew")), "{fault:?}: {error}");
        assert!(matches!(problem(error), Problem::Changed(_)), "{fault:?}");
        let left = files_below(&cache.path().join("files"));
        assert!(left.is_empty(), "{fault:?}: {left:?}");
        // Listed anew, the other version is another file.
        let other = content(LENGTH + 1);
        server.page("/x.gz", Page::File(other.clone(), "v2"));
        let again = list(&fetcher, &server.url("/x.gz")).expect("listed");
        assert_ne!(again[0].path, found[0].path);
        fetch(&fetcher, &again).expect("arrives");
        assert_eq!(fs::read(&again[0].path).expect("there"), other);
    }
}

#[test]
fn without_a_tag_nothing_is_taken_up() {
    let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
    let whole = content(LENGTH);
    server.page("/x.txt", Page::Plain(whole.clone()));
    let fetcher = fetcher(cache.path());
    let found = list(&fetcher, &server.url("/x.txt")).expect("listed");
    assert_eq!((found[0].bytes, &found[0].origin.version), (LENGTH as u64, &None));
    let no = Fault::Status(500, None);
    server.faults(&[Fault::Cut(1000), no.clone(), no.clone(), no]);
    fetch(&fetcher, &found).expect_err("too many faults");
    server.requests();
    fetch(&fetcher, &found).expect("arrives");
    assert!(!server.requests()[0].headers.contains_key("range"), "from its start");
    assert_eq!(fs::read(&found[0].path).expect("there"), whole);
}

#[test]
fn what_lasts_is_told_at_once() {
    let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
    server.page("/x.gz", Page::File(content(10), "v1"));
    server.page("/away", Page::Redirect("http://192.0.2.1/x.gz".to_owned()));
    let fetcher = fetcher(cache.path());
    let error = list(&fetcher, &server.url("/none?token=open-sesame")).expect_err("404");
    assert!(error.is_usage() && !error.to_string().contains("sesame"), "{error}");
    assert_eq!(problem(error), Problem::Gone);
    let found = list(&fetcher, &server.url("/x.gz")).expect("listed");
    for status in [401, 403, 400] {
        server.requests();
        server.faults(&[Fault::Status(status, None)]);
        let error = problem(fetch(&fetcher, &found).expect_err("refused"));
        let expected = match status {
            400 => matches!(error, Problem::Lasting(_)),
            _ => matches!(error, Problem::Refused(_)),
        };
        assert!(expected, "{status}: {error}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
    // A server that wants minutes is not waited for.
    server.faults(&[Fault::Status(503, Some(100_000))]);
    assert!(matches!(problem(fetch(&fetcher, &found).expect_err("busy")), Problem::Passing { .. }));
    let error = list(&fetcher, &server.url("/away")).expect_err("not encrypted");
    assert!(matches!(problem(error), Problem::Lasting(_)));
    let error = list(&fetcher, "http://192.0.2.1/x.gz").expect_err("not encrypted");
    assert!(error.to_string().contains("allow_http"), "{error}");
}

#[test]
fn an_empty_file_is_a_file() {
    let (server, cache) = (Server::start(), tempfile::tempdir().expect("a folder"));
    server.page("/empty.jsonl", Page::File(Vec::new(), "v1"));
    let fetcher = fetcher(cache.path());
    let found = list(&fetcher, &server.url("/empty.jsonl")).expect("listed");
    assert_eq!(fetch(&fetcher, &found).expect("arrives"), 0);
    assert_eq!(fs::metadata(&found[0].path).expect("there").len(), 0);
}
