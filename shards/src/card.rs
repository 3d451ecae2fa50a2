//! `README.md` of a shard set: what is in it, for people.

use crate::Index;
use std::fmt::Write as _;

/// The card. It is a pure function of the index (without fingerprint and without its own hash).
pub(crate) fn render(index: &Index) -> String {
    let totals = &index.totals;
    let mut card = format!(
        "# Shard set\n\n\
         Packed rows of {} tokens for training a masked diffusion language model, written by \
         `coda-ingest`.\n\n\
         | | |\n|---|---|\n\
         | rows | {} in {} shards |\n\
         | documents | {} |\n\
         | tokens | {} (and {} pads) |\n\
         | rejected records | {} (`rejects.jsonl`) |\n\
         | input bytes | {} |\n\
         | special ids | eos {}, pad {}, mask {} |\n\
         | tokenizer (BLAKE3) | `{}` |\n\
         | manifest | `{}` |\n{}\n\
         ## Sources\n\n\
         | source | licence | documents | tokens | rows | rejected |\n|---|---|--:|--:|--:|--:|\n",
        index.row_length,
        index.rows,
        index.shards.len(),
        totals.documents,
        totals.tokens,
        totals.padding_tokens,
        totals.rejected,
        totals.input_bytes,
        index.specials.eos,
        index.specials.pad,
        index.specials.mask,
        index.tokenizer_fingerprint(),
        index.manifest_hash,
        index.spans.map(|kinds| format!("| spans of the text | {kinds} |\n")).unwrap_or_default(),
    );
    for source in &index.sources {
        let license = source.license.as_deref().unwrap_or("not stated");
        // Writing to a string cannot fail.
        let _ = writeln!(
            card,
            "| {} | {} | {} | {} | {} | {} |",
            cell(&source.name),
            cell(license),
            source.documents,
            source.tokens,
            source.rows,
            source.rejected(),
        );
    }
    let remote = index.sources.iter().filter(|source| !source.origins.is_empty());
    for (number, source) in remote.enumerate() {
        card.push_str(if number == 0 { "\n## Where it comes from\n\n" } else { "" });
        let origins: Vec<String> =
            source.origins.iter().map(|o| format!("`{}`", cell(o))).collect();
        let _ = writeln!(card, "* {}: {}", cell(&source.name), origins.join(", "));
    }
    left_out(&mut card, index);
    card.push_str(
        "\n## Reading it\n\n\
         Every shard is an uncompressed Arrow IPC file; any Arrow reader maps it without a copy:\n\n\
         ```python\n\
         import pyarrow as pa\n\
         table = pa.ipc.open_file(pa.memory_map(\"shard-00000.arrow\")).read_all()\n\
         tokens = table[\"tokens\"]  # FixedSizeList<uint32>\n\
         ```\n\n\
         `index.json` lists the shards with their checksums; `coda-ingest verify` holds them \
         against the files.\n",
    );
    card
}

/// Usable records that a rule of the manifest left out; nothing when there are none.
fn left_out(card: &mut String, index: &Index) {
    if index.sources.iter().all(|source| source.drops.is_empty()) {
        return;
    }
    card.push_str("\n## Left out by a rule\n\n| source | rule | records |\n|---|---|--:|\n");
    for source in &index.sources {
        for (rule, count) in &source.drops {
            let _ = writeln!(card, "| {} | `{}` | {count} |", cell(&source.name), cell(rule));
        }
    }
}

/// Text that cannot break out of its table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
