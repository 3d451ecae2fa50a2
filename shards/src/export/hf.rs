//! A folder that Hugging Face `datasets` opens with `load_from_disk`: Arrow streams, one for each
//! shard, with `dataset_info.json` and `state.json`.

use super::{ExportError, Exported, Selected, Tick, by_shard, documents::Output, step};
use crate::{
    ShardSet,
    arrow::RowStream,
    commit::{AtomicDir, FileError},
};
use serde_json::{Value, json};
use std::{io::Write as _, path::Path};

/// Writes the chosen rows, whole, into a new folder, which appears whole or not at all.
///
/// # Errors
/// [`ExportError`]; then nothing is left.
pub fn write_hf(
    set: &ShardSet,
    selected: &[Selected],
    out: &Path,
    tick: &mut Tick<'_>,
) -> Result<Exported, ExportError> {
    let dir = AtomicDir::create(out)?;
    let index = set.index();
    let names: Vec<&str> = set.sources().iter().map(|source| source.name.as_str()).collect();
    let files = by_shard(set, selected);
    let mut done = Exported::default();
    for (number, ranges) in files.iter().enumerate() {
        let name = format!("data-{number:05}-of-{:05}.arrow", files.len());
        let path = dir.path().join(&name);
        let error = |e| FileError::new("write", &path, e);
        let sink = Output::create(path.clone())?;
        let mut stream = RowStream::new(sink, index, &names).map_err(error)?;
        for number in ranges.clone().into_iter().flatten() {
            stream.push(&set.row(number)?).map_err(error)?;
            done.rows += 1;
            step(tick, 1)?;
        }
        stream.finish().map_err(error)?.finish()?;
        done.files.push(name);
    }
    done.tokens = done.rows * u64::from(index.row_length);
    let shards: Vec<Value> = done.files.iter().map(|name| json!({ "filename": name })).collect();
    let state = json!({
        "_data_files": shards,
        "_fingerprint": fingerprint(set, selected),
        "_format_columns": null,
        "_format_kwargs": {},
        "_format_type": null,
        "_output_all_columns": false,
        "_split": null,
    });
    write_json(dir.path(), "state.json", &state)?;
    write_json(dir.path(), "dataset_info.json", &info(set, selected))?;
    done.files.extend(["dataset_info.json", "state.json"].map(str::to_owned));
    dir.commit()?;
    Ok(done)
}

/// The types of the columns are left to the Arrow schema: their names in this file have changed from
/// one version of `datasets` to the next.
fn info(set: &ShardSet, selected: &[Selected]) -> Value {
    let index = set.index();
    let chosen: Vec<_> =
        selected.iter().map(|chosen| &set.sources()[usize::from(chosen.source)]).collect();
    let mut licenses: Vec<&str> =
        chosen.iter().map(|source| source.license.as_deref().unwrap_or("not stated")).collect();
    licenses.dedup();
    let names: Vec<&str> = chosen.iter().map(|source| source.name.as_str()).collect();
    json!({
        "citation": "",
        "description": format!(
            "Rows of {} tokens of {}, for masked diffusion training; from the CODA shard set {}. Ids: \
             eos {}, pad {}, mask {}; BLAKE3 of the tokenizer {}.",
            index.row_length,
            names.join(", "),
            index.fingerprint,
            index.specials.eos,
            index.specials.pad,
            index.specials.mask,
            index.tokenizer_fingerprint(),
        ),
        "homepage": "",
        "license": licenses.join(", "),
    })
}

/// Names the content, as `datasets` wants it for its caches.
fn fingerprint(set: &ShardSet, selected: &[Selected]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"coda export hf 1\0");
    hasher.update(set.fingerprint().as_bytes());
    for chosen in selected {
        hasher.update(&chosen.rows.start.to_le_bytes());
        hasher.update(&chosen.rows.end.to_le_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn write_json(dir: &Path, name: &str, value: &Value) -> Result<(), FileError> {
    let mut file = Output::create(dir.join(name))?;
    file.put(|sink| writeln!(sink, "{value:#}"))?;
    file.finish()
}
