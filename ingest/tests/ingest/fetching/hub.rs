//! The hub: its listing, its cache, its offline mode, and its token.

use super::{
    OPTIONS, content, fetch, files_below, list,
    server::{Fault, Page, Server},
};
use coda_ingest::fetch::{FetchError, Fetcher, Found, Problem};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::json;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_open-sesame";

struct Place {
    server: Server,
    folder: TempDir,
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn git_sum(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    hex(context.finish().as_ref())
}

fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    hex(context.finish().as_ref())
}

impl Place {
    /// A dataset with one large file, two small ones, and something to leave out.
    fn new() -> Self {
        let place =
            Self { server: Server::start(), folder: tempfile::tempdir().expect("a folder") };
        let large = content(400_000);
        let file = |path: &str, bytes: &[u8]| json!({"type": "file", "path": path, "size": bytes.len(), "oid": git_sum(bytes)});
        let mut lfs = file("data/b.jsonl.gz", b"a pointer");
        lfs["lfs"] = json!({"oid": sha256(&large), "size": large.len(), "pointerSize": 9});
        lfs["size"] = large.len().into();
        let tree = format!("/api/datasets/org/name/tree/{COMMIT}/data");
        let second = place.server.url(&format!("{tree}?recursive=true&cursor=2"));
        let first = json!([{"type": "directory", "path": "data/deep", "oid": "x", "size": 0}, lfs]);
        let rest = json!([file("data/a.jsonl", b"{}"), file("data/deep/c.jsonl", b"[]")]);
        let near = json!([file("data/a.jsonl", b"{}")]);
        let resolve = |path: &str| format!("/datasets/org/name/resolve/{COMMIT}/{path}");
        place
            .server
            .page(
                "/api/datasets/org/name/revision/main",
                Page::Json(json!({"sha": COMMIT}).to_string(), None),
            )
            .page(&format!("{tree}?recursive=true"), Page::Json(first.to_string(), Some(second)))
            .page(&format!("{tree}?recursive=true&cursor=2"), Page::Json(rest.to_string(), None))
            .page(&format!("{tree}?recursive=false"), Page::Json(near.to_string(), None))
            .page(&resolve("data/a.jsonl"), Page::File(b"{}".to_vec(), "a"))
            .page(&resolve("data/deep/c.jsonl"), Page::File(b"[]".to_vec(), "c"))
            .page(&resolve("data/b.jsonl.gz"), Page::Redirect(place.server.url("/cdn/b")))
            .page("/cdn/b", Page::File(large, "of the content network"));
        place
    }

    fn hub(&self) -> std::path::PathBuf {
        self.folder.path().join("hub")
    }

    fn fetcher(&self, more: &[(&str, &str)]) -> Fetcher {
        let mut env = BTreeMap::from([
            ("HF_ENDPOINT", self.server.url("")),
            ("HF_HUB_CACHE", self.hub().display().to_string()),
            ("HF_TOKEN", TOKEN.to_owned()),
        ]);
        env.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let own = self.folder.path().join("own");
        Fetcher::with_env(&own, OPTIONS, &|name| env.get(name).cloned()).expect("threads")
    }
}

fn names(found: &[Found]) -> Vec<String> {
    found.iter().map(|found| found.origin.address.to_string()).collect()
}

#[test]
fn a_pattern_is_listed_page_by_page_and_pinned_to_a_commit() {
    let place = Place::new();
    let fetcher = place.fetcher(&[]);
    let at = |path: &str| format!("hf://datasets/org/name@{COMMIT}/{path}");
    let all = list(&fetcher, "hf://datasets/org/name/data/**").expect("listed");
    assert_eq!(names(&all), [at("data/a.jsonl"), at("data/b.jsonl.gz"), at("data/deep/c.jsonl")]);
    let some = list(&fetcher, "hf://datasets/org/name@main/data/*.jsonl*").expect("listed");
    assert_eq!(names(&some), [at("data/a.jsonl"), at("data/b.jsonl.gz")]);
    let one = list(&fetcher, "hf://datasets/org/name/data/a.jsonl").expect("listed");
    assert_eq!(names(&one), [at("data/a.jsonl")]);
    let folder = list(&fetcher, "hf://datasets/org/name/data/").expect("listed");
    assert_eq!(names(&folder), names(&all));
    let error = list(&fetcher, "hf://datasets/org/name/data/*.parquet").expect_err("nothing");
    assert!(error.is_usage(), "{error}");
    let error = list(&fetcher, "hf://datasets/org/other/x").expect_err("no such dataset");
    assert!(error.is_usage(), "{error}");
}

#[test]
fn the_cache_is_the_one_of_the_python_library() {
    let place = Place::new();
    let fetcher = place.fetcher(&[]);
    let all = list(&fetcher, "hf://datasets/org/name/data/**").expect("listed");
    place.server.faults(&[Fault::Cut(100_000)]);
    fetch(&fetcher, &all).expect("arrives");
    let large = content(400_000);
    let mut expected = vec![
        format!("blobs/{}", git_sum(b"{}")),
        format!("blobs/{}", git_sum(b"[]")),
        format!("blobs/{}", sha256(&large)),
        "refs/main".to_owned(),
        format!("snapshots/{COMMIT}/data/a.jsonl"),
        format!("snapshots/{COMMIT}/data/b.jsonl.gz"),
        format!("snapshots/{COMMIT}/data/deep/c.jsonl"),
    ];
    expected.sort();
    let folder = place.hub().join("datasets--org--name");
    assert_eq!(files_below(&folder), expected);
    assert_eq!(fs::read_to_string(folder.join("refs/main")).expect("there"), COMMIT);
    let link = fs::read_link(folder.join(format!("snapshots/{COMMIT}/data/deep/c.jsonl")));
    let to = format!("../../../../blobs/{}", git_sum(b"[]"));
    assert_eq!(link.expect("a link"), Path::new(&to));
    assert_eq!(fs::read(&all[1].path).expect("through the link"), large);

    // A blob without its link, as after a download of another revision: nothing is fetched.
    fs::remove_file(&all[1].path).expect("removed");
    place.server.requests();
    fetch(&fetcher, &all).expect("there");
    assert!(place.server.requests().is_empty());
    assert_eq!(fs::read(&all[1].path).expect("linked again"), large);
}

#[test]
fn what_python_left_half_is_taken_up_and_a_wrong_content_is_not_taken() {
    let place = Place::new();
    let fetcher = place.fetcher(&[]);
    let all = list(&fetcher, "hf://datasets/org/name/data/*.gz").expect("listed");
    let large = content(400_000);
    let part = place
        .hub()
        .join("datasets--org--name/blobs")
        .join(format!("{}.incomplete", sha256(&large)));
    fs::create_dir_all(part.parent().expect("a folder")).expect("made");
    let mut wrong = large[..1000].to_vec();
    wrong[500] ^= 1;
    fs::write(&part, &wrong).expect("written");
    let error = fetch(&fetcher, &all).expect_err("the sum does not fit");
    assert!(matches!(error, FetchError::Remote { problem: Problem::Changed(_), .. }), "{error}");
    assert!(!part.exists() && !all[0].path.exists(), "it is not kept");
    fs::write(&part, &large[..1000]).expect("written");
    place.server.requests();
    fetch(&fetcher, &all).expect("arrives");
    assert_eq!(place.server.requests()[0].headers["range"], "bytes=1000-");
    assert_eq!(fs::read(&all[0].path).expect("there"), large);
}

#[test]
fn offline_only_the_cache_is_used_and_what_is_missing_is_named() {
    let place = Place::new();
    let online = place.fetcher(&[]);
    let offline = place.fetcher(&[("HF_HUB_OFFLINE", "1")]);
    let told = |text: &str| {
        let error = list(&offline, text).expect_err("not in the cache");
        assert!(error.to_string().contains("HF_HUB_OFFLINE") && error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(told("hf://datasets/org/name/data/**").contains("refs/main"));
    assert!(told(&format!("hf://datasets/org/name@{COMMIT}/x")).contains("snapshots"));
    let all = list(&online, "hf://datasets/org/name/data/**").expect("listed");
    fetch(&online, &all).expect("arrives");
    place.server.requests();
    let cached = list(&offline, "hf://datasets/org/name/data/**").expect("in the cache");
    assert_eq!(cached, all, "so the recipe is the same");
    fetch(&offline, &cached).expect("in the cache");
    let error = list(&offline, "hf://datasets/org/name/data/z.jsonl").expect_err("not there");
    assert!(error.to_string().contains("data/z.jsonl"), "{error}");
    // Without our note of the listing, as when Python filled the cache, its files are what there is.
    fs::remove_dir_all(place.folder.path().join("own/listings")).expect("removed");
    let cached = list(&offline, "hf://datasets/org/name/data/**").expect("in the cache");
    assert_eq!(cached, all);
    // With it, a file that was never fetched is missed.
    place.server.requests();
    assert_eq!(list(&online, "hf://datasets/org/name/data/**").expect("listed"), all);
    place.server.requests();
    let link = &all[1].path;
    fs::remove_file(fs::canonicalize(link).expect("a blob")).expect("removed");
    fs::remove_file(link).expect("removed");
    assert_eq!(list(&offline, "hf://datasets/org/name/data/**").expect("noted"), all);
    let error = fetch(&offline, &all).expect_err("one is missing").to_string();
    assert!(error.contains("data/b.jsonl.gz") && error.contains("HF_HUB_OFFLINE"), "{error}");
    // Listed before, gone from the cache since.
    fs::remove_dir_all(place.hub().join("datasets--org--name/blobs")).expect("removed");
    let error = fetch(&offline, &all).expect_err("not there");
    assert!(
        error.to_string().contains("a.jsonl") && error.to_string().contains("cache"),
        "{error}"
    );
    assert!(place.server.requests().is_empty(), "nothing was asked");
}

#[test]
fn the_token_goes_to_the_hub_alone_and_into_no_message() {
    let place = Place::new();
    // Another port is another server.
    let network = Server::start();
    network.page("/b", Page::File(content(400_000), "x"));
    let resolve = format!("/datasets/org/name/resolve/{COMMIT}/data/b.jsonl.gz");
    place.server.page(&resolve, Page::Redirect(network.url("/b")));
    let fetcher = place.fetcher(&[]);
    let all = list(&fetcher, "hf://datasets/org/name/data/*.gz").expect("listed");
    fetch(&fetcher, &all).expect("arrives");
    let bearer = format!("Bearer {TOKEN}");
    let asked = place.server.requests();
    assert!(asked.iter().all(|r| r.headers.get("authorization") == Some(&bearer)));
    let passed_on = network.requests();
    assert!(!passed_on.is_empty());
    assert!(passed_on.iter().all(|r| !r.headers.contains_key("authorization")));

    assert!(!format!("{fetcher:?}").contains(TOKEN));
    place.server.faults(&[Fault::Status(401, None)]);
    place.server.page(&resolve, Page::File(Vec::new(), "x"));
    fs::remove_dir_all(place.hub()).expect("removed");
    let error = fetch(&fetcher, &all).expect_err("refused");
    let shown = format!("{error} {error:?} {:?}", error.hint());
    assert!(shown.contains("HF_TOKEN") && !shown.contains(TOKEN), "{shown}");
}
