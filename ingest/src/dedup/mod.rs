//! Documents that an earlier one makes superfluous: the same text, or nearly the same.
//!
//! The workers make a document's [`Marks`] in parallel; [`Deduper::decide`] takes them in the order of
//! the documents, so that the first one stays whatever the number of workers. The state is bounded in
//! memory ([`Seen`]) and lies in a folder: [`Deduper::flush`] makes it survive a crash, and
//! [`Deduper::forget_after`] brings it back to how it was after any earlier document.

mod run;
mod seen;
mod sketch;
mod store;
mod table;

pub use seen::Seen;
pub use sketch::{Sketch, Sketcher, similarity};
pub(crate) use store::Store;

use crate::words::{Words, mix};
use coda_manifests::{Dedup, DedupScope};
use coda_shards::commit::{FileError, write_atomic};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Says how many documents the state on disk knows at least.
const DECIDED_FILE: &str = "decided";
/// Documents that agree in a band without being duplicates of each other: so many of them are kept
/// for a band's value, and later documents are compared with each.
const CHAIN: u64 = 8;
const CHAIN_KEY: u64 = 0x5895_65c6_c1ca_b5d1;
const SCOPE_KEY: u64 = 0x1d8e_4e27_c47d_124f;

/// Why the state of deduplication cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DedupError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the state is not what was written.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What a document is compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The first 128 bits of the BLAKE3 of the text.
    pub digest: [u64; 2],
    /// For near duplicates; none when they are not looked for or the text has no words.
    pub sketch: Option<Sketch>,
}

/// Makes [`Marks`]: what the workers need to know.
#[derive(Clone, Debug)]
pub struct Marker {
    sketcher: Option<Sketcher>,
}

impl Marker {
    /// For these keys of a manifest.
    #[must_use]
    pub fn new(dedup: &Dedup) -> Self {
        Self { sketcher: dedup.near.as_ref().map(Sketcher::new) }
    }

    /// The marks of a text. `words` may have read the start of it.
    #[must_use]
    pub fn marks(&self, text: &str, words: &mut Words) -> Marks {
        let hash = blake3::hash(text.as_bytes());
        let (parts, _) = hash.as_bytes().as_chunks::<8>();
        Marks {
            digest: [u64::from_le_bytes(parts[0]), u64::from_le_bytes(parts[1])],
            sketch: self.sketcher.as_ref().and_then(|sketcher| sketcher.sketch(text, words)),
        }
    }
}

/// What a document is to those before it. Ordinals count the decided documents from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It is the first of its kind.
    New,
    /// An earlier document has the same text.
    Exact {
        /// Its ordinal.
        first: u64,
    },
    /// An earlier document is nearly the same.
    Near {
        /// Its ordinal.
        first: u64,
        /// The estimated Jaccard similarity.
        similarity: f64,
    },
}

/// Decides which documents are superfluous.
pub struct Deduper {
    exact: bool,
    scope: DedupScope,
    threshold: f64,
    state: Mutex<State>,
}

struct State {
    dir: PathBuf,
    decided: u64,
    texts: Seen<2>,
    near: Option<Near>,
}

/// Bands lead to numbers in the store, and its records to ordinals.
struct Near {
    bands: Seen<1>,
    sketches: Store,
}

impl Deduper {
    /// Opens the state in `dir`, or starts with none.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or holds something else.
    pub fn open(dir: &Path, dedup: &Dedup) -> Result<Self, DedupError> {
        // What a document adds to the tables: 24 bytes for its text, 16 for each band.
        let bands = dedup.near.as_ref().map_or(0, |near| 16 * u64::from(near.bands));
        let for_texts = dedup.memory / (24 + bands) * 24;
        let texts = Seen::open(&dir.join("texts"), for_texts)?;
        let near = dedup.near.as_ref().map(|near| {
            let record_bytes = 8 + Sketcher::new(near).bins();
            Ok::<_, DedupError>(Near {
                bands: Seen::open(&dir.join("bands"), dedup.memory - for_texts)?,
                sketches: Store::open(&dir.join("sketches"), record_bytes)?,
            })
        });
        let near = near.transpose()?;
        let threshold = dedup.near.as_ref().map_or(1.0, |near| near.threshold);
        let state = Mutex::new(State { dir: dir.to_owned(), decided: 0, texts, near });
        Ok(Self { exact: dedup.exact, scope: dedup.scope, threshold, state })
    }

    /// Decides the next document; `source` is the number of its source. Gives its ordinal too.
    ///
    /// # Errors
    /// If the state cannot be written or read.
    pub fn decide(&self, marks: &Marks, source: u16) -> Result<(u64, Verdict), DedupError> {
        let mut state = self.lock();
        state.decided += 1;
        let ordinal = state.decided;
        let salt = match self.scope {
            DedupScope::All => 0,
            DedupScope::Source => mix(u64::from(source), SCOPE_KEY),
        };
        let text = [marks.digest[0] ^ salt, marks.digest[1]];
        if self.exact {
            if let Some(first) = state.texts.get(&text) {
                return Ok((ordinal, Verdict::Exact { first }));
            }
            state.texts.insert(text, ordinal)?;
        }
        let verdict = match (&mut state.near, &marks.sketch) {
            (Some(near), Some(sketch)) => near.decide(sketch, salt, ordinal, self.threshold)?,
            _ => Verdict::New,
        };
        Ok((ordinal, verdict))
    }

    /// Writes everything to disk: after a crash, [`Deduper::open`] and [`Deduper::resume`] with the
    /// ordinal of now or of any earlier document bring back the state of then.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn flush(&self) -> Result<(), DedupError> {
        let mut state = self.lock();
        state.texts.flush()?;
        if let Some(near) = &mut state.near {
            // Bands must not lead to a sketch that is not there.
            near.sketches.flush()?;
            near.bands.flush()?;
        }
        let decided = state.decided;
        Ok(write_atomic(&state.dir.join(DECIDED_FILE), |file| writeln!(file, "{decided}"))?)
    }

    /// Goes on after a crash, with the state after the document with this ordinal.
    ///
    /// # Errors
    /// If the state on disk does not reach so far, or a file cannot be read or written.
    pub fn resume(&self, ordinal: u64) -> Result<(), DedupError> {
        let path = self.lock().dir.join(DECIDED_FILE);
        let read = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let reached: u64 = read.unwrap_or(0);
        if reached < ordinal {
            let problem =
                format!("it knows {reached} documents, but the build had decided {ordinal}");
            return Err(DedupError::Damaged { path, problem });
        }
        self.forget_after(ordinal)
    }

    /// Forgets all documents after the one with this ordinal; 0 forgets everything.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn forget_after(&self, ordinal: u64) -> Result<(), DedupError> {
        let mut state = self.lock();
        state.decided = ordinal;
        state.texts.forget_after(ordinal)?;
        state.near.as_mut().map_or(Ok(()), |near| near.forget_after(ordinal))
    }

    /// The ordinal of the last document that was decided.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.lock().decided
    }

    /// Bytes of memory that the tables take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let state = self.lock();
        state.texts.memory() + state.near.as_ref().map_or(0, |near| near.bands.memory())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Near {
    fn decide(
        &mut self,
        sketch: &Sketch,
        salt: u64,
        ordinal: u64,
        threshold: f64,
    ) -> Result<Verdict, DedupError> {
        let mut record = Vec::new();
        let mut compared: Vec<u64> = Vec::new();
        let mut free = Vec::with_capacity(sketch.bands.len());
        for band in &sketch.bands {
            for link in 0..CHAIN {
                let key = [mix(band ^ salt, link.wrapping_mul(CHAIN_KEY))];
                let Some(number) = self.bands.get(&key) else {
                    free.push(key);
                    break;
                };
                if compared.contains(&number) {
                    continue;
                }
                compared.push(number);
                self.sketches.get(number - 1, &mut record)?;
                let (first, bins) = record.split_at(8);
                let similarity = similarity(bins, &sketch.bins);
                if similarity >= threshold {
                    let first = first.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                    return Ok(Verdict::Near { first, similarity });
                }
            }
        }
        self.sketches.push([&ordinal.to_le_bytes(), &sketch.bins])?;
        for key in free {
            self.bands.insert(key, self.sketches.len())?;
        }
        Ok(Verdict::New)
    }

    fn forget_after(&mut self, ordinal: u64) -> Result<(), DedupError> {
        // Ordinals ascend over the records.
        let (mut low, mut high) = (0, self.sketches.len());
        let mut record = Vec::new();
        while low < high {
            let middle = u64::midpoint(low, high);
            self.sketches.get(middle, &mut record)?;
            let found = record.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if found <= ordinal {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.bands.forget_after(low)?;
        self.sketches.truncate(low)
    }
}
