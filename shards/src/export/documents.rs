//! Rows taken apart into documents, and the formats that hold documents.

use super::{
    ExportError, Exported, IdWidth, Selected, Tick, flat::Flat, labels::Labels, megatron::Megatron,
    olmo::Olmo, step,
};
use crate::{
    ShardSet,
    commit::{AtomicDir, FileError},
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// A format of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// Megatron's `.bin` and `.idx`.
    Megatron,
    /// One flat `.bin`, as nanoGPT reads it.
    Flat,
    /// `OLMo-core`'s raw arrays with a table of documents.
    Olmo,
}

impl DocumentFormat {
    /// The width for a vocabulary of so many ids, as the readers of the format settle it: nanoGPT
    /// reads u16, Megatron takes it below 65,500 ids, `OLMo-core` derives it from the vocabulary.
    #[must_use]
    pub const fn width(self, vocabulary: u32) -> IdWidth {
        match self {
            Self::Megatron if vocabulary < 65_500 => IdWidth::U16,
            Self::Megatron => IdWidth::I32,
            Self::Flat | Self::Olmo if vocabulary <= 1 << 16 => IdWidth::U16,
            Self::Flat | Self::Olmo => IdWidth::U32,
        }
    }
}

/// How documents are written.
#[derive(Clone, Copy, Debug)]
pub struct DocumentOptions {
    /// The format.
    pub format: DocumentFormat,
    /// The width of ids.
    pub width: IdWidth,
    /// Whether every source gets files of its own.
    pub split_sources: bool,
    /// Whether a label mask is written beside each file of ids: which tokens a model is to learn.
    pub label_mask: bool,
}

/// Some ids of a document, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The row that they are from.
    pub row: u64,
    /// Where in the row they begin.
    pub start: usize,
    /// The ids.
    pub ids: &'a [u32],
    /// Whether the document ends here.
    pub ends: bool,
}

/// Hands out the documents of some rows, piece by piece, pads left out, each with its end token.
///
/// A document starts at every segment of a row. The first segment goes on from the row before when
/// the documents of the source follow each other without a gap (only its last row has pads), that
/// row is full, has no prompt, and does not end with the end token. Where rows have pads, a document
/// that was cut by the row length cannot be joined again: its parts are documents of their own.
///
/// # Errors
/// If a row cannot be read, or with whatever `take` gives.
pub fn pieces<E: From<crate::ShardError>>(
    set: &ShardSet,
    selected: &Selected,
    mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let gapless = gapless(set, selected.source)?;
    let eos = set.specials().eos;
    for number in selected.rows.clone() {
        let row = set.row(number)?;
        let valid = row.valid_len as usize;
        let ends_open = row.valid_len == set.row_length()
            && row.prefix_len == 0
            && row.tokens.last() != Some(&eos);
        let goes_on = gapless
            && ends_open
            && number + 1 < selected.rows.end
            && set.row(number + 1)?.prefix_len == 0;
        let starts = row.segments.iter().map(|&start| start as usize);
        let ends = starts.clone().skip(1).chain([valid]);
        for (start, end) in starts.zip(ends) {
            let ends = !(goes_on && end == valid);
            take(Piece { row: number, start, ids: &row.tokens[start..end], ends })?;
        }
    }
    Ok(())
}

/// Whether all pads of a source lie in its last row.
fn gapless(set: &ShardSet, source: u16) -> Result<bool, crate::ShardError> {
    let source = &set.sources()[usize::from(source)];
    if source.rows == 0 {
        return Ok(true);
    }
    let last = set.row(source.first_row + source.rows - 1)?;
    Ok(source.padding_tokens == u64::from(set.row_length() - last.valid_len))
}

/// A document that has been written whole.
pub(super) struct Ended<'a> {
    /// The name of its source.
    pub(super) source: &'a str,
    /// Its number within the chosen rows of its source, from 0.
    pub(super) number: u64,
    /// Its tokens.
    pub(super) tokens: u64,
    /// The row that it ends in.
    pub(super) row: u64,
}

/// What a format writes beside the ids.
pub(super) trait Boundaries {
    /// Notes a document.
    fn document(&mut self, ended: &Ended<'_>) -> Result<(), ExportError>;

    /// Writes what comes after the last one; gives the files, that of the ids first.
    fn finish(self: Box<Self>, about: &About<'_>) -> Result<Vec<String>, ExportError>;
}

/// What is known of a file of ids once it is complete.
pub(super) struct About<'a> {
    pub(super) set: &'a ShardSet,
    pub(super) width: IdWidth,
    /// The names of its sources.
    pub(super) sources: Vec<&'a str>,
    pub(super) documents: u64,
    pub(super) tokens: u64,
    /// The label mask, if one was asked for.
    pub(super) label_mask: Option<LabelMask>,
}

/// A label mask that is complete.
pub(super) struct LabelMask {
    /// Its file.
    pub(super) file: String,
    /// Tokens that are labels.
    pub(super) labels: u64,
}

/// Writes the documents of some rows into a new folder, which appears whole or not at all.
///
/// # Errors
/// [`ExportError`]; then nothing is left.
pub fn write_documents(
    set: &ShardSet,
    selected: &[Selected],
    options: DocumentOptions,
    out: &Path,
    tick: &mut Tick<'_>,
) -> Result<Exported, ExportError> {
    let dir = AtomicDir::create(out)?;
    let mut exported = Exported::default();
    if options.split_sources {
        for (number, chosen) in selected.iter().enumerate() {
            let stem = format!("{number:05}-{}", plain(&chosen.name));
            group(set, std::slice::from_ref(chosen), options, (dir.path(), &stem), tick)?
                .add_to(&mut exported);
        }
    } else {
        group(set, selected, options, (dir.path(), "tokens"), tick)?.add_to(&mut exported);
    }
    dir.commit()?;
    Ok(exported)
}

impl Exported {
    fn add_to(self, all: &mut Self) {
        all.files.extend(self.files);
        all.rows += self.rows;
        all.tokens += self.tokens;
        all.documents += self.documents;
        all.cut_documents += self.cut_documents;
    }
}

/// One file of ids with what belongs to it.
fn group(
    set: &ShardSet,
    selected: &[Selected],
    options: DocumentOptions,
    (dir, stem): (&Path, &str),
    tick: &mut Tick<'_>,
) -> Result<Exported, ExportError> {
    let width = options.width;
    let mut boundaries: Box<dyn Boundaries> = match options.format {
        DocumentFormat::Megatron => Box::new(Megatron::create(dir, stem, width)?),
        DocumentFormat::Flat => Box::new(Flat::create(dir, stem)),
        DocumentFormat::Olmo => Box::new(Olmo::create(dir, stem)?),
    };
    let suffix = if options.format == DocumentFormat::Olmo { "npy" } else { "bin" };
    let mut ids = Output::create(dir.join(format!("{stem}.{suffix}")))?;
    let mut labels = options.label_mask.then(|| Labels::create(dir, stem)).transpose()?;
    let (mut done, mut buffer) = (Exported::default(), Vec::new());
    for chosen in selected {
        let (mut number, mut tokens, mut last_row) = (0, 0, chosen.rows.start);
        pieces(set, chosen, |piece| {
            if piece.row != last_row {
                last_row = piece.row;
                step(tick, 1)?;
            }
            if let Some(id) = width.misfit(piece.ids) {
                return Err(ExportError::TooWide { id, row: piece.row, width: width.dtype() });
            }
            ids.put(|sink| width.write(piece.ids, &mut buffer, sink))?;
            if let Some(labels) = &mut labels {
                labels.piece(&set.row(piece.row)?, piece.start, piece.ids.len())?;
            }
            tokens += piece.ids.len() as u64;
            if piece.ends {
                let ended = Ended { source: &chosen.name, number, tokens, row: piece.row };
                boundaries.document(&ended)?;
                done.cut_documents += u64::from(piece.ids.last() != Some(&set.specials().eos));
                done.documents += 1;
                done.tokens += tokens;
                (number, tokens) = (number + 1, 0);
            }
            Ok(())
        })?;
        step(tick, 1)?;
        done.rows += chosen.rows.end - chosen.rows.start;
    }
    ids.finish()?;
    let about = About {
        set,
        width,
        sources: selected.iter().map(|chosen| chosen.name.as_str()).collect(),
        documents: done.documents,
        tokens: done.tokens,
        label_mask: labels.map(Labels::finish).transpose()?,
    };
    done.files = boundaries.finish(&about)?;
    done.files.extend(about.label_mask.map(|mask| mask.file));
    Ok(done)
}

/// A file within the folder that is being written; [`AtomicDir::commit`] forces it to disk.
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    pub(super) fn create(path: PathBuf) -> Result<Self, FileError> {
        let file = File::create_new(&path).map_err(|e| FileError::new("create", &path, e))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file) })
    }

    pub(super) fn put(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<(), FileError> {
        write(&mut self.file).map_err(|e| FileError::new("write", &self.path, e))
    }

    pub(super) fn finish(mut self) -> Result<(), FileError> {
        self.put(BufWriter::flush)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A name that any file system and any comma-separated table takes.
pub(super) fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '_' };
    name.chars().map(keep).collect()
}
