//! The routes.

use crate::{
    answer::Answer,
    api::{Order, Ordered, Reader},
    error::{Refusal, json_response},
    metrics::Metrics,
    options::Options,
    scheduler::{Event, Row, Scheduler},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use coda_trainer::sample::{Denoiser, SamplingModel, most_confident};
use futures_util::stream;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

/// How often a stream that has nothing to say shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The page at `/`.
const PAGE: &str = include_str!("page.html");

/// What all requests share.
pub(crate) struct App {
    pub(crate) model: Arc<SamplingModel>,
    pub(crate) name: String,
    pub(crate) options: Options,
    /// The hash of the key that requests must carry. Hashes compare in constant time.
    pub(crate) key: Option<blake3::Hash>,
    pub(crate) scheduler: Scheduler,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: AtomicBool,
    /// Requests so far; with the start, the seed of those that give none.
    pub(crate) count: AtomicU64,
    pub(crate) started: u64,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All routes.
pub(crate) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .fallback(missing)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn page() -> Response<Body> {
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    // The page needs nothing but itself and this server.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    let (status, word) = if app.stopping.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if app.scheduler.alive() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "the model's thread has ended")
    };
    json_response(status, &json!({"status": word, "model": app.name}))
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    match app.authorize(&headers) {
        Ok(()) => app.metrics.text().into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    match app.authorize(&headers) {
        Ok(()) => {
            let list = json!({"object": "list", "data": [app.card()]});
            json_response(StatusCode::OK, &list)
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn model(
    State(app): State<Arc<App>>,
    axum::extract::Path(name): axum::extract::Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    if let Err(refusal) = app.authorize(&headers) {
        return refusal.into_response();
    }
    if name == app.name {
        return json_response(StatusCode::OK, &app.card());
    }
    let message = format!("there is no model {name}, only {}", app.name);
    Refusal::new(StatusCode::NOT_FOUND, message).code("model_not_found").into_response()
}

async fn missing(request: Request) -> Refusal {
    let message = format!("there is nothing at {}", request.uri().path());
    Refusal::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method(method: Method, request: Request) -> Refusal {
    let message = format!("{} does not take {method}", request.uri().path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[allow(clippy::redundant_closure_for_method_calls, reason = "a method fixes its lifetime")]
async fn completions(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    app.answer("completions", request, |reader, body| reader.completion(body)).await
}

#[allow(clippy::redundant_closure_for_method_calls, reason = "a method fixes its lifetime")]
async fn chat(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    app.answer("chat", request, |reader, body| reader.chat(body)).await
}

impl App {
    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(key) = self.key else { return Ok(()) };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match given {
            Some(given) if blake3::hash(given) == key => Ok(()),
            _ => {
                let message = "the API key is missing or wrong";
                Err(Refusal::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
            }
        }
    }

    fn card(&self) -> Value {
        let mask = &self.model.controls.mask_name;
        json!({"id": self.name, "object": "model", "created": self.started, "owned_by": "coda",
               "mask": mask})
    }

    async fn answer(
        self: Arc<Self>,
        route: &'static str,
        request: Request,
        read: fn(&Reader<'_>, &[u8]) -> Result<Order, Refusal>,
    ) -> Response<Body> {
        let started = Instant::now();
        let app = Arc::clone(&self);
        let response = match self.begin(request, read).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        app.metrics.request(route, response.status().as_u16(), started.elapsed());
        response
    }

    async fn begin(
        self: Arc<Self>,
        request: Request,
        read: fn(&Reader<'_>, &[u8]) -> Result<Order, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        self.authorize(request.headers())?;
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Refusal::stopping());
        }
        let body = self.body(request).await?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let reader = Reader {
            model: &self.model,
            options: &self.options,
            name: &self.name,
            seed: self.started.rotate_left(32) ^ number,
        };
        let order = read(&reader, &body)?;
        let work = self.submit(order, number)?;
        if work.order.stream { Ok(work.stream()) } else { work.whole().await }
    }

    /// The request's body, within its limits of size and time.
    async fn body(&self, request: Request) -> Result<Bytes, Refusal> {
        let limit = self.options.max_body;
        let patience = Duration::from_secs(self.options.read_timeout);
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let large = || {
            let message = format!("the body is larger than {limit} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(large());
        }
        match timeout(patience, to_bytes(request.into_body(), limit)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(large()),
            Err(_) => {
                let message = "the body did not arrive in time";
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message))
            }
        }
    }

    fn submit(self: Arc<Self>, order: Order, number: u64) -> Result<Work, Refusal> {
        let (events, incoming) = unbounded_channel();
        let deadline = Instant::now() + self.options.time_limit();
        let (mut rows, mut answers, mut enough) = (Vec::new(), Vec::new(), Vec::new());
        for (index, Ordered { canvas, end, sample }) in order.rows.iter().enumerate() {
            let (mask, ends) = (self.model.controls.mask, &self.model.controls.ends);
            let flag = Arc::new(AtomicBool::new(false));
            let ids = canvas.ids.clone();
            rows.push(Row {
                denoiser: Denoiser::new(ids, mask, order.decoding, *sample, ends),
                index,
                events: events.clone(),
                enough: Arc::clone(&flag),
                deadline,
            });
            answers.push(Answer::new(canvas, *end));
            enough.push(flag);
        }
        self.scheduler.submit(rows)?;
        Ok(Work { app: self, order, number, answers, enough, filled: Vec::new(), incoming })
    }
}

/// A request whose rows are on their way.
struct Work {
    app: Arc<App>,
    order: Order,
    number: u64,
    answers: Vec<Answer>,
    enough: Vec<Arc<AtomicBool>>,
    /// The rows that came back, with their numbers.
    filled: Vec<(usize, Denoiser)>,
    incoming: UnboundedReceiver<Event>,
}

impl Work {
    /// Waits for the next event.
    async fn next(&mut self) -> Result<Event, Refusal> {
        match self.incoming.recv().await {
            Some(Event::Failed(refusal)) => Err(refusal),
            Some(event) => Ok(event),
            None => Err(Refusal::broken()),
        }
    }

    /// Takes an event into its answer: the answer's number and what of it can be given out.
    fn take(&mut self, event: Event) -> (usize, Option<String>) {
        let model = &self.app.model;
        let (index, done) = match event {
            Event::Step { index, revealed, .. } => {
                self.answers[index].reveal(&revealed);
                (index, false)
            }
            Event::Done { index, row } => {
                self.filled.push((index, *row));
                (index, true)
            }
            Event::Failed(_) => return (0, None),
        };
        let more = self.answers[index].advance(model, &self.order.stops, done);
        // Lengths are compared as filled rows, also where a stop text has ended the answer before.
        if self.answers[index].finish().is_some() && !self.order.lengths {
            self.enough[index].store(true, Ordering::Relaxed);
        }
        (index, more)
    }

    fn over(&self) -> bool {
        // Lengths are compared when all of their rows are filled.
        if self.order.lengths {
            return self.filled.len() == self.answers.len();
        }
        self.answers.iter().all(|answer| answer.finish().is_some())
    }

    /// The answer in one piece.
    async fn whole(mut self) -> Result<Response<Body>, Refusal> {
        while !self.over() {
            let event = self.next().await?;
            self.take(event);
        }
        let mut extension = json!({"settings": self.order.decoding});
        let chosen: Vec<usize> = if self.order.lengths {
            let (chosen, lengths) = self.lengths();
            extension["lengths"] = lengths;
            vec![chosen]
        } else {
            (0..self.answers.len()).collect()
        };
        let choices: Vec<Value> = chosen
            .iter()
            .enumerate()
            .map(|(index, &answer)| {
                let answer = &self.answers[answer];
                let mut choice = json!({"index": index, "logprobs": null,
                                        "finish_reason": answer.finish()});
                if self.order.chat {
                    choice["message"] = json!({"role": "assistant", "content": answer.text(),
                                               "refusal": null});
                } else {
                    choice["text"] = json!(answer.text());
                }
                choice
            })
            .collect();
        let mut body =
            self.head(if self.order.chat { "chat.completion" } else { "text_completion" });
        body["choices"] = json!(choices);
        body["usage"] = self.usage();
        body["coda"] = extension;
        Ok(json_response(StatusCode::OK, &body))
    }

    /// The surest of the lengths, when all are filled, and how each came out.
    fn lengths(&mut self) -> (usize, Value) {
        self.filled.sort_by_key(|(index, _)| *index);
        let lengths: Vec<Value> =
            self.filled.iter().map(|(index, row)| self.length(*index, row)).collect();
        let rows: Vec<Denoiser> = self.filled.iter().map(|(_, row)| row.clone()).collect();
        (most_confident(&rows), json!(lengths))
    }

    /// How one length came out.
    fn length(&self, index: usize, row: &Denoiser) -> Value {
        json!({"span": self.order.rows[index].end - self.order.rows[index].canvas.first_mask,
               "mean_log_probability": row.tally().mean_log_probability()})
    }

    fn usage(&self) -> Value {
        let completion: usize = self.answers.iter().map(Answer::tokens).sum();
        let prompt = self.order.prompt_tokens;
        json!({"prompt_tokens": prompt, "completion_tokens": completion,
               "total_tokens": prompt + completion})
    }

    fn head(&self, object: &str) -> Value {
        let prefix = if self.order.chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:x}-{:x}", self.app.started, self.number);
        json!({"id": id, "object": object, "created": now(), "model": self.app.name})
    }

    /// The answer as it becomes final, as server-sent events.
    fn stream(self) -> Response<Body> {
        let mut first = VecDeque::new();
        if self.order.events {
            first.push_back(named("canvas", &self.canvases()));
        }
        if self.order.chat {
            for index in 0..self.answers.len() {
                let delta = json!({"role": "assistant", "content": ""});
                first.push_back(data(&self.chunk(index, &delta, None)));
            }
        }
        let state = Stream { work: self, ready: first, ended: false };
        let body = Body::from_stream(stream::unfold(state, Stream::next));
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    /// Where each answer's tokens will stand.
    fn canvases(&self) -> Value {
        let mask = self.app.model.controls.mask;
        let list: Vec<Value> =
            self.answers.iter().map(|answer| json!({"positions": answer.masked(mask)})).collect();
        json!({"object": "coda.canvas", "choices": list})
    }

    /// One OpenAI chunk: `delta` is an object in a chat, and a text otherwise.
    fn chunk(&self, index: usize, delta: &Value, finish: Option<&str>) -> Value {
        let object = if self.order.chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.head(object);
        let mut choice = json!({"index": index, "logprobs": null, "finish_reason": finish});
        choice[if self.order.chat { "delta" } else { "text" }] = delta.clone();
        chunk["choices"] = json!([choice]);
        if self.order.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

/// A stream of events.
struct Stream {
    work: Work,
    ready: VecDeque<String>,
    ended: bool,
}

impl Stream {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some((Ok(Bytes::from(text)), self));
            }
            if self.ended {
                return None;
            }
            match timeout(HEARTBEAT, self.work.next()).await {
                Err(_) => self.ready.push_back(": waiting\n\n".to_owned()),
                Ok(Ok(event)) => self.event(event),
                Ok(Err(refusal)) => {
                    self.ready.push_back(data(&refusal.json()));
                    self.ended = true;
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        let work = &mut self.work;
        if work.order.events
            && let Event::Step { index, step, revealed } = &event
        {
            let text = |token| work.app.model.text(&[token]).unwrap_or_default();
            let revealed: Vec<Value> = revealed
                .iter()
                .map(|one| {
                    json!({"position": one.position, "token": one.token, "text": text(one.token),
                           "probability": one.probability})
                })
                .collect();
            let step = json!({"object": "coda.step", "index": index, "step": step,
                              "revealed": revealed});
            self.ready.push_back(named("step", &step));
        }
        if work.order.lengths {
            self.length(event);
        } else {
            self.part(event);
        }
        let work = &self.work;
        if work.over() {
            if work.order.include_usage {
                let object =
                    if work.order.chat { "chat.completion.chunk" } else { "text_completion" };
                let mut last = work.head(object);
                last["choices"] = json!([]);
                last["usage"] = work.usage();
                self.ready.push_back(data(&last));
            }
            self.ready.push_back("data: [DONE]\n\n".to_owned());
            self.ended = true;
        }
    }

    /// What of an answer has become final.
    fn part(&mut self, event: Event) {
        let work = &mut self.work;
        let before = match &event {
            Event::Step { index, .. } | Event::Done { index, .. } => work.answers[*index].finish(),
            Event::Failed(_) => None,
        };
        let (index, more) = work.take(event);
        if let Some(text) = more {
            let delta = if work.order.chat { json!({"content": text}) } else { json!(text) };
            self.ready.push_back(data(&work.chunk(index, &delta, None)));
        }
        let finish = work.answers[index].finish();
        if before.is_none() && finish.is_some() {
            let delta = if work.order.chat { json!({}) } else { json!("") };
            self.ready.push_back(data(&work.chunk(index, &delta, finish)));
        }
    }

    /// A length that has been tried, as a chunk without choices; after the last one the text of the surest.
    fn length(&mut self, event: Event) {
        let work = &mut self.work;
        let tried = match &event {
            Event::Done { index, row } => Some(work.length(*index, row)),
            Event::Step { .. } | Event::Failed(_) => None,
        };
        work.take(event);
        if let Some(length) = tried {
            let mut chunk = work.chunk(0, &json!(""), None);
            chunk["choices"] = json!([]);
            chunk["coda"] = json!({"length": length});
            self.ready.push_back(data(&chunk));
        }
        if work.over() {
            let (chosen, lengths) = work.lengths();
            let answer = &work.answers[chosen];
            let mut last = work.chunk(0, &json!(answer.text()), answer.finish());
            last["coda"] = json!({"settings": work.order.decoding, "lengths": lengths});
            self.ready.push_back(data(&last));
        }
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// An event that only those get who asked for it.
fn named(name: &str, value: &Value) -> String {
    format!("event: coda.{name}\ndata: {value}\n\n")
}
