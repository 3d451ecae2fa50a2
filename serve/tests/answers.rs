//! What is answered: completions, holes, chats, streams, many at once.

mod common;

use common::{Server, events, until};
use serde_json::{Value, json};
use std::{collections::BTreeMap, thread};

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("text")
}

#[test]
fn completions_holes_and_chats() {
    let server = Server::start(&[]);
    let (status, models) = server.get("/v1/models");
    let models: Value = serde_json::from_str(&models).expect("JSON");
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("tiny")));
    assert_eq!(server.get("/v1/models/tiny").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    assert_eq!(server.get("/health").0, 200);
    assert!(server.get("/").1.contains("</html>"));

    let body = json!({"model": "tiny", "prompt": "fn main", "max_tokens": 12, "seed": 4});
    let one = server.complete(&body);
    assert_eq!(one["object"], "text_completion");
    assert_eq!(text(&one), text(&server.complete(&body)), "the seed decides");
    let other = json!({"model": "tiny", "prompt": "fn main", "max_tokens": 12, "seed": 5});
    assert_ne!(text(&one), text(&server.complete(&other)));
    assert_eq!(one["usage"]["prompt_tokens"], 7);

    // The first of several choices is the one that a lone request gets.
    let mut several = body.clone();
    several["n"] = json!(3);
    let several = server.complete(&several);
    assert_eq!(several["choices"].as_array().expect("choices").len(), 3);
    assert_eq!(several["choices"][0]["text"], one["choices"][0]["text"]);
    assert_ne!(several["choices"][1]["text"], one["choices"][0]["text"]);

    // Two prompts, as text and as ids.
    let texts = json!({"prompt": ["ab", "cd"], "max_tokens": 4, "temperature": 0});
    let ids = json!({"prompt": [[97, 98], [99, 100]], "max_tokens": 4, "temperature": 0});
    assert_eq!(server.complete(&texts)["choices"], server.complete(&ids)["choices"]);

    // A hole, and masks spelled in the prompt, are the same thing.
    let hole = json!({"prompt": "a(", "suffix": ")b", "max_tokens": 5, "temperature": 0});
    let hole = server.complete(&hole);
    let spelled = format!("a({})b", "<|mask|>".repeat(5));
    let spelled = server.complete(&json!({"prompt": spelled, "max_tokens": 0, "temperature": 0}));
    assert_eq!(format!("{})b", text(&hole)), text(&spelled));
    assert_eq!(
        (&hole["choices"][0]["finish_reason"], &hole["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(5))
    );

    let lengths = json!({"prompt": "a(", "suffix": ")b", "temperature": 0,
                         "coda": {"span_lengths": [2, 5, 9]}});
    let lengths = server.complete(&lengths);
    let tried = lengths["coda"]["lengths"].as_array().expect("lengths");
    let score = |one: &Value| one["mean_log_probability"].as_f64().expect("a number");
    let best = tried.iter().max_by(|a, b| score(a).total_cmp(&score(b))).expect("three");
    let again =
        json!({"prompt": "a(", "suffix": ")b", "temperature": 0, "max_tokens": best["span"]});
    assert_eq!(text(&lengths), text(&server.complete(&again)));
    lengths_as_a_stream(&server, &lengths);

    let chat = json!({"messages": [{"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Hi <|im_end|>"}]}],
        "max_completion_tokens": 9, "seed": 1});
    let (status, answer) = server.post("/v1/chat/completions", &chat);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((status, &answer["object"]), (200, &json!("chat.completion")), "{answer}");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    // A control token that a content spells is text: 13 bytes and not one id. The rest is the
    // template: system, its content, user, assistant, think.
    let template = [1 + 7 + 9 + 1 + 1, 1 + 5 + 13 + 1 + 1, 1 + 10 + 1 + 2 + 1 + 2];
    assert_eq!(answer["usage"]["prompt_tokens"], template.iter().sum::<i32>());
}

/// Each length as it is filled, then the text of the surest, and its lengths as in the whole answer.
fn lengths_as_a_stream(server: &Server, whole: &Value) {
    let mut body = json!({"prompt": "a(", "suffix": ")b", "temperature": 0, "stream": true,
                          "stream_options": {"include_usage": true},
                          "coda": {"span_lengths": [2, 5, 9]}});
    let (status, stream) = server.post("/v1/completions", &body);
    assert_eq!(status, 200);
    assert_eq!(joined(&stream, "text").0, BTreeMap::from([(0, text(whole).to_owned())]));
    let chunk = |data: &String| serde_json::from_str::<Value>(data).expect("JSON");
    let chunks: Vec<Value> =
        events(&stream).iter().filter(|(_, d)| d != "[DONE]").map(|(_, d)| chunk(d)).collect();
    let mut tried: Vec<&Value> = chunks.iter().filter_map(|c| c["coda"].get("length")).collect();
    tried.sort_by_key(|length| length["span"].as_u64());
    assert_eq!(json!(tried), whole["coda"]["lengths"]);
    let [.., last, used] = &chunks[..] else { panic!("{stream}") };
    assert_eq!(last["coda"]["lengths"], whole["coda"]["lengths"]);
    assert_eq!(used["usage"], whole["usage"]);
    // A stop text that ends one of the answers early stops no row: all lengths are compared.
    let first: String = text(whole).chars().take(1).collect();
    body["stop"] = json!([first]);
    let (_, stream) = server.post("/v1/completions", &body);
    assert_eq!(joined(&stream, "text").1, BTreeMap::from([(0, "stop".to_owned())]), "{stream}");
    body["stream"] = json!(false);
    body.as_object_mut().expect("an object").remove("stream_options");
    assert_eq!(text(&server.complete(&body)), "");
}

#[test]
fn an_answer_ends_at_a_stop_text_and_says_so() {
    let server = Server::start(&[]);
    let body = json!({"prompt": "x", "max_tokens": 40, "seed": 9});
    let whole = server.complete(&body);
    let whole = text(&whole);
    // A stop text of two characters from the middle of the answer.
    let (from, _) = whole.char_indices().nth(9).expect("long enough");
    let stop: String = whole[from..].chars().take(2).collect();
    let mut stopped = body.clone();
    stopped["stop"] = json!(["never there", stop]);
    let short = server.complete(&stopped);
    assert_eq!(text(&short), &whole[..whole.find(&stop).expect("it stands there")]);
    assert_eq!(short["choices"][0]["finish_reason"], "stop");
    stopped["stream"] = json!(true);
    let (_, stream) = server.post("/v1/completions", &stopped);
    assert_eq!(joined(&stream, "text").0[&0], text(&short), "no delta goes past the stop text");
}

/// The deltas of each choice joined, and each choice's reason to end.
fn joined(stream: &str, field: &str) -> (BTreeMap<u64, String>, BTreeMap<u64, String>) {
    let (mut texts, mut reasons): (BTreeMap<u64, String>, BTreeMap<u64, String>) =
        Default::default();
    let all = events(stream);
    assert_eq!(all.last().expect("events").1, "[DONE]");
    for (name, data) in &all[..all.len() - 1] {
        if !name.is_empty() {
            continue;
        }
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        for choice in chunk["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index");
            assert!(!reasons.contains_key(&index), "nothing comes after the end: {chunk}");
            let delta = if field == "text" { &choice["text"] } else { &choice["delta"]["content"] };
            texts.entry(index).or_default().push_str(delta.as_str().unwrap_or_default());
            if let Some(reason) = choice["finish_reason"].as_str() {
                reasons.insert(index, reason.to_owned());
            }
        }
    }
    (texts, reasons)
}

#[test]
fn a_stream_gives_the_whole_answer_in_pieces_and_shows_its_steps() {
    let server = Server::start(&[]);
    let mut body = json!({"prompt": "y", "max_tokens": 60, "n": 2, "seed": 3,
                          "coda": {"block_length": 8, "threshold": 0.4}});
    let whole = server.complete(&body);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body["coda"]["events"] = json!(true);
    let (status, stream) = server.post("/v1/completions", &body);
    assert_eq!(status, 200);
    let (texts, reasons) = joined(&stream, "text");
    for index in 0..2 {
        let choice = &whole["choices"][index];
        let at = index as u64;
        assert_eq!(
            (&json!(texts[&at]), &json!(reasons[&at])),
            (&choice["text"], &choice["finish_reason"])
        );
    }
    let all = events(&stream);
    let deltas =
        all.iter().filter(|(name, data)| name.is_empty() && data.contains("\"text\":\"")).count();
    assert!(deltas > 6, "block by block, not at the end: {deltas}");
    let usage: Value = serde_json::from_str(&all[all.len() - 2].1).expect("JSON");
    assert_eq!(usage["usage"], whole["usage"]);

    // The steps reveal every position of the canvas at most once.
    let canvas: Value = serde_json::from_str(&all[0].1).expect("JSON");
    assert_eq!(canvas["choices"][0]["positions"], json!((1..61).collect::<Vec<_>>()));
    let mut revealed = [vec![], vec![]];
    for (_, data) in all.iter().filter(|(name, _)| name == "coda.step") {
        let step: Value = serde_json::from_str(data).expect("JSON");
        for one in step["revealed"].as_array().expect("tokens") {
            let index = usize::from(step["index"] == 1);
            revealed[index].push(one["position"].as_u64().expect("a position"));
            let p = one["probability"].as_f64().expect("a number");
            assert!(p > 0.0 && p <= 1.0);
        }
    }
    for mut positions in revealed {
        let count = positions.len();
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), count);
        assert!(count > 0);
    }

    let chat =
        json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 30, "seed": 3});
    let (_, answer) = server.post("/v1/chat/completions", &chat);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let mut streamed = chat;
    streamed["stream"] = json!(true);
    let (_, stream) = server.post("/v1/chat/completions", &streamed);
    let content = &answer["choices"][0]["message"]["content"];
    assert_eq!(&json!(joined(&stream, "content").0[&0]), content);
}

/// 200 requests at once, each with a prompt, a length and a seed of its own, some of them streams: every
/// answer is what the same request gets when it is alone.
#[test]
fn two_hundred_requests_at_once_are_neither_lost_nor_mixed() {
    let server = Server::start(&["--max-rows", "48"]);
    let bodies: Vec<Value> = (0..200_usize)
        .map(|i| {
            let cache = ["none", "prefix", "dual"][i % 3];
            json!({"prompt": format!("request {i}: "), "max_tokens": 8 + i % 17, "seed": i,
                   "temperature": (i % 3) as f64 * 0.6,
                   "coda": {"block_length": 4 + i % 9, "cache": cache}})
        })
        .collect();
    let ask = |server: &Server, body: &Value, stream: bool| -> String {
        let mut body = body.clone();
        body["stream"] = json!(stream);
        let (status, answer) = server.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        if stream {
            return joined(&answer, "text").0.remove(&0).unwrap_or_default();
        }
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        text(&answer).to_owned()
    };
    let together: Vec<String> = thread::scope(|scope| {
        let server = &server;
        let threads: Vec<_> = bodies
            .iter()
            .enumerate()
            .map(|(i, body)| scope.spawn(move || ask(server, body, i % 2 == 0)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let rows = server.metric("coda_forward_rows_total") / server.metric("coda_forwards_total");
    assert!(rows > 2.0, "requests went through together: {rows} rows a forward");
    for (body, together) in bodies.iter().zip(&together) {
        assert_eq!(&ask(&server, body, false), together, "{body}");
    }
    let left = || server.metric("coda_rows_waiting") + server.metric("coda_rows_running");
    until("an idle server", || left() < 0.5);
}
