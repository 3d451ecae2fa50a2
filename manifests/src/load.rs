//! From YAML text to a checked manifest, and back.

use crate::node::{Node, ReadError, ReadErrorKind, Value};
use crate::{Blobs, Clean, Data, Decontaminate, Dedup, Preset, check, overrides, presets};
use crate::{
    Manifest, ManifestError, Overlong, Packing, PathError, Place, Profile, Roots, Source,
    SpanKinds, Tokenizer,
};
use serde::Serialize;
use serde_saphyr::Spanned;
use std::path::{Path, PathBuf};

/// A manifest is written by hand: what is larger than this is something else.
const MAX_BYTES: usize = 1 << 20;

impl Manifest {
    /// Reads and checks the manifest at `path`. `overrides` are `a.b.c=value` texts, applied in
    /// order; `allowed` are paths that the user gave on the command line, in which the manifest's
    /// paths may lie too (relative ones start at the current folder).
    ///
    /// # Errors
    /// If the file cannot be read, is no YAML, has an unknown key or a value that does not fit.
    pub fn load(
        path: &Path,
        overrides: &[impl AsRef<str>],
        allowed: &[PathBuf],
    ) -> Result<Self, ManifestError> {
        let read = |source| ManifestError::Read { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(read)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|&byte| byte == b'\n').count() as u64;
            let place = Place::File { line, column: 1 };
            let message = "this line is not UTF-8".to_owned();
            ManifestError::Yaml { path: path.to_owned(), place, message }
        })?;
        Self::from_yaml(&text, path, overrides, allowed)
    }

    /// Like [`Manifest::load`], from text. `path` names the manifest in errors, and relative paths
    /// start at its folder, which must exist.
    ///
    /// # Errors
    /// As [`Manifest::load`].
    pub fn from_yaml(
        text: &str,
        path: &Path,
        overrides: &[impl AsRef<str>],
        allowed: &[PathBuf],
    ) -> Result<Self, ManifestError> {
        let mut tree = parse(text).map_err(|(place, message)| ManifestError::Yaml {
            path: path.to_owned(),
            place,
            message,
        })?;
        for text in overrides {
            overrides::apply(&mut tree, text.as_ref())?;
        }
        presets::expand(&mut tree, path)?;
        let mut manifest: Self = tree.read().map_err(|error| explain(error, path, &tree))?;
        if let Err(problem) = check::check(&manifest) {
            return Err(ManifestError::Value {
                path: path.to_owned(),
                place: tree.place_of(&problem.key),
                key: problem.key,
                message: problem.message,
                hint: problem.hint.map(String::into_boxed_str),
            });
        }
        manifest.roots = Roots::new(path.parent().unwrap_or(Path::new("")))?;
        for root in &manifest.allowed_roots {
            manifest.roots.allow(Path::new(root))?;
        }
        for path in allowed {
            manifest.allow(path)?;
        }
        Ok(manifest)
    }

    /// Allows one more path, given by the user on the command line: relative to the current folder.
    ///
    /// # Errors
    /// If it cannot be looked up.
    pub fn allow(&mut self, path: &Path) -> Result<(), PathError> {
        let absolute = std::path::absolute(path)
            .map_err(|source| PathError::LookUp { text: path.display().to_string(), source })?;
        self.roots.allow(&absolute)
    }

    /// Where this manifest's paths may lead.
    #[must_use]
    pub const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The file that a path of this manifest names ([`Roots::resolve`]).
    ///
    /// # Errors
    /// If the path leads outside the allowed roots.
    pub fn resolve(&self, text: &str) -> Result<PathBuf, PathError> {
        self.roots.resolve(text)
    }

    /// What happens to conversations longer than a row: the key, or what the profile says.
    #[must_use]
    pub fn overlong(&self) -> Overlong {
        self.data.overlong.unwrap_or(match self.profile {
            Profile::CodaPaper => Overlong::Truncate,
            Profile::CodaRepo => Overlong::Drop,
        })
    }

    /// The manifest with its overrides and presets written out, as YAML that loads to the same
    /// manifest in the same folder.
    ///
    /// # Panics
    /// Never: every manifest is a tree of plain values.
    #[must_use]
    pub fn to_resolved_yaml(&self) -> String {
        let mut tree = serde_json::to_value(self).expect("a manifest is a tree of plain values");
        for (index, source) in self.data.sources.iter().enumerate() {
            let Some(preset) = source.preset.as_deref().and_then(Preset::named) else { continue };
            // A key that was taken away stays away.
            let Some(keys) = tree["data"]["sources"][index].as_object_mut() else { continue };
            for key in preset.key_names() {
                let nothing = match key.as_str() {
                    "exclude" => serde_json::json!([]),
                    _ => serde_json::Value::Null,
                };
                keys.entry(key).or_insert(nothing);
            }
        }
        serde_saphyr::to_string(&tree).expect("a manifest is a tree of plain values")
    }

    /// BLAKE3, as hex, of the keys that decide the bytes of the shard set: the control tokens, the
    /// row length, the shard size, the document limit, the handling of long conversations, the packing,
    /// cleaning with its profiles spelled out, deduplication, decontamination and the sources without
    /// their weights and epochs, presets as the keys that they stand for. Not the content of any file,
    /// and not where the output goes.
    ///
    /// # Panics
    /// Never: every manifest is a tree of plain values.
    #[must_use]
    pub fn hash(&self) -> String {
        #[derive(Serialize)]
        struct Decisive<'a> {
            version: u32,
            tokenizer: Tokenizer,
            row_length: u32,
            rows_per_shard: u32,
            max_document: u64,
            overlong: Overlong,
            #[serde(skip_serializing_if = "Packing::is_default")]
            packing: Packing,
            #[serde(skip_serializing_if = "Option::is_none")]
            spans: Option<SpanKinds>,
            #[serde(skip_serializing_if = "Option::is_none")]
            dedup: Option<Dedup>,
            #[serde(skip_serializing_if = "Option::is_none")]
            decontaminate: Option<&'a Decontaminate>,
            sources: Vec<&'a Source>,
        }
        let Data { row_length, rows_per_shard, max_document_bytes, .. } = self.data;
        let unweighted: Vec<Source> = self
            .data
            .sources
            .iter()
            .map(|source| {
                let clean = Clean::resolve(source.clean.as_ref(), self.data.clean.as_ref());
                Source {
                    weight: None,
                    epochs: None,
                    preset: None,
                    clean: (!clean.is_off()).then_some(clean),
                    blobs: source.blobs.as_ref().map(Blobs::decisive),
                    ..source.clone()
                }
            })
            .collect();
        let decisive = Decisive {
            version: self.version,
            tokenizer: Tokenizer { path: String::new(), ..self.tokenizer.clone() },
            row_length,
            rows_per_shard,
            max_document: max_document_bytes,
            overlong: self.overlong(),
            packing: self.data.packing,
            spans: self.data.spans,
            dedup: self.data.dedup.clone().map(|dedup| Dedup { memory: 0, ..dedup }),
            decontaminate: self.data.decontaminate.as_ref(),
            sources: unweighted.iter().collect(),
        };
        let json = serde_json::to_vec(&decisive).expect("a manifest is a tree of plain values");
        blake3::hash(&json).to_hex().to_string()
    }
}

/// Parses YAML text into a tree, within limits that no manifest comes near.
pub(crate) fn parse(text: &str) -> Result<Node, (Place, String)> {
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes are too many: at most {MAX_BYTES}", text.len());
        return Err((Place::File { line: 1, column: 1 }, message));
    }
    let budget = serde_saphyr::budget! {
        max_events: 50_000,
        max_aliases: 100,
        max_anchors: 100,
        max_recorded_anchor_events: 10_000,
        max_recorded_anchor_bytes: MAX_BYTES,
        max_depth: 24,
        max_documents: 1,
        max_nodes: 20_000,
        max_total_scalar_bytes: MAX_BYTES,
    };
    let mut options = serde_saphyr::options! {
        budget: budget,
        // `off` is a word, as in YAML 1.2.
        strict_booleans: true,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = 10_000;
    let tree = serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options);
    tree.map(Node::from).map_err(|error| {
        let (line, column) =
            error.location().map_or((1, 1), |location| (location.line(), location.column()));
        // The place is told apart from the message.
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        (Place::File { line, column }, message)
    })
}

/// Says which key of the manifest cannot be read, and which was meant.
fn explain(error: ReadError, path: &Path, tree: &Node) -> ManifestError {
    let place = error.place.clone().unwrap_or_else(|| tree.place.clone());
    let path = path.to_owned();
    let mut key = error.path.join(".");
    match error.kind {
        ReadErrorKind::Unknown { name, known } => {
            let prefix = key.strip_suffix(&name).unwrap_or_default();
            let nearest = nearest(&name, known).map(|nearest| format!("{prefix}{nearest}"));
            let known = known.iter().map(|&name| name.to_owned()).collect();
            ManifestError::UnknownKey { path, place, nearest, known, key }
        }
        kind => {
            let (message, hint) = match kind {
                ReadErrorKind::Missing(name) => (
                    format!("the key `{name}` is missing"),
                    Some(format!("docs/manifest.md says what `{name}` is")),
                ),
                ReadErrorKind::Other(message) => (message, None),
                ReadErrorKind::Unknown { .. } => unreachable!("handled above"),
            };
            if key.is_empty() {
                "manifest".clone_into(&mut key);
            }
            let hint = hint.map(String::into_boxed_str);
            ManifestError::Value { path, place, key, message, hint }
        }
    }
}

/// The known name that a misspelled one most likely stands for.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), other);
    known
        .iter()
        .map(|&other| (likeness(other), other))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}
