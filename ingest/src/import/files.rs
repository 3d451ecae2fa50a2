//! Which files are meant, and how wide their ids are.

use super::{
    ImportError, Width,
    ids::{Document, IdFile},
};
use coda_shards::commit::FileError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A format that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// Megatron's `.bin` and `.idx`.
    Megatron,
    /// A flat file of ids, documents bounded by end tokens.
    Flat,
    /// A raw array of ids with a table of documents beside it, as Dolma and `OLMo-core` have it.
    Olmo,
}

impl ImportFormat {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Megatron => "megatron",
            Self::Flat => "flat",
            Self::Olmo => "olmo",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Megatron | Self::Flat => "bin",
            Self::Olmo => "npy",
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Megatron => ".bin with an .idx beside it",
            Self::Flat => ".bin files",
            Self::Olmo => ".npy files",
        }
    }
}

/// A file of ids with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The file of ids.
    pub path: PathBuf,
    /// Its name in rejects.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How its ids are written.
    pub width: Width,
    /// Its format.
    pub format: ImportFormat,
}

/// The part of a `meta.json` that matters here.
#[derive(Deserialize)]
struct Meta {
    file: Option<String>,
    dtype: Option<String>,
    eos: Option<u32>,
}

/// Finds the files at some paths: a folder stands for its files, by name; for Megatron a prefix does.
///
/// The width of ids is in Megatron's index; for the others it is `width`, or what `meta.json` beside
/// the file says.
///
/// # Errors
/// If a path holds nothing of the format, no width is known, or something contradicts what was asked.
pub fn inputs(
    format: ImportFormat,
    paths: &[PathBuf],
    width: Option<Width>,
    eos: u32,
) -> Result<Vec<Input>, ImportError> {
    let mut inputs = Vec::new();
    for path in paths {
        for path in at(format, path)? {
            let bytes = path.metadata().map_err(|e| FileError::new("read", &path, e))?.len();
            let width = match format {
                ImportFormat::Megatron => super::megatron::width(&path)?,
                _ => told_width(&path, width, eos)?,
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            inputs.push(Input { path, name, bytes, width, format });
        }
    }
    Ok(inputs)
}

fn at(format: ImportFormat, path: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let none = || ImportError::NoFiles { path: path.to_owned(), wanted: format.wanted() };
    let fits = |path: &Path| {
        path.extension().is_some_and(|found| found == format.suffix())
            && (format != ImportFormat::Megatron || path.with_extension("idx").exists())
    };
    if path.is_dir() {
        let mut files = Vec::new();
        let entries = std::fs::read_dir(path).map_err(|e| FileError::new("read", path, e))?;
        for entry in entries {
            let path = entry.map_err(|e| FileError::new("read", path, e))?.path();
            if fits(&path) {
                files.push(path);
            }
        }
        files.sort();
        return if files.is_empty() { Err(none()) } else { Ok(files) };
    }
    if format == ImportFormat::Megatron {
        // The prefix, or one of the two files.
        let known = path.extension().is_some_and(|e| e == "bin" || e == "idx");
        let mut bin = path.as_os_str().to_owned();
        bin.push(".bin");
        let bin = if known { path.with_extension("bin") } else { PathBuf::from(bin) };
        return if bin.exists() && fits(&bin) { Ok(vec![bin]) } else { Err(none()) };
    }
    if path.exists() { Ok(vec![path.to_owned()]) } else { Err(none()) }
}

fn told_width(path: &Path, asked: Option<Width>, eos: u32) -> Result<Width, ImportError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let candidates = [format!("{stem}.meta.json"), "meta.json".to_owned()];
    let mut told = None;
    for meta in candidates.map(|name| path.with_file_name(name)) {
        let Ok(bytes) = std::fs::read(&meta) else { continue };
        let parsed: Meta = serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            ImportError::damaged(&meta, place, error.to_string())
        })?;
        let own = path.file_name().is_some_and(|name| name.to_str() == parsed.file.as_deref());
        if parsed.file.is_some() && !own {
            continue;
        }
        if let Some(said) = parsed.eos.filter(|&said| said != eos) {
            let said = format!("that documents end with id {said}");
            return Err(ImportError::Contradiction { file: meta, said, asked: eos.to_string() });
        }
        if let Some(dtype) = &parsed.dtype {
            let width = Width::of_dtype(dtype).ok_or_else(|| {
                ImportError::damaged(&meta, "dtype", format!("{dtype:?} is no type of ids"))
            })?;
            if let Some(asked) = asked.filter(|asked| asked.bytes() != width.bytes()) {
                let asked = format!("{} bits", asked.bytes() * 8);
                let said = format!("{dtype} ids");
                return Err(ImportError::Contradiction { file: meta, said, asked });
            }
            told = Some(width);
            break;
        }
    }
    told.or(asked).ok_or_else(|| ImportError::NoWidth { file: path.to_owned() })
}

impl Input {
    /// Hands out the documents of the file in order. `limit`: the
    /// ids of the tokenizer lie below it.
    pub(super) fn documents(
        &self,
        eos: u32,
        limit: u32,
        take: &mut dyn FnMut(&mut Document) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let ids = IdFile::open(&self.path, self.width)?;
        match self.format {
            ImportFormat::Megatron => super::megatron::documents(&self.path, ids, limit, take),
            ImportFormat::Flat => super::flat::documents(ids, (eos, limit), take),
            ImportFormat::Olmo => super::olmo::documents(&self.path, ids, (eos, limit), take),
        }
    }
}
