//! What is refused, cut short, or survived.

mod common;

use common::{Server, request, split, until};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

/// A request that takes long: thousands of forwards of a long row.
fn long(tokens: u32) -> Value {
    json!({"prompt": "z", "max_tokens": tokens, "stream": true, "coda": {"threshold": 1.0, "cache": "none"}})
}

const LONG: [&str; 2] = ["--max-context", "4000"];

#[test]
fn requests_that_cannot_be_served_are_refused_by_name() {
    let server = Server::start(&["--max-body", "4096", "--max-context", "100"]);
    let with = |more: Value| {
        let mut body = json!({"prompt": "a"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
        body
    };
    let mut wrong = Vec::new();
    for (more, status, word) in [
        (json!({"prompt": 5}), 400, "prompt"),
        (json!({"prompt": []}), 400, "prompt"),
        (json!({"prompt": [70_000]}), 400, "id 70000"),
        (json!({"max_tokens": -1}), 400, "max_tokens"),
        (json!({"max_tokens": 0}), 400, "nothing to fill"),
        (json!({"max_tokens": 100}), 400, "more than 100"),
        (json!({"max_tokens": u64::MAX}), 400, "more than 100"),
        (json!({"temperature": "hot"}), 400, "temperature"),
        (json!({"temperature": -1}), 400, "temperature"),
        (json!({"top_p": 7}), 400, "top_p"),
        (json!({"n": 0}), 400, "n must be at least 1"),
        (json!({"n": 100_000}), 400, "n is at most 64"),
        (json!({"logprobs": 3}), 400, "logprobs is not supported"),
        (json!({"echo": true}), 400, "echo"),
        (json!({"logit_bias": {"5": 1}}), 400, "logit_bias"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), 400, "at most 4"),
        (json!({"model": "other"}), 404, "no model other"),
        (json!({"max_tokenz": 4}), 400, "max_tokenz is not a field"),
        (json!({"coda": {"treshold": 4}}), 400, "treshold"),
        (json!({"coda": {"threshold": 4}}), 400, "threshold"),
        (json!({"coda": {"threshold": 0.5, "steps": 4}}), 400, "only one of"),
        (json!({"coda": {"events": true}}), 400, "needs stream"),
        (json!({"coda": {"cache": "big"}}), 400, "no cache big"),
    ] {
        let (found, body) = server.post("/v1/completions", &with(more.clone()));
        let error: Value = serde_json::from_str(&body).expect("JSON");
        let message = error["error"]["message"].as_str().unwrap_or_else(|| panic!("{more}"));
        if found != status || !message.contains(word) {
            wrong.push(format!("{more}: {found} {message}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (more, word) in [
        (json!({"messages": []}), "messages is empty"),
        (json!({"messages": [{"role": "robot", "content": ""}]}), "robot"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "type text"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"role": "user", "content": "a"}], "tools": [{}]}), "tools"),
    ] {
        let (status, body) = server.post("/v1/chat/completions", &more);
        assert_eq!(status, 400, "{body}");
        assert!(body.contains(word), "{more}: {body}");
    }
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[1, 2]", 400),
        ("null", 400),
        ("{\"prompt\": \"\u{0}\", \"max_tokens\": 4}", 400),
        (&"[".repeat(4000), 400),
        (&" ".repeat(5000), 413),
    ] {
        let found = split(&server.raw(&request("/v1/completions", body))).0;
        assert_eq!(found, status, "{body:.20}");
    }
    assert_eq!(server.get("/v1/completions").0, 405);
    assert_eq!(server.get("/v2").0, 404);
    // A body of chunks says nothing of its length; it is cut off where it is too long.
    let mut chunks = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
                       connection: close\r\n\r\n"
        .to_vec();
    for _ in 0..3 {
        chunks.extend(format!("800\r\n{}\r\n", " ".repeat(2048)).bytes());
    }
    chunks.extend(b"0\r\n\r\n");
    assert_eq!(split(&server.raw(&chunks)).0, 413);
    assert!(server.raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n").starts_with("HTTP/1.1 400"));
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    assert!(server.raw(head.as_bytes()).starts_with("HTTP/1.1 431"));
    assert_eq!(server.get("/health").0, 200, "it has survived");
}

#[test]
fn keys_are_asked_for() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("key");
    std::fs::write(&file, "s3cret\n").expect("write");
    let server = Server::start(&["--api-key-file", file.to_str().expect("a path")]);
    let ask = |path: &str, key: &str| {
        let head = format!("GET {path} HTTP/1.0\r\nauthorization: {key}\r\n\r\n");
        split(&server.raw(head.as_bytes())).0
    };
    for path in ["/v1/models", "/v1/models/tiny", "/metrics"] {
        assert_eq!(ask(path, "Bearer s3cret"), 200);
        for wrong in ["Bearer s3cre", "Bearer s3crets", "s3cret", "Bearer ", "Basic s3cret"] {
            assert_eq!(ask(path, wrong), 401, "{path} {wrong}");
        }
        assert_eq!(server.get(path).0, 401);
    }
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a"})).0, 401);
    assert_eq!((server.get("/health").0, server.get("/").0), (200, 200));
}

#[test]
fn slow_clients_are_left_and_others_served() {
    let server = Server::start(&["--read-timeout", "1"]);
    let mut head = server.connect();
    head.write_all(b"POST /v1/completions HT").expect("writes");
    let mut body = server.connect();
    body.write_all(b"POST /v1/completions HTTP/1.0\r\ncontent-length: 100\r\n\r\n{")
        .expect("writes");
    assert_eq!(
        server.complete(&json!({"prompt": "a", "max_tokens": 3}))["object"],
        "text_completion"
    );
    let started = Instant::now();
    let mut answer = String::new();
    body.read_to_string(&mut answer).expect("an answer");
    assert_eq!(split(&answer).0, 408);
    let mut nothing = Vec::new();
    // Closed, with or without a last word.
    let _ = head.read_to_end(&mut nothing);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn who_leaves_makes_room() {
    let server = Server::start(&[&LONG[..], &["--max-rows", "1"]].concat());
    for stream in [true, false] {
        let before = server.metric("coda_rows_gone_total");
        let mut body = long(3900);
        body["stream"] = json!(stream);
        let mut leaving = server.connect();
        leaving.write_all(&request("/v1/completions", &body.to_string())).expect("writes");
        until("the row", || server.metric("coda_rows_running") > 0.0);
        drop(leaving);
        // It would have taken thousands of forwards.
        let answer = server.complete(&json!({"prompt": "a", "max_tokens": 3}));
        assert_eq!(answer["object"], "text_completion");
        assert!(server.metric("coda_rows_gone_total") > before, "stream: {stream}");
    }
}

#[test]
fn a_full_queue_and_late_rows_are_told() {
    let server = Server::start(
        &[&LONG[..], &["--max-rows", "1", "--max-queue", "1", "--timeout", "2"]].concat(),
    );
    let mut running = server.connect();
    running.write_all(&request("/v1/completions", &long(3900).to_string())).expect("writes");
    until("the row", || server.metric("coda_rows_running") > 0.0);
    let mut body = long(3900);
    body["stream"] = json!(false);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| server.post("/v1/completions", &body));
        until("the queue", || server.metric("coda_rows_waiting") > 0.0);
        let (status, error) = server.post("/v1/completions", &json!({"prompt": "a"}));
        assert_eq!(status, 429, "{error}");
        assert!(error.contains("queue_full"));
        // Two rows at once do not fit either, and none of them is taken.
        assert_eq!(server.post("/v1/completions", &json!({"prompt": "a", "n": 2})).0, 429);
        let (status, error) = waiting.join().expect("an answer");
        assert_eq!(status, 504, "{error}");
    });
    let mut stream = String::new();
    running.read_to_string(&mut stream).expect("an answer");
    assert!(stream.contains("timeout") && !stream.contains("[DONE]"), "a stream says it too");
    assert!(server.metric("coda_rows_late_total") >= 2.0);
}

#[test]
fn a_signal_lets_running_requests_end() {
    let mut server = Server::start(&[&LONG[..], &["--grace", "60"]].concat());
    let body = json!({"prompt": "a", "max_tokens": 300, "stream": true,
                      "coda": {"threshold": 1.0, "cache": "none"}});
    let mut running = server.connect();
    running.write_all(&request("/v1/completions", &body.to_string())).expect("writes");
    until("the row", || server.metric("coda_rows_running") > 0.0);
    server.signal("TERM");
    let mut stream = String::new();
    running.read_to_string(&mut stream).expect("an answer");
    assert!(stream.trim_end().ends_with("[DONE]"), "the answer is whole");
    assert_eq!(server.wait(), Some(0));

    let mut server = Server::start(&[&LONG[..], &["--grace", "1"]].concat());
    let mut running = server.connect();
    running.write_all(&request("/v1/completions", &long(3900).to_string())).expect("writes");
    until("the row", || server.metric("coda_rows_running") > 0.0);
    server.signal("INT");
    assert_eq!(server.wait(), Some(1), "a request was unanswered");
}

#[test]
fn a_card_that_is_not_there_is_named_before_anything_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    common::write_model(folder.path());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_coda-serve"))
        .args(["--listen", "127.0.0.1:0", "--engine", "cuda", "--checkpoint"])
        .arg(folder.path().join("tiny"))
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    // The kernels are not made for the model; that comes before the card.
    assert!(
        said.contains("vocab_size is 262") && said.contains("hint: use --engine cpu"),
        "{said}"
    );
}
