//! From a manifest to what has to be done, with everything checked that can be checked without
//! reading the data.

use crate::{
    blobs::{BlobError, BlobStore},
    clean::Cleaner,
    contamination::{self, BenchmarkError, Benchmarks},
    decode::{DecodeOptions, Members},
    dedup::Marker,
    fetch::{Address, Asking, FetchError, FetchOptions, Fetcher},
    pack::Overlong,
    pipeline::SourcePlan,
    record::{Extractor, Filter, RecordShape, Template, TemplateError},
    source::{
        Container, DigestError, Filters, InputFile, SourceError, digest, glob_set, list_files,
        list_remote,
    },
    spans::{NotByteLevel, SpanFinder},
    tokenize::{ChatEncoder, SpecialNames, Specials, Tokenizer, TokenizerError, Vocabulary},
};
use coda_manifests::{
    Clean, Decontaminate, Dedup, Format, Manifest, Packing, PathError, Source, SourceKind,
};
use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

/// Changes when the same manifest and inputs would give other rows than before.
const INGEST_VERSION: u32 = 2;

/// A build, ready to run.
pub struct Plan {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Its ids for the end of a document, padding and masks.
    pub specials: Specials,
    /// The sources, in manifest order.
    pub sources: Vec<SourcePlan>,
    /// Their licences, in the same order.
    pub licenses: Vec<Option<String>>,
    /// Tokens a row.
    pub row_length: u32,
    /// What happens to long conversations.
    pub overlong: Overlong,
    /// How documents become rows.
    pub packing: Packing,
    /// Finds the spans that are noted in rows.
    pub spans: Option<SpanFinder>,
    /// Benchmarks whose text is left out.
    pub benchmarks: Option<Benchmarks>,
    /// The benchmarks' files.
    benchmark_files: Vec<InputFile>,
    /// Makes what documents are compared by.
    pub marker: Option<Marker>,
    /// Which repeated documents are left out.
    pub dedup: Option<Dedup>,
    /// Caps for the decoders.
    pub decode: DecodeOptions,
    /// What brings remote files, when there are any.
    pub fetch: Option<Fetcher>,
    /// Hash of the manifest.
    pub manifest_hash: String,
}

/// What happens to addresses that cannot be listed, because no network or no credentials are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// They end the plan.
    Refused,
    /// They are noted in [`SourcePlan::unlisted`]: enough to look at, not to build from.
    Noted,
}

/// Why a manifest cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A path of the manifest leads where it may not.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A source has no files.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Remote files cannot be fetched here.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An input cannot be read.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The blob store cannot be read.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The tokenizer's tokens have no spans.
    #[error(transparent)]
    Spans(#[from] NotByteLevel),
    /// A benchmark cannot be used.
    #[error(transparent)]
    Benchmark(#[from] BenchmarkError),
    /// A text template cannot be read.
    #[error("source {name:?}: {error}")]
    Template {
        /// The source.
        name: String,
        /// What is wrong with it.
        error: TemplateError,
    },
    /// The fields of a conversation source do not say where the turns are.
    #[error("source {name:?}: fields must give instruction and output, or messages")]
    Fields {
        /// The source.
        name: String,
    },
}

impl PlanError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Path(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Source(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Digest(_) | Self::Blobs(_) => None,
            Self::Spans(error) => Some(error.hint()),
            Self::Benchmark(error) => contamination::hint(error),
            Self::Template { .. } => {
                Some("for example `text_template: \"{question}\\n{answer}\"`".to_owned())
            }
            Self::Fields { .. } => Some(
                "for example `fields: {instruction: question, output: answer}` or \
                 `fields: {messages: conversation}`"
                    .to_owned(),
            ),
        }
    }

    /// Whether the manifest is wrong (as opposed to the disk).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Path(error) => error.is_usage(),
            Self::Source(error) => error.is_usage(),
            Self::Fetch(error) => error.is_usage(),
            Self::Digest(_) | Self::Blobs(_) | Self::Benchmark(BenchmarkError::Read(_)) => false,
            Self::Tokenizer(_)
            | Self::Spans(_)
            | Self::Benchmark(_)
            | Self::Fields { .. }
            | Self::Template { .. } => true,
        }
    }
}

impl Plan {
    /// Loads the tokenizer and lists the files of every source.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(manifest: &Manifest) -> Result<Self, PlanError> {
        Self::with(manifest, Unreachable::Refused)
    }

    /// Like [`Plan::new`]; says what happens to addresses that cannot be listed now.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn with(manifest: &Manifest, unreachable: Unreachable) -> Result<Self, PlanError> {
        let names = &manifest.tokenizer;
        let path = manifest.resolve(&names.path)?;
        let tokenizer = Tokenizer::load(&path, names.match_special_text)?;
        let specials = tokenizer.specials(&SpecialNames {
            eos: names.eos.clone(),
            pad: names.pad.clone(),
            mask: names.mask.clone(),
        })?;
        let data = &manifest.data;
        let Inputs { sources, decode, fetch } =
            Inputs::with(manifest, unreachable, Some(&tokenizer))?;
        let (benchmark_files, benchmarks) = match &data.decontaminate {
            None => (Vec::new(), None),
            Some(keys) => {
                let files = benchmark_files(manifest, keys)?;
                let benchmarks = Benchmarks::load(&files, keys, &decode)?;
                (files, Some(benchmarks))
            }
        };
        let spans = data.spans.map(|kinds| SpanFinder::new(kinds, tokenizer.json())).transpose()?;
        Ok(Self {
            spans,
            benchmarks,
            benchmark_files,
            marker: data.dedup.as_ref().map(Marker::new),
            dedup: data.dedup.clone(),
            specials,
            sources,
            licenses: data.sources.iter().map(|source| source.license.clone()).collect(),
            row_length: data.row_length,
            overlong: match manifest.overlong() {
                coda_manifests::Overlong::Truncate => Overlong::Truncate,
                coda_manifests::Overlong::Drop => Overlong::Drop,
            },
            packing: data.packing,
            decode,
            fetch,
            manifest_hash: manifest.hash(),
            tokenizer,
        })
    }

    /// One hash over all that decides the rows: manifest, tokenizer, input files (see
    /// [`digest`]), and the version of this crate's behaviour.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn recipe(&self) -> Result<String, PlanError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"coda ingest");
        hasher.update(&INGEST_VERSION.to_le_bytes());
        hasher.update(self.manifest_hash.as_bytes());
        hasher.update(blake3::hash(self.tokenizer.json()).as_bytes());
        for source in &self.sources {
            hasher.update(digest(&source.files)?.as_bytes());
            if let Some(store) = &source.blobs {
                hasher.update(store.digest()?.as_bytes());
            }
        }
        if !self.benchmark_files.is_empty() {
            hasher.update(digest(&self.benchmark_files)?.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Bytes of all input files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.sources.iter().flat_map(|source| &source.files).map(|file| file.bytes).sum()
    }
}

/// The part of a plan that says what is read, for somebody who makes no ids of it.
pub struct Inputs {
    /// The sources, in manifest order. Without a tokenizer, conversations are not rendered.
    pub sources: Vec<SourcePlan>,
    /// Caps for the decoders.
    pub decode: DecodeOptions,
    /// What brings remote files, when there are any.
    pub fetch: Option<Fetcher>,
}

impl Inputs {
    /// Lists the files of every source; the tokenizer need not be there.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(manifest: &Manifest) -> Result<Self, PlanError> {
        Self::with(manifest, Unreachable::Refused, None)
    }

    fn with(
        manifest: &Manifest,
        unreachable: Unreachable,
        tokenizer: Option<&Vocabulary>,
    ) -> Result<Self, PlanError> {
        let data = &manifest.data;
        let remote =
            data.sources.iter().flat_map(|source| &source.paths).any(|path| Address::is_one(path));
        let fetch = remote.then(|| fetcher(manifest, unreachable)).transpose()?;
        let lister = Lister { manifest, fetch: fetch.as_ref(), unreachable };
        let sources = (0..)
            .zip(&data.sources)
            .map(|(number, source)| plan_source(&lister, (number, source), tokenizer))
            .collect::<Result<Vec<_>, _>>()?;
        let decode = DecodeOptions {
            max_document_bytes: usize::try_from(data.max_document_bytes).unwrap_or(usize::MAX),
            ..DecodeOptions::default()
        };
        Ok(Self { sources, decode, fetch })
    }
}

/// What fetches the remote files of a manifest.
///
/// # Errors
/// If its cache may not be where the manifest says, or nothing can be fetched on this machine.
pub fn fetcher(manifest: &Manifest, unreachable: Unreachable) -> Result<Fetcher, PlanError> {
    let mut options = FetchOptions {
        allow_http: manifest.data.allow_http,
        keep: manifest.data.keep_fetched.unwrap_or(true),
        asking: match unreachable {
            _ if manifest.data.offline => Asking::Offline,
            Unreachable::Refused => Asking::Noted,
            // Who only looks leaves nothing behind.
            Unreachable::Noted => Asking::Unnoted,
        },
        ..FetchOptions::default()
    };
    if unreachable == Unreachable::Noted {
        // Somebody looks; nothing is lost when an address stays silent.
        options.attempts = 2;
        options.stall = Duration::from_secs(10);
    }
    Ok(Fetcher::new(&manifest.resolve(manifest.data.cache())?, options)?)
}

struct Lister<'a> {
    manifest: &'a Manifest,
    fetch: Option<&'a Fetcher>,
    unreachable: Unreachable,
}

/// What was found for a source.
#[derive(Default)]
pub struct Listed {
    /// Its files.
    pub files: Vec<InputFile>,
    /// The addresses that were listed, with their revisions settled.
    pub origins: Vec<String>,
    /// Addresses that could not be listed, and why.
    pub unlisted: Vec<(String, String)>,
}

impl Lister<'_> {
    /// The files of a source, each once, in the order of its paths.
    fn list(&self, source: &Source, filters: &Filters) -> Result<Listed, PlanError> {
        let mut listed = Listed::default();
        for text in &source.paths {
            if let Some(fetch) = self.fetch.filter(|_| Address::is_one(text)) {
                self.list_remote(source, text, filters, fetch, &mut listed)?;
                continue;
            }
            let path = self.manifest.roots().resolve_glob(text)?;
            let files = list_files(&source.name, &[path], filters)?;
            admit(self.manifest, &files)?;
            listed.files.extend(files);
        }
        let mut seen = HashSet::new();
        listed.files.retain(|file| seen.insert(file.path.clone()));
        Ok(listed)
    }

    fn list_remote(
        &self,
        source: &Source,
        text: &str,
        filters: &Filters,
        fetch: &Fetcher,
        listed: &mut Listed,
    ) -> Result<(), PlanError> {
        match list_remote(&source.name, text, filters, fetch) {
            Ok((address, files)) => {
                listed.origins.push(address.to_string());
                listed.files.extend(files);
                Ok(())
            }
            Err(SourceError::Remote { source: error, .. })
                if self.unreachable == Unreachable::Noted && !error.is_usage() =>
            {
                let shown = Address::parse(text).map_or_else(|e| e.text, |a| a.to_string());
                listed.unlisted.push((shown, error.to_string()));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn filters(manifest: &Manifest, source: &Source) -> Filters {
    Filters {
        container: container(source.format),
        drop_vendored: source.drop_vendored != Some(false),
        extensions: source.extensions.clone(),
        languages: source.languages.clone(),
        exclude: source.exclude.clone(),
        relative_to: manifest.roots().allowed().to_vec(),
    }
}

/// The files of one source, for somebody who has no tokenizer yet; addresses that cannot be listed
/// now are noted.
///
/// # Errors
/// If a path leads where it may not, names nothing, or cannot be read.
pub fn list_source(
    manifest: &Manifest,
    source: &Source,
    fetch: Option<&Fetcher>,
) -> Result<Listed, PlanError> {
    Lister { manifest, fetch, unreachable: Unreachable::Noted }
        .list(source, &filters(manifest, source))
}

fn plan_source(
    lister: &Lister<'_>,
    (number, source): (u16, &Source),
    tokenizer: Option<&Vocabulary>,
) -> Result<SourcePlan, PlanError> {
    let manifest = lister.manifest;
    let filters = filters(manifest, source);
    let Listed { files, origins, unlisted } = lister.list(source, &filters)?;
    let chat = match (source.kind, tokenizer) {
        (SourceKind::Sft, Some(tokenizer)) => Some(ChatEncoder::new(tokenizer)?),
        (SourceKind::Text, _) | (SourceKind::Sft, None) => None,
    };
    let store = source.blobs.as_ref().map(|blobs| manifest.resolve(&blobs.store)).transpose()?;
    let blobs = store.map(|folder| Arc::new(BlobStore::open(&folder)));
    let shape = match (&source.blobs, &blobs) {
        (Some(keys), Some(store)) => RecordShape::Blob {
            id: keys.id.clone(),
            encoding: keys.encoding.clone(),
            store: Arc::clone(store),
            max_bytes: usize::try_from(manifest.data.max_document_bytes).unwrap_or(usize::MAX),
        },
        _ => shape(source)?,
    };
    Ok(SourcePlan {
        name: source.name.clone(),
        number,
        files,
        origins,
        unlisted,
        extractor: extractor(source, shape),
        cleaner: Cleaner::new(Clean::resolve(source.clean.as_ref(), manifest.data.clean.as_ref())),
        blobs,
        chat,
        members: Members {
            container: container(source.format),
            wanted: match source.members.as_deref() {
                None | Some([]) => None,
                Some(globs) => Some(glob_set(&source.name, globs)?),
            },
        },
        drop_generated: source.drop_generated != Some(false),
        budget: source.tokens.map(|tokens| tokens.0),
    })
}

/// Folders and globs find links; each must lead to where the manifest may read.
fn admit(manifest: &Manifest, files: &[InputFile]) -> Result<(), PathError> {
    let mut links = files.iter().filter(|file| file.path.is_symlink());
    links.try_for_each(|file| manifest.roots().admit(&file.path).map(drop))
}

fn benchmark_files(manifest: &Manifest, keys: &Decontaminate) -> Result<Vec<InputFile>, PlanError> {
    let paths = keys.files.iter().map(|path| manifest.roots().resolve_glob(path));
    let paths = paths.collect::<Result<Vec<PathBuf>, _>>()?;
    let relative_to = manifest.roots().allowed().to_vec();
    let files =
        list_files("data.decontaminate", &paths, &Filters { relative_to, ..Filters::default() })?;
    admit(manifest, &files)?;
    Ok(files)
}

fn container(format: Format) -> Option<Container> {
    Some(match format {
        Format::Auto => return None,
        Format::Jsonl => Container::Jsonl,
        Format::Json => Container::Json,
        Format::Pairs => Container::Pairs,
        Format::Parquet => Container::Parquet,
        Format::Arrow => Container::Arrow,
        Format::Text => Container::Text,
        Format::Code => Container::Code,
    })
}

fn extractor(source: &Source, shape: RecordShape) -> Extractor {
    let filters = source.keep.iter().flatten();
    let extractor = Extractor::new(shape)
        .with_filters(filters.map(|(column, rule)| Filter::new(column, rule.clone())).collect())
        .with_transforms(source.transforms.clone().unwrap_or_default());
    match &source.unnest {
        Some(unnest) => extractor.with_list(unnest),
        None => extractor,
    }
}

fn shape(source: &Source) -> Result<RecordShape, PlanError> {
    if let Some(template) = &source.text_template {
        let parsed = Template::parse(template)
            .map_err(|error| PlanError::Template { name: source.name.clone(), error })?;
        return Ok(RecordShape::Template(parsed));
    }
    if source.kind == SourceKind::Text {
        return Ok(RecordShape::Text { field: source.text_field.clone() });
    }
    let fields = source.fields.clone().unwrap_or_default();
    let or = |field: Option<String>, default: &str| field.unwrap_or_else(|| default.to_owned());
    match (fields.messages, fields.instruction, fields.output) {
        (Some(field), None, None) => Ok(RecordShape::Messages { field }),
        (None, instruction, output) => Ok(RecordShape::Pair {
            instruction: or(instruction, "instruction"),
            output: or(output, "output"),
        }),
        (Some(_), ..) => Err(PlanError::Fields { name: source.name.clone() }),
    }
}
