//! The model's thread: rows join, go through the decoder together, and leave.

use crate::{error::Refusal, metrics::Metrics, options::EngineArg};
use axum::http::StatusCode;
use coda_cli::{Exit, Failure};
use coda_trainer::{
    engine::{
        CpuEngine, Decoder, Engine, EngineError,
        cuda::{self, CudaEngine},
    },
    model::{ModelConfig, RecomputePolicy},
    sample::{Denoiser, SamplingModel, Step, round},
    threads::share_this_thread,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};
use tokio::sync::mpsc::UnboundedSender;

/// A row that is to be sampled for somebody.
pub(crate) struct Row {
    pub(crate) denoiser: Denoiser,
    /// Which of the request's rows it is.
    pub(crate) index: usize,
    /// Where its steps go. A row whose receiver is gone is dropped.
    pub(crate) events: UnboundedSender<Event>,
    /// Set when nobody needs more of this row.
    pub(crate) enough: Arc<AtomicBool>,
    pub(crate) deadline: Instant,
}

/// What becomes of a request's rows.
pub(crate) enum Event {
    /// A step revealed tokens.
    Step { index: usize, step: u32, revealed: Vec<Revealed> },
    /// The row is filled, as far as it is worth anything.
    Done { index: usize, row: Box<Denoiser> },
    /// The row will not be filled.
    Failed(Refusal),
}

/// A token that a step revealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revealed {
    /// Its position in the row.
    pub(crate) position: usize,
    pub(crate) token: u32,
    /// Its probability when it was chosen.
    pub(crate) probability: f32,
}

/// How much the thread takes on.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Rows that go through the model together.
    pub(crate) rows: usize,
    /// Rows that may wait.
    pub(crate) queue: usize,
    /// Tokens of all rows that go through together.
    pub(crate) tokens: usize,
}

/// The way to the model's thread.
pub(crate) struct Scheduler {
    rows: mpsc::Sender<Row>,
    /// Rows that wait or run.
    held: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
    load: Load,
}

impl Scheduler {
    /// Starts the thread, and waits until it has the model.
    pub(crate) fn start(
        model: Arc<SamplingModel>,
        engine: EngineArg,
        load: Load,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let (rows, incoming) = mpsc::channel();
        let held = Arc::new(AtomicUsize::new(0));
        let in_thread = Arc::clone(&held);
        let (ready, opened) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("model".to_owned())
            .spawn(move || {
                share_this_thread();
                // What belongs to a card stays in one thread.
                let decoder = open(engine, &model.config)
                    .and_then(|mut engine| engine.decoder(&model.params));
                let (told, decoder) = match decoder {
                    Ok(Some(decoder)) => (Ok(()), Some(decoder)),
                    Ok(None) => unreachable!("both engines have decoders"),
                    Err(error) => (Err(error), None),
                };
                // Nobody waits any more if the program is ending.
                let _ = ready.send(told);
                if let Some(decoder) = decoder {
                    let (waiting, running) = (VecDeque::new(), Vec::new());
                    Work {
                        incoming,
                        waiting,
                        running,
                        decoder,
                        load,
                        metrics,
                        held: in_thread,
                        slot: 0,
                    }
                    .run();
                }
            })
            .map_err(|error| Failure::io(format!("cannot start the model's thread: {error}")))?;
        match opened.recv() {
            Ok(Ok(())) => Ok(Self { rows, held, thread, load }),
            Ok(Err(error)) => Err(engine_failure(&error)),
            Err(_) => Err(Failure::io("the model's thread ended before it began")),
        }
    }

    /// Hands over the rows of one request, all or none.
    pub(crate) fn submit(&self, rows: Vec<Row>) -> Result<(), Refusal> {
        let (count, limit) = (rows.len(), self.load.rows + self.load.queue);
        let fits = |held: usize| (held + count <= limit).then_some(held + count);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|held| {
            let message = format!("{held} rows are waiting or running, of at most {limit}");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).code("queue_full")
        })?;
        for row in rows {
            self.rows.send(row).map_err(|_| Refusal::broken())?;
        }
        Ok(())
    }

    /// Rows that wait or run.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the thread still runs.
    pub(crate) fn alive(&self) -> bool {
        !self.thread.is_finished()
    }
}

/// The engine that is asked for. `auto` says what it has taken.
fn open(wanted: EngineArg, config: &ModelConfig) -> Result<Box<dyn Engine>, EngineError> {
    let card = match wanted {
        EngineArg::Cpu => false,
        EngineArg::Cuda => true,
        EngineArg::Auto => match card_for(config) {
            Ok(card) => {
                eprintln!("engine: cuda ({card})");
                true
            }
            Err(error) => {
                eprintln!("engine: cpu ({error})");
                false
            }
        },
    };
    if card {
        return Ok(Box::new(CudaEngine::open(config, RecomputePolicy::None)?));
    }
    Ok(Box::new(CpuEngine::new(config.clone(), RecomputePolicy::None)))
}

/// The card's name, if there is one for models of this shape, or why there is none.
fn card_for(config: &ModelConfig) -> Result<String, EngineError> {
    let card = cuda::probe()?;
    cuda::fits(config)?;
    Ok(card.name)
}

/// A card that is not there, or has no kernels for the model, is a matter of usage.
fn engine_failure(error: &EngineError) -> Failure {
    let exit = match error {
        EngineError::Cuda(_) | EngineError::CudaShape(_) => Exit::Usage,
        _ => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

struct Running {
    slot: usize,
    row: Row,
}

struct Work {
    incoming: mpsc::Receiver<Row>,
    waiting: VecDeque<Row>,
    running: Vec<Running>,
    decoder: Box<dyn Decoder>,
    load: Load,
    metrics: Arc<Metrics>,
    held: Arc<AtomicUsize>,
    /// The next row's slot.
    slot: usize,
}

impl Work {
    /// Until nobody can send rows any more.
    fn run(mut self) {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                self.metrics.rows(0, 0);
                match self.incoming.recv() {
                    Ok(row) => self.waiting.push_back(row),
                    Err(mpsc::RecvError) => return,
                }
            }
            self.waiting.extend(self.incoming.try_iter());
            self.drop_unwanted();
            self.admit();
            self.metrics.rows(self.waiting.len(), self.running.len());
            if !self.running.is_empty() {
                self.advance();
            }
        }
    }

    /// Rows that nobody waits for, or not any longer.
    fn drop_unwanted(&mut self) {
        let now = Instant::now();
        let (metrics, held) = (&self.metrics, &self.held);
        // Who is told must find the row counted, and its place free.
        let count = |gone, late| {
            metrics.dropped(gone, late);
            held.fetch_sub(1, Ordering::Relaxed);
        };
        let unwanted = |row: &Row| {
            if row.events.is_closed() || row.enough.load(Ordering::Relaxed) {
                count(1, 0);
                return true;
            }
            if row.deadline <= now {
                count(0, 1);
                // The receiver may have gone in this moment.
                let _ = row.events.send(Event::Failed(Refusal::timeout()));
                return true;
            }
            false
        };
        self.waiting.retain(|row| !unwanted(row));
        let decoder = &mut self.decoder;
        self.running.retain(|running| {
            let drop = unwanted(&running.row);
            if drop {
                decoder.forget(running.slot);
            }
            !drop
        });
    }

    /// Waiting rows join in their order, as long as there is room.
    fn admit(&mut self) {
        let tokens = |row: &Row| row.denoiser.ids().len();
        let mut sum: usize = self.running.iter().map(|running| tokens(&running.row)).sum();
        while let Some(next) = self.waiting.front() {
            sum += tokens(next);
            let room = self.running.len() < self.load.rows && sum <= self.load.tokens;
            if !room && !self.running.is_empty() {
                break;
            }
            if let Some(row) = self.waiting.pop_front() {
                self.running.push(Running { slot: self.slot, row });
                self.slot = self.slot.wrapping_add(1);
            }
        }
    }

    /// One forward for all of them.
    fn advance(&mut self) {
        let mut steps: Vec<(usize, Step)> = Vec::new();
        let mut rows: Vec<_> = self
            .running
            .iter_mut()
            .map(|running| (running.slot, &mut running.row.denoiser))
            .collect();
        let outcome = round(self.decoder.as_mut(), &mut rows, |slot, step| {
            if !step.revealed.is_empty() {
                steps.push((slot, step.clone()));
            }
        });
        self.metrics.forward(self.running.len());
        let failed = outcome.err().map(|error| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the model failed: {error}"))
        });
        for (slot, step) in steps {
            let Some(running) = self.running.iter().find(|running| running.slot == slot) else {
                continue;
            };
            self.metrics.tokens(step.revealed.len());
            let revealed = step
                .revealed
                .iter()
                .zip(&step.probabilities)
                .map(|(&position, &probability)| Revealed {
                    position,
                    token: step.tokens[position],
                    probability,
                })
                .collect();
            let event = Event::Step { index: running.row.index, step: step.step, revealed };
            // A receiver that has gone is noticed in the next round.
            let _ = running.row.events.send(event);
        }
        let over: Vec<Running> =
            self.running.extract_if(.., |r| failed.is_some() || r.row.denoiser.done()).collect();
        self.held.fetch_sub(over.len(), Ordering::Relaxed);
        for Running { slot, row } in over {
            self.decoder.forget(slot);
            let event = match &failed {
                Some(refusal) => Event::Failed(refusal.clone()),
                None => Event::Done { index: row.index, row: Box::new(row.denoiser) },
            };
            let _ = row.events.send(event);
        }
    }
}
