//! Batches through the workers, overlapped: each worker takes the next batch as a whole and goes on to
//! another without waiting for its neighbours. Results keep the order of the batches.

use super::{
    Line, Place, SourcePlan,
    work::{Done, Prepared, decide, encode, prepare},
};
use crate::{
    decode::{Batch, RawRecord},
    dedup::DedupError,
};
use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};

/// What comes out of the workers, in the order of the input.
pub(crate) enum Step {
    /// The records of a batch.
    Records(Done),
    /// The input has ended; steps that end without it were cut off.
    End,
}

/// The results of batches that are being worked on, in the order of the batches.
pub(crate) struct Steps(Receiver<Receiver<Step>>);

/// Where workers announce the batches that they take; the bound is that of batches not yet committed.
pub(super) struct Announce(SyncSender<Receiver<Step>>);

/// A line of results of at most `ahead` batches.
pub(super) fn steps(ahead: usize) -> (Announce, Steps) {
    let (announce, steps) = sync_channel(ahead);
    (Announce(announce), Steps(steps))
}

impl Iterator for Steps {
    type Item = Step;

    /// The next batch's result, once it is there; nothing when its worker ended without one.
    fn next(&mut self) -> Option<Step> {
        self.0.recv().ok()?.recv().ok()
    }
}

impl Announce {
    /// A place in the line; nothing when nobody wants the results any more.
    fn place(&self) -> Option<SyncSender<Step>> {
        let (result, step) = sync_channel(1);
        self.0.send(step).ok().map(|()| result)
    }

    /// Says that the input has ended.
    pub(super) fn end(&self) {
        if let Some(place) = self.place() {
            // Nobody is there to take it when the budget is reached.
            let _ = place.send(Step::End);
        }
    }
}

/// Gives every batch to a worker; says whether all of them went through.
pub(super) fn work(
    plan: &SourcePlan,
    line: &Line<'_>,
    from: Place,
    batches: Receiver<Batch>,
    announce: &Announce,
    full: &AtomicBool,
) -> Result<bool, DedupError> {
    let over = || full.load(Ordering::Relaxed) || line.stop.requested().is_some();
    let intake = Intake { batches, file: from.file, behind: from.records, taken: 0, cut: false };
    let intake = Mutex::new(intake);
    let turns = line.dedup.map(|_| Turns::default());
    let worker = || {
        loop {
            let Some(next) = lock(&intake).next(announce, turns.as_ref(), over) else {
                return Ok(());
            };
            let Next { batch, place, turn } = next;
            if let Some(record) = batch.records.first() {
                line.progress.note(plan.files[record.location.file as usize].name.clone());
            }
            let Some(done) = records(plan, line, &batch, turn)? else { return Ok(()) };
            line.progress.advance(batch.consumed);
            if place.send(Step::Records(done)).is_err() {
                lock(&intake).cut = true;
            }
        }
    };
    let worked: Result<Vec<()>, DedupError> =
        line.workers.broadcast(|_| worker()).into_iter().collect();
    worked?;
    Ok(!lock(&intake).cut && line.stop.requested().is_none())
}

/// Where the workers take batches from.
struct Intake {
    batches: Receiver<Batch>,
    /// The first file…
    file: u32,
    /// …and how many of its records are still to be passed over.
    behind: u64,
    /// Batches taken.
    taken: u64,
    /// Whether nothing more is wanted.
    cut: bool,
}

/// A batch, the place of its result in the line, and its turn, where batches have turns.
struct Next<'a> {
    batch: Batch,
    place: SyncSender<Step>,
    turn: Option<Turn<'a>>,
}

impl Intake {
    /// Taking a batch, its place and its turn is one act, so that all three are in one order.
    fn next<'a>(
        &mut self,
        announce: &Announce,
        turns: Option<&'a Turns>,
        over: impl Fn() -> bool,
    ) -> Option<Next<'a>> {
        if self.cut {
            return None;
        }
        let mut batch = self.batches.recv().ok()?;
        let place = if over() { None } else { announce.place() };
        let Some(place) = place else {
            self.cut = true;
            return None;
        };
        self.behind -= pass_over(&mut batch, self.file, self.behind);
        let number = self.taken;
        let turn = turns.map(|turns| Turn { number, turns, passed: false });
        self.taken += 1;
        Some(Next { batch, place, turn })
    }
}

/// Takes up to `most` records of `file` off the start of a batch: they are in rows already.
fn pass_over(batch: &mut Batch, file: u32, most: u64) -> u64 {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let of_file = batch.records.iter().take_while(|record| record.location.file == file);
    let count = of_file.take(most).count();
    batch.records.drain(..count);
    count as u64
}

/// The records of a batch: at one go, or with a look at each document in between, so that no time goes
/// into the ids of what is left out. Nothing when an earlier batch failed. Where marks are made but
/// nobody decides, they go along.
fn records(
    plan: &SourcePlan,
    line: &Line<'_>,
    batch: &Batch,
    turn: Option<Turn<'_>>,
) -> Result<Option<Done>, DedupError> {
    let finish = |record: &RawRecord, prepared: Prepared<'_>| {
        (record.location, encode(plan, line, batch, record, prepared))
    };
    let prepare = |record| prepare(plan, line, batch, record);
    let skipped = batch.skipped_files;
    let Some((dedup, turn)) = line.dedup.zip(turn) else {
        let mut marks = Vec::new();
        let each = batch.records.iter().map(|record| {
            let mut prepared = prepare(record);
            if line.marker.is_some() {
                marks.push(prepared.take_marks());
            }
            finish(record, prepared)
        });
        let records = each.collect();
        return Ok(Some(Done { records, decided: Vec::new(), marks, skipped }));
    };
    let mut prepared: Vec<Prepared<'_>> = batch.records.iter().map(prepare).collect();
    if !turn.wait() {
        return Ok(None);
    }
    let decided = decide(&mut prepared, plan.number, dedup)?;
    turn.pass();
    let rest = batch.records.iter().zip(prepared);
    let records = rest.map(|(record, own)| finish(record, own)).collect();
    Ok(Some(Done { records, decided, marks: Vec::new(), skipped }))
}

/// Whose turn it is to be decided on: deduplication keeps the first of equal documents, so it looks at
/// the batches in order.
#[derive(Default)]
struct Turns {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// The turns that have passed.
    passed: u64,
    /// A turn ended without passing: those behind it never come.
    broken: bool,
}

impl Turns {
    fn end(&self, broken: bool) {
        let mut state = lock(&self.state);
        state.passed += 1;
        state.broken |= broken;
        self.moved.notify_all();
    }
}

/// A batch's turn. Given up before it has passed, it breaks the line behind it.
struct Turn<'a> {
    number: u64,
    turns: &'a Turns,
    passed: bool,
}

impl Turn<'_> {
    /// Waits until all turns before this one have passed; says whether they have.
    fn wait(&self) -> bool {
        let mut state = lock(&self.turns.state);
        while state.passed < self.number && !state.broken {
            state = self.turns.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.broken
    }

    fn pass(mut self) {
        self.passed = true;
        self.turns.end(false);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.passed {
            self.turns.end(true);
        }
    }
}

/// A worker that panicked is reported when all have ended; until then the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
