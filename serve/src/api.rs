//! What a request asks for: OpenAI's completions and chat, the extensions of `coda`, and what is
//! refused.

use crate::{error::Refusal, options::Options};
use axum::http::StatusCode;
use coda_trainer::sample::{
    Accept, Algorithm, Cache, Canvas, Decoding, PromptError, SamplingModel, Turn,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Rows that one request may ask for.
const MOST_CHOICES: usize = 64;

/// The fields that both have.
const COMMON: [&str; 13] = [
    "model",
    "n",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "coda",
];

/// The other fields of a completion.
const COMPLETION: [&str; 6] = ["prompt", "suffix", "max_tokens", "best_of", "echo", "logprobs"];

/// The other fields of a chat.
const CHAT: [&str; 8] = [
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
];

/// What is to be sampled, and how the answer looks.
#[allow(clippy::struct_excessive_bools, reason = "each is a field of the request")]
pub(crate) struct Order {
    pub(crate) chat: bool,
    pub(crate) rows: Vec<Ordered>,
    pub(crate) decoding: Decoding,
    /// Texts at which an answer ends.
    pub(crate) stops: Vec<String>,
    pub(crate) stream: bool,
    /// Whether a stream ends with what was used.
    pub(crate) include_usage: bool,
    /// Whether a stream shows the steps.
    pub(crate) events: bool,
    /// Whether the rows are lengths of one hole, of which the surest is the answer.
    pub(crate) lengths: bool,
    pub(crate) prompt_tokens: usize,
}

/// One row of an order.
pub(crate) struct Ordered {
    pub(crate) canvas: Canvas,
    /// The end of what is answered: the row's end, or where the suffix begins.
    pub(crate) end: usize,
    /// The number of the sample under the seed.
    pub(crate) sample: u64,
}

/// The fields of `/v1/completions`.
struct Completion {
    prompt: Prompt,
    suffix: Option<String>,
    max_tokens: Option<usize>,
    best_of: Option<usize>,
    echo: Option<bool>,
    logprobs: Option<Value>,
    common: Common,
}

/// The fields of `/v1/chat/completions`.
struct Chat {
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    logprobs: Option<bool>,
    top_logprobs: Option<Value>,
    response_format: Option<Value>,
    tools: Option<Value>,
    tool_choice: Option<Value>,
    common: Common,
}

/// What both have.
struct Common {
    model: Option<String>,
    n: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    stop: Option<OneOrMore>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    coda: Option<Extensions>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    ManyIds(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// The object `coda`, which OpenAI's API does not have.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Extensions {
    alg: Option<String>,
    top_k: Option<usize>,
    steps: Option<u32>,
    threshold: Option<f64>,
    factor: Option<f64>,
    block_length: Option<usize>,
    cache: Option<String>,
    span_lengths: Option<Vec<usize>>,
    events: Option<bool>,
}

/// What reading a request needs to know.
pub(crate) struct Reader<'a> {
    pub(crate) model: &'a SamplingModel,
    pub(crate) options: &'a Options,
    /// The model's name in the API.
    pub(crate) name: &'a str,
    /// The seed of requests that give none.
    pub(crate) seed: u64,
}

impl Reader<'_> {
    /// Reads the body of `/v1/completions`.
    pub(crate) fn completion(&self, body: &[u8]) -> Result<Order, Refusal> {
        let request = Completion::read(&mut Fields::parse(body, &COMPLETION)?)?;
        refuse_if(request.logprobs.is_some(), "logprobs", "is not supported")?;
        refuse_if(request.echo == Some(true), "echo", "is not supported")?;
        let n = request.common.choices()?;
        refuse_if(request.best_of.is_some_and(|best| best != n), "best_of", "must be n")?;
        let common = &request.common;
        let extensions = common.coda.as_ref();
        let spans = match extensions.and_then(|coda| coda.span_lengths.clone()) {
            None => None,
            Some(lengths) if request.suffix.is_some() && n == 1 => {
                refuse_if(lengths.is_empty(), "coda.span_lengths", "is empty")?;
                Some(lengths)
            }
            Some(_) => {
                let why = "needs a suffix and n of 1";
                return Err(Refusal::field("coda.span_lengths", why));
            }
        };
        let prompts = request.prompt.ids(self.model)?;
        refuse_if(prompts.is_empty(), "prompt", "is empty")?;
        let several = prompts.len() > 1;
        refuse_if(several && spans.is_some(), "coda.span_lengths", "needs one prompt")?;
        let suffix = match &request.suffix {
            Some(text) => self.ids("suffix", text)?,
            None => Vec::new(),
        };
        let lengths = spans.clone().unwrap_or_else(|| vec![request.max_tokens.unwrap_or(16)]);
        let mut rows = Vec::new();
        for (prompt, ids) in prompts.iter().enumerate() {
            for &length in &lengths {
                let mut row = ids.clone();
                self.fits(row.len(), length, suffix.len())?;
                row.resize(row.len() + length, self.model.controls.mask);
                let end = row.len();
                row.extend_from_slice(&suffix);
                let canvas = self.canvas(row)?;
                for choice in 0..n {
                    let sample = (prompt * n + choice) as u64;
                    rows.push(Ordered { canvas: canvas.clone(), end, sample });
                }
            }
        }
        let prompt_tokens = prompts.iter().map(|ids| ids.len() + suffix.len()).sum();
        Ok(Order { lengths: spans.is_some(), ..self.order(common, rows, prompt_tokens, false)? })
    }

    /// Reads the body of `/v1/chat/completions`.
    pub(crate) fn chat(&self, body: &[u8]) -> Result<Order, Refusal> {
        let request = Chat::read(&mut Fields::parse(body, &CHAT)?)?;
        let given = |value: &Option<Value>| {
            value.as_ref().is_some_and(|value| *value != Value::Array(vec![]))
        };
        refuse_if(request.logprobs == Some(true), "logprobs", "is not supported")?;
        refuse_if(given(&request.top_logprobs), "top_logprobs", "is not supported")?;
        refuse_if(given(&request.tools), "tools", "is not supported")?;
        let choice = request.tool_choice.as_ref();
        refuse_if(choice.is_some_and(|v| v != "none"), "tool_choice", "is not supported")?;
        let other = request.response_format.as_ref().is_some_and(|format| format["type"] != "text");
        refuse_if(other, "response_format", "is not supported, but for type text")?;
        let spans = request.common.coda.as_ref().is_some_and(|coda| coda.span_lengths.is_some());
        refuse_if(spans, "coda.span_lengths", "is for completions with a suffix")?;
        let mut turns = Vec::new();
        for (index, message) in request.messages.into_iter().enumerate() {
            turns.push(message.turn(index)?);
        }
        refuse_if(turns.is_empty(), "messages", "is empty")?;
        let ids =
            self.model.chat_ids(&turns).map_err(|error| prompt_refusal("messages", &error))?;
        let length = request.max_completion_tokens.or(request.max_tokens).unwrap_or(256);
        self.fits(ids.len(), length, 0)?;
        let prompt_tokens = ids.len();
        let mut row = ids;
        row.resize(row.len() + length, self.model.controls.mask);
        let (end, canvas) = (row.len(), self.canvas(row)?);
        let n = request.common.choices()?;
        let rows = (0..n)
            .map(|choice| Ordered { canvas: canvas.clone(), end, sample: choice as u64 })
            .collect();
        self.order(&request.common, rows, prompt_tokens, true)
    }

    fn order(
        &self,
        common: &Common,
        rows: Vec<Ordered>,
        prompt_tokens: usize,
        chat: bool,
    ) -> Result<Order, Refusal> {
        if let Some(model) = common.model.as_ref().filter(|model| *model != self.name) {
            let message = format!("there is no model {model}, only {}", self.name);
            return Err(Refusal::new(StatusCode::NOT_FOUND, message).code("model_not_found"));
        }
        refuse_if(rows.len() > MOST_CHOICES, "n", format!("at most {MOST_CHOICES} rows"))?;
        refuse_if(common.presence_penalty.unwrap_or(0.0) != 0.0, "presence_penalty", "must be 0")?;
        refuse_if(
            common.frequency_penalty.unwrap_or(0.0) != 0.0,
            "frequency_penalty",
            "must be 0",
        )?;
        let biased = common.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty());
        refuse_if(biased, "logit_bias", "is not supported")?;
        let stops = match &common.stop {
            None => Vec::new(),
            Some(OneOrMore::One(stop)) => vec![stop.clone()],
            Some(OneOrMore::More(stops)) => stops.clone(),
        };
        refuse_if(stops.len() > 4, "stop", "at most 4 texts")?;
        refuse_if(stops.iter().any(String::is_empty), "stop", "a text is empty")?;
        let stream = common.stream == Some(true);
        let events = common.coda.as_ref().and_then(|coda| coda.events).unwrap_or(false);
        refuse_if(events && !stream, "coda.events", "needs stream")?;
        Ok(Order {
            chat,
            decoding: self.decoding(common, &rows)?,
            rows,
            stops,
            stream,
            include_usage: common.stream_options.as_ref().and_then(|o| o.include_usage)
                == Some(true),
            events,
            lengths: false,
            prompt_tokens,
        })
    }

    /// The settings of all rows of a request.
    fn decoding(&self, common: &Common, rows: &[Ordered]) -> Result<Decoding, Refusal> {
        let mut decoding = self.options.decoding();
        let sampler = &mut decoding.sampler;
        let nothing = Extensions::default();
        let coda = common.coda.as_ref().unwrap_or(&nothing);
        sampler.temperature = common.temperature.unwrap_or(1.0);
        refuse_if(!(0.0..=2.0).contains(&sampler.temperature), "temperature", "is from 0 to 2")?;
        sampler.top_p = common.top_p;
        sampler.top_k = coda.top_k;
        sampler.seed = common.seed.map_or(self.seed, i64::cast_unsigned);
        if let Some(name) = &coda.alg {
            let algorithm = name.parse::<Algorithm>();
            sampler.algorithm = algorithm.map_err(|why| Refusal::field("coda.alg", why))?;
        }
        let mask = self.model.controls.mask;
        let masks = |row: &Ordered| row.canvas.ids.iter().filter(|&&id| id == mask).count();
        let most = rows.iter().map(masks).max().unwrap_or(1);
        sampler.steps = coda.steps.unwrap_or_else(|| u32::try_from(most).unwrap_or(u32::MAX));
        decoding.accept = match (coda.threshold, coda.factor, coda.steps) {
            (Some(threshold), None, None) => Accept::Threshold(threshold),
            (None, Some(factor), None) => Accept::Factor(factor),
            (None, None, Some(_)) => Accept::Schedule,
            (None, None, None) if sampler.algorithm == Algorithm::Origin => Accept::Schedule,
            (None, None, None) => decoding.accept,
            _ => {
                let why = "only one of threshold, factor and steps";
                return Err(Refusal::field("coda", why));
            }
        };
        if let Some(length) = coda.block_length {
            decoding.block_length = Some(length);
        }
        if let Some(name) = &coda.cache {
            let cache = name.parse::<Cache>();
            decoding.cache = cache.map_err(|why| Refusal::field("coda.cache", why))?;
        }
        decoding.check().map_err(|error| Refusal::field("coda", error.to_string()))?;
        Ok(decoding)
    }

    fn fits(&self, prompt: usize, new: usize, suffix: usize) -> Result<(), Refusal> {
        let most = self.options.max_context;
        let sum = prompt.saturating_add(new).saturating_add(suffix);
        if sum <= most {
            return Ok(());
        }
        let message = format!(
            "{prompt} tokens of prompt, {new} to fill and {suffix} of suffix are more than {most}"
        );
        Err(Refusal::field("max_tokens", message).code("context_length_exceeded"))
    }

    fn canvas(&self, ids: Vec<u32>) -> Result<Canvas, Refusal> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.model.config.vocab_size) {
            let rows = self.model.config.vocab_size;
            return Err(Refusal::field("prompt", format!("id {id} is not below {rows}")));
        }
        let mask = (self.model.controls.mask_name.as_str(), self.model.controls.mask);
        Canvas::of(ids, mask).map_err(|error| prompt_refusal("max_tokens", &error))
    }

    /// A text's ids, with masks where it spells them.
    fn ids(&self, field: &str, text: &str) -> Result<Vec<u32>, Refusal> {
        self.model.ids(text).map_err(|error| prompt_refusal(field, &error))
    }
}

impl Prompt {
    fn ids(self, model: &SamplingModel) -> Result<Vec<Vec<u32>>, Refusal> {
        let texts = match self {
            // An empty list is a list of nothing, not a prompt without tokens.
            Self::Ids(ids) if ids.is_empty() => return Ok(Vec::new()),
            Self::Ids(ids) => return Ok(vec![ids]),
            Self::ManyIds(lists) => return Ok(lists),
            Self::Text(text) => vec![text],
            Self::Texts(texts) => texts,
        };
        let ids = texts.iter().map(|text| model.ids(text)).collect::<Result<_, _>>();
        ids.map_err(|error| prompt_refusal("prompt", &error))
    }
}

impl Common {
    fn choices(&self) -> Result<usize, Refusal> {
        match self.n.unwrap_or(1) {
            0 => Err(Refusal::field("n", "n must be at least 1")),
            n if n > MOST_CHOICES => {
                Err(Refusal::field("n", format!("n is at most {MOST_CHOICES}")))
            }
            n => Ok(n),
        }
    }
}

impl Message {
    fn turn(self, index: usize) -> Result<Turn, Refusal> {
        let role = match self.role.as_str() {
            // OpenAI's newer name of the same.
            "developer" => "system",
            known @ ("system" | "user" | "assistant") => known,
            other => {
                let why = format!("the role {other} is not system, user or assistant");
                return Err(Refusal::field(&format!("messages[{index}].role"), why));
            }
        };
        let content = match self.content {
            Content::Text(text) => text,
            Content::Parts(parts) => {
                let mut text = String::new();
                for part in parts {
                    let field = format!("messages[{index}].content");
                    refuse_if(part.kind != "text", &field, "only parts of type text")?;
                    text.push_str(&part.text.unwrap_or_default());
                }
                text
            }
        };
        Ok(Turn { role: role.to_owned(), content })
    }
}

fn refuse_if(so: bool, field: &str, why: impl AsRef<str>) -> Result<(), Refusal> {
    if so { Err(Refusal::field(field, format!("{field} {}", why.as_ref()))) } else { Ok(()) }
}

fn prompt_refusal(field: &str, error: &PromptError) -> Refusal {
    Refusal::field(field, error.to_string())
}

/// The fields of a body.
struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; fields that are not known are refused by name, since what they ask for would not be
    /// done.
    fn parse(body: &[u8], known: &[&str]) -> Result<Self, Refusal> {
        let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not a JSON object: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, message)
        })?;
        let mut unknown =
            fields.keys().filter(|name| !known.iter().chain(&COMMON).any(|known| known == name));
        match unknown.next() {
            Some(name) => {
                let message = format!("{name} is not a field of this request");
                Err(Refusal::field(name, message))
            }
            None => Ok(Self(fields)),
        }
    }

    /// A field, if it is there and not null.
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| Refusal::field(name, format!("{name}: {error}"))),
        }
    }

    /// A field that has to be there.
    fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Refusal> {
        let missing = || Refusal::field(name, format!("{name} is missing"));
        self.take(name)?.ok_or_else(missing)
    }
}

impl Completion {
    fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        Ok(Self {
            prompt: fields.need("prompt")?,
            suffix: fields.take("suffix")?,
            max_tokens: fields.take("max_tokens")?,
            best_of: fields.take("best_of")?,
            echo: fields.take("echo")?,
            logprobs: fields.take("logprobs")?,
            common: Common::read(fields)?,
        })
    }
}

impl Chat {
    fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        Ok(Self {
            messages: fields.need("messages")?,
            max_tokens: fields.take("max_tokens")?,
            max_completion_tokens: fields.take("max_completion_tokens")?,
            logprobs: fields.take("logprobs")?,
            top_logprobs: fields.take("top_logprobs")?,
            response_format: fields.take("response_format")?,
            tools: fields.take("tools")?,
            tool_choice: fields.take("tool_choice")?,
            common: Common::read(fields)?,
        })
    }
}

impl Common {
    fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        Ok(Self {
            model: fields.take("model")?,
            n: fields.take("n")?,
            temperature: fields.take("temperature")?,
            top_p: fields.take("top_p")?,
            seed: fields.take("seed")?,
            stop: fields.take("stop")?,
            stream: fields.take("stream")?,
            stream_options: fields.take("stream_options")?,
            presence_penalty: fields.take("presence_penalty")?,
            frequency_penalty: fields.take("frequency_penalty")?,
            logit_bias: fields.take("logit_bias")?,
            coda: fields.take("coda")?,
        })
    }
}
