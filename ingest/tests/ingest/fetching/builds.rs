//! Whole builds of the program from remote sources.

use super::server::{Fault, Page, Server};
use crate::common;
use coda_shards::ShardSet;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    server: Server,
}

fn documents(range: std::ops::Range<u32>) -> Vec<u8> {
    let lines = range.map(|n| {
        let text = format!("fn f{n}() {{ {} }}\n", "x += 1; ".repeat(n as usize % 37));
        json!({ "text": text }).to_string() + "\n"
    });
    lines.collect::<String>().into_bytes()
}

impl Place {
    /// The same three files on the disk and at the server.
    fn new() -> Self {
        let place =
            Self { folder: tempfile::tempdir().expect("a folder"), server: Server::start() };
        place.write("tokenizer.json", common::tokenizer().json.as_bytes());
        let files = [
            ("a.jsonl", documents(0..400)),
            ("b.jsonl.zst", zstd::encode_all(&documents(400..900)[..], 1).expect("in memory")),
            ("c.jsonl", documents(900..1000)),
        ];
        for (name, bytes) in files {
            place.write(&format!("files/{name}"), &bytes);
            place.server.page(&format!("/files/{name}"), Page::File(bytes, "v1"));
        }
        let names = ["a.jsonl", "b.jsonl.zst", "c.jsonl"];
        place.manifest("local", &names.map(|name| format!("files/{name}")));
        place.manifest(
            "remote",
            &names.map(|name| place.server.url(&format!("/files/{name}?k=open-sesame"))),
        );
        place
    }

    fn manifest(&self, name: &str, paths: &[String]) {
        let manifest = json!({
            "version": 1, "name": "test", "stage": "pre",
            "tokenizer": {"path": "tokenizer.json"},
            "data": {
                "out": name, "row_length": 64, "rows_per_shard": 100,
                "sources": [{"name": "docs", "paths": paths}],
            },
        });
        self.write(&format!("{name}.yaml"), manifest.to_string().as_bytes());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("coda-ingest"));
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (status.code().unwrap_or(-1), text(stdout) + &text(stderr))
    }

    fn index(&self, name: &str) -> Value {
        let text = fs::read(self.path(name).join("index.json")).expect("a finished set");
        serde_json::from_slice(&text).expect("JSON")
    }
}

/// BLAKE3 over every row, and how many there are. The bytes of a shard also name the recipe, in which a
/// remote file stands with its tag.
fn rows(folder: &Path) -> (u64, blake3::Hash) {
    let set = ShardSet::open(folder).expect("opens");
    let mut hasher = blake3::Hasher::new();
    for number in 0..set.rows() {
        let row = set.row(number).expect("a row");
        hasher.update(format!("{:?}", row.to_buf()).as_bytes());
    }
    (set.rows(), hasher.finalize())
}

#[test]
fn remote_files_give_the_bytes_of_local_ones() {
    let place = Place::new();
    let (code, told) = place.run(&["--manifest", "local.yaml"]);
    assert_eq!(code, 0, "{told}");
    let faults = [Fault::Cut(500), Fault::Status(503, Some(0)), Fault::IgnoreRange];
    place.server.faults(&faults);
    let (code, told) = place.run(&["--manifest", "remote.yaml", "--progress", "plain"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(rows(&place.path("remote")), rows(&place.path("local")));
    let origins = &place.index("remote")["sources"][0]["origins"];
    assert_eq!(origins[0], place.server.url("/files/a.jsonl"), "without its query");
    assert_eq!(place.index("local")["sources"][0].get("origins"), None);
    let card = fs::read_to_string(place.path("remote/README.md")).expect("a card");
    assert!(card.contains("/files/b.jsonl.zst") && !card.contains("sesame"), "{card}");

    // Built before: nothing but the listing is asked for.
    place.server.requests();
    let (code, told) = place.run(&["--manifest", "remote.yaml"]);
    assert!(code == 0 && told.contains("up to date"), "{told}");
    let looks = place.server.requests();
    assert!(looks.iter().all(|r| r.headers["range"] == "bytes=0-0"), "{looks:?}");

    // Without a network, from what is noted and fetched.
    place.server.requests();
    let (code, told) =
        place.run(&["--manifest", "remote.yaml", "--out", "offline", "data.offline=true"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(place.index("offline"), place.index("remote"));
    let never = format!("data.sources.0.paths=[{}]", place.server.url("/files/none.jsonl"));
    let (code, told) = place.run(&["--manifest", "remote.yaml", "data.offline=true", &never]);
    assert!(code == 3 && told.contains("data.offline is set"), "{code}: {told}");
    assert!(place.server.requests().is_empty(), "nothing was asked");
    for name in super::files_below(&place.path(".cache")) {
        let text = fs::read(place.path(".cache").join(&name)).expect("readable");
        assert!(!String::from_utf8_lossy(&text).contains("sesame"), "a signature is in {name}");
    }

    // Nothing needs to stay: the same set comes out, to the byte.
    let arguments = ["--manifest", "remote.yaml", "--out", "lean", "data.keep_fetched=false"];
    let (code, told) = place.run(&arguments);
    assert_eq!(code, 0, "{told}");
    assert_eq!(place.index("lean"), place.index("remote"));
    assert_eq!(super::files_below(&place.path(".cache/coda/files")), Vec::<String>::new());

    // Another version at the source is another recipe.
    place.server.page("/files/c.jsonl", Page::File(documents(900..1000), "v2"));
    let (code, told) = place.run(&["--manifest", "remote.yaml"]);
    assert!(code == 2 && told.contains("other inputs"), "{told}");
}

#[test]
fn a_killed_build_goes_on_with_what_it_had_fetched() {
    let place = Place::new();
    let (code, told) = place.run(&["--manifest", "local.yaml"]);
    assert_eq!(code, 0, "{told}");
    place.server.faults(&[Fault::Stall(2000)]);
    let mut child = place
        .command(&["--manifest", "remote.yaml", "--quiet"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    place.server.wait_for_stall();
    // What was sent is on its way to the file; it is there when the part has grown.
    let mut parts = Vec::new();
    while parts.is_empty() {
        parts = super::files_below(&place.path(".cache/coda"));
        parts.retain(|name| {
            let path = place.path(".cache/coda").join(name);
            name.contains(".part") && fs::metadata(path).is_ok_and(|found| found.len() == 2000)
        });
        assert!(child.try_wait().expect("asked").is_none(), "it waits for the server");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    place.server.requests();
    let (code, told) = place.run(&["--manifest", "remote.yaml"]);
    assert_eq!(code, 0, "{told}");
    let ranges: Vec<String> =
        place.server.requests().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    assert!(ranges.contains(&"bytes=2000-".to_owned()), "{ranges:?}");
    assert_eq!(rows(&place.path("remote")), rows(&place.path("local")));
    let left = super::files_below(&place.path(".cache/coda"));
    assert!(!left.iter().any(|name| name.contains(".part")), "{left:?}");
}

#[test]
fn what_cannot_be_fetched_is_told_with_a_hint_and_without_secrets() {
    let place = Place::new();
    let none = place.server.url("/files/none.jsonl?k=open-sesame");
    place.manifest("remote", &[none]);
    let (code, told) = place.run(&["--manifest", "remote.yaml"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("none.jsonl") && told.contains("does not exist"), "{told}");
    assert!(told.contains("hint") && !told.contains("sesame"), "{told}");
    place.manifest("remote", &["ftp://host/x.jsonl".to_owned()]);
    let (code, told) = place.run(&["--manifest", "remote.yaml"]);
    assert!(code == 2 && told.contains("scheme"), "{told}");
    assert!(!place.path("remote").exists(), "nothing was begun");
}

/// Ids and contents of small blobs, as an archive delivers them.
fn blobs(count: u32) -> Vec<(String, Vec<u8>)> {
    use std::io::Write as _;
    let blob = |n: u32| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(format!("def f{n}():\n    return {n}\n").as_bytes()).expect("in memory");
        let id = blake3::hash(&n.to_le_bytes()).to_hex()[..40].to_owned();
        (id, gzip.finish().expect("in memory"))
    };
    (0..count).map(blob).collect()
}

#[test]
fn blobs_are_fetched_once_and_the_build_reads_them_from_the_store() {
    let place = Place::new();
    let blobs = blobs(300);
    for (id, content) in blobs.iter().skip(1) {
        place.server.page(&format!("/content/{id}"), Page::File(content.clone(), "v1"));
    }
    // One is not in the archive, one is named twice, one is no id.
    let mut ids: Vec<String> = blobs.iter().map(|(id, _)| id.clone()).collect();
    ids.extend([ids[1].clone(), "no id".to_owned()]);
    let records: Vec<String> = ids.iter().map(|id| json!({"blob_id": id}).to_string()).collect();
    let table = records.join("\n").into_bytes();
    place.server.page("/ids.jsonl", Page::File(table, "v1"));
    let manifest = json!({
        "version": 1, "name": "test", "stage": "pre",
        "tokenizer": {"path": "tokenizer.json"},
        "data": {
            "out": "out", "row_length": 64, "max_reject_rate": 0.05,
            "sources": [{
                "name": "code", "paths": [place.server.url("/ids.jsonl")],
                "blobs": {"store": "store", "url": place.server.url("/content/")},
            }],
        },
    });
    place.write("m.yaml", manifest.to_string().as_bytes());

    // Nothing was fetched: every record is rejected.
    let (code, told) = place.run(&["--manifest", "m.yaml", "--out", "before"]);
    assert!(code == 1 && told.contains("missing_blob 301"), "{code}: {told}");

    let cut = Fault::Cut(10);
    place.server.faults(&[cut.clone(), Fault::Status(503, Some(0)), cut.clone(), cut]);
    // Fetching makes no ids: the tokenizer need not be there.
    let fetch =
        ["fetch", "--manifest", "m.yaml", "--json", "--quiet", "tokenizer.path=not-there.json"];
    let (code, told) = place.run(&fetch);
    assert_eq!(code, 0, "{told}");
    let summary: Value = serde_json::from_str(&told).expect("JSON");
    let of = |key: &str| summary[key].as_u64().expect("a number");
    assert_eq!((of("files"), of("blobs_named"), of("blobs_fetched")), (1, 301, 299), "{told}");
    assert_eq!((of("blobs_missing"), of("blobs_failed")), (1, 0), "{told}");

    // Again: only the listing is asked for.
    place.server.requests();
    let (code, told) = place.run(&fetch);
    assert!(code == 0 && told.contains("\"blobs_fetched\": 0"), "{told}");
    assert!(place.server.requests().iter().all(|r| r.path == "/ids.jsonl"));

    let (code, told) = place.run(&["--manifest", "m.yaml", "--json", "--quiet"]);
    assert_eq!(code, 0, "{told}");
    let index = place.index("out");
    assert_eq!(index["sources"][0]["documents"], 300);
    assert_eq!(index["sources"][0]["rejects"], json!({"bad_blob_id": 1, "missing_blob": 1}));

    // The same texts from an ordinary file give the same shards.
    let texts: Vec<u8> = (1..300)
        .chain([1])
        .map(|n| json!({"text": format!("def f{n}():\n    return {n}\n")}).to_string() + "\n")
        .collect::<String>()
        .into_bytes();
    place.write("files/texts.jsonl", &texts);
    let mut plain = manifest.clone();
    plain["data"]["out"] = "plain".into();
    plain["data"]["sources"] = json!([{"name": "code", "paths": ["files/texts.jsonl"]}]);
    place.write("plain.yaml", plain.to_string().as_bytes());
    let (code, told) = place.run(&["--manifest", "plain.yaml"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(rows(&place.path("out")), rows(&place.path("plain")));
}

#[test]
fn blobs_that_cannot_be_had_now_are_asked_for_again() {
    let place = Place::new();
    let blobs = blobs(80);
    for (id, content) in &blobs {
        place.server.page(&format!("/content/{id}"), Page::File(content.clone(), "v1"));
    }
    let ids: String =
        blobs.iter().map(|(id, _)| json!({"blob_id": id}).to_string() + "\n").collect();
    place.write("ids.jsonl", ids.as_bytes());
    let manifest = json!({
        "version": 1, "name": "test", "stage": "pre",
        "tokenizer": {"path": "tokenizer.json"},
        "data": {
            "out": "out", "row_length": 64,
            "sources": [{
                "name": "code", "paths": ["ids.jsonl"],
                "blobs": {"store": "store", "url": place.server.url("/content/")},
            }],
        },
    });
    place.write("m.yaml", manifest.to_string().as_bytes());
    let fetch = ["fetch", "--manifest", "m.yaml", "--quiet"];
    place.server.faults(&[Fault::Status(403, None), Fault::Status(400, None)]);
    let (code, told) = place.run(&fetch);
    assert!(code == 3 && told.contains("2 blobs could not be fetched"), "{code}: {told}");
    place.server.faults(&vec![Fault::Status(403, None); 200]);
    let (code, told) = place.run(&fetch);
    assert!(code == 3 && told.contains("2 blobs"), "the others are there: {code}: {told}");
    place.server.faults(&[]);
    let (code, told) = place.run(&fetch);
    assert!(code == 0 && told.contains("2 fetched now"), "{code}: {told}");

    // When none comes, it does not ask for all of them.
    fs::remove_dir_all(place.path("store")).expect("removed");
    place.server.faults(&vec![Fault::Status(403, None); 200]);
    place.server.requests();
    let (code, told) = place.run(&fetch);
    assert!(code == 3 && told.contains("64 blobs in a row"), "{code}: {told}");
    let (code, told) = place.run(&["--manifest", "m.yaml"]);
    assert!(code == 1 && told.contains("missing_blob 80"), "{code}: {told}");
}

#[test]
fn a_dry_run_says_what_would_be_fetched_and_fetches_nothing() {
    let place = Place::new();
    let (code, told) = place.run(&["--manifest", "remote.yaml", "--dry-run"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("not sampled: by size alone") && told.contains("to fetch"), "{told}");
    assert!(!told.contains("sesame"), "{told}");
    assert!(!place.path(".cache").exists() && !place.path("remote").exists());
    let json = |place: &Place, manifest: &str| -> Value {
        let (code, told) = place.run(&["--manifest", manifest, "--dry-run", "--json"]);
        assert_eq!(code, 0, "{told}");
        serde_json::from_str(&told).expect("JSON")
    };
    let dry = json(&place, "remote.yaml");
    assert_eq!(dry["fetch_bytes"], dry["file_bytes"]);
    assert_eq!(dry["sources"][0]["estimated_by_ratio"], true);
    assert!(place.run(&["fetch", "--manifest", "remote.yaml"]).0 == 0);
    let (dry, local) = (json(&place, "remote.yaml"), json(&place, "local.yaml"));
    assert_eq!(dry.get("fetch_bytes"), None, "all of it is here");
    assert_eq!(dry["estimated_tokens"], local["estimated_tokens"], "sampled like local files");

    // What cannot be asked now is a line, and no failure; a build fails.
    let gone = "http://127.0.0.1:9/x.jsonl".to_owned();
    place.manifest("remote", &[place.server.url("/files/a.jsonl"), gone]);
    let (code, told) = place.run(&["--manifest", "remote.yaml", "--dry-run"]);
    assert!(code == 0 && told.contains("not listed: http://127.0.0.1:9/x.jsonl"), "{told}");
}

#[test]
fn a_build_from_the_hub_is_pinned_to_its_commit_and_works_offline() {
    const TOKEN: &str = "hf_open-sesame";
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let place = Place::new();
    let bytes = fs::read(place.path("files/a.jsonl")).expect("there");
    let sum = super::hub::git_sum(&bytes);
    let tree = json!([{"type": "file", "path": "data/a.jsonl", "size": bytes.len(), "oid": sum}]);
    place
        .server
        .page(
            "/api/datasets/org/name/revision/v1",
            Page::Json(json!({"sha": COMMIT}).to_string(), None),
        )
        .page(
            &format!("/api/datasets/org/name/tree/{COMMIT}/data"),
            Page::Json(tree.to_string(), None),
        )
        .page(&format!("/datasets/org/name/resolve/{COMMIT}/data/a.jsonl"), Page::File(bytes, "x"));
    place.manifest("remote", &["hf://datasets/org/name@v1/data/*.jsonl".to_owned()]);
    place.manifest("local", &["files/a.jsonl".to_owned()]);
    assert_eq!(place.run(&["--manifest", "local.yaml"]).0, 0);
    let run = |arguments: &[&str], more: &[(&str, &str)]| {
        let mut command = place.command(arguments);
        command
            .env("HF_ENDPOINT", place.server.url(""))
            .env("HF_HOME", place.path("hf"))
            .env_remove("HF_HUB_CACHE")
            .env("HF_TOKEN", TOKEN)
            .envs(more.iter().copied());
        let Output { status, stdout, stderr } = command.output().expect("runs");
        let told = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
        assert!(!told.contains(TOKEN), "{told}");
        (status.code().unwrap_or(-1), told.into_owned())
    };
    let (code, told) = run(&["--manifest", "remote.yaml", "--progress", "json"], &[]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(rows(&place.path("remote")), rows(&place.path("local")));
    let index = place.index("remote");
    let origin = format!("hf://datasets/org/name@{COMMIT}/data/*.jsonl");
    assert_eq!(index["sources"][0]["origins"], json!([origin]));

    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://127.0.0.1:9")];
    let (code, told) = run(&["--manifest", "remote.yaml", "--out", "again"], &offline);
    assert_eq!(code, 0, "{told}");
    assert_eq!(place.index("again"), index, "the same set to the byte");
    let (code, told) = run(
        &["--manifest", "remote.yaml", "data.sources.0.paths=[hf://datasets/org/name@v2/x]"],
        &offline,
    );
    assert!(code == 3 && told.contains("HF_HUB_OFFLINE"), "{code}: {told}");
    for name in super::files_below(place.folder.path()) {
        let text = fs::read(place.path(&name)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(TOKEN), "the token is in {name}");
    }
}
/// Google's and Azure's listings, in their own words; their files come through faults like all others.
#[test]
fn the_other_buckets_are_listed_and_read() {
    let place = Place::new();
    let (code, told) = place.run(&["--manifest", "local.yaml"]);
    assert_eq!(code, 0, "{told}");
    let names = ["a.jsonl", "b.jsonl.zst", "c.jsonl"];
    let size = |name: &str| fs::metadata(place.path("files").join(name)).expect("there").len();
    let files: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "<Contents><Key>set/{name}</Key><LastModified>2026-11-24T20:00:00.123Z\
                 </LastModified><ETag>\"v1\"</ETag><Size>{}</Size></Contents>",
                size(name)
            )
        })
        .collect();
    let google = format!("<ListBucketResult>{}</ListBucketResult>", files.concat());
    let files: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "<Blob><Name>set/{name}</Name><Properties><Last-Modified>Tue, 24 Nov 2026 \
                 20:00:00 GMT</Last-Modified><Content-Length>{}</Content-Length><Content-Type>x\
                 </Content-Type><Etag>v1</Etag></Properties></Blob>",
                size(name)
            )
        })
        .collect();
    let azure = format!(
        "<EnumerationResults><Blobs>{}</Blobs><NextMarker/></EnumerationResults>",
        files.concat()
    );
    for (bucket, listing) in [("google", google), ("azure", azure)] {
        place.server.page(&format!("/{bucket}"), Page::Json(listing, None));
        for name in names {
            let bytes = fs::read(place.path("files").join(name)).expect("there");
            place.server.page(&format!("/{bucket}/set/{name}"), Page::File(bytes, "v1"));
        }
    }
    let server = place.server.url("");
    let env = [
        ("GOOGLE_BASE_URL", server.as_str()),
        ("GOOGLE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ENDPOINT", server.as_str()),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_ALLOW_HTTP", "true"),
    ];
    for pattern in ["gs://google/set/*.jsonl*", "az://azure/set/*.jsonl*"] {
        place.manifest("remote", &[pattern.to_owned()]);
        place.server.faults(&[Fault::Status(503, None), Fault::Cut(700)]);
        let mut command = place.command(&["--manifest", "remote.yaml", "--out", "out", "--force"]);
        let done = command.envs(env).output().expect("runs");
        assert!(done.status.success(), "{pattern}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(rows(&place.path("out")), rows(&place.path("local")), "{pattern}");
    }
}
