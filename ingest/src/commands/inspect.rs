//! `coda-ingest inspect`.

use clap::Args;
use coda_cli::{Exit, Failure, human, print_json, print_text};
use coda_ingest::tokenize::HfEncoder;
use coda_manifests::SpanKind;
use coda_shards::{Row, ShardSet, SyntaxSpan};
use serde::Serialize;
use std::{fmt::Write as _, path::PathBuf};

/// Show what a shard set holds: the whole, or one row.
#[derive(Args)]
#[command(after_help = "\
Examples:
  coda-ingest inspect shards/pre
  coda-ingest inspect shards/pre --row 17
  coda-ingest inspect shards/pre --row 17 --text
  coda-ingest inspect shards/pre --row 17 --json")]
pub(crate) struct Inspect {
    /// The shard set.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show this row, from 0.
    #[arg(long, value_name = "N")]
    row: Option<u64>,
    /// Decode the row's tokens to text.
    #[arg(long, requires = "row")]
    text: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct RowView<'a> {
    row: u64,
    row_key: u64,
    source: u16,
    source_name: &'a str,
    prefix_len: u32,
    valid_len: u32,
    segments: &'a [u32],
    /// Whether the first segment goes on from the row before.
    continued: bool,
    maskable: Vec<[u32; 2]>,
    /// Start, length and kind, in sets whose rows have spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<Vec<(u32, u32, &'static str)>>,
    tokens: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let set = ShardSet::open(&self.dir).map_err(|error| super::shard_failure(&error))?;
        match self.row {
            Some(row) => self.row(&set, row)?,
            None if self.json => print_json(set.index())?,
            None => print_text(&summary(&set))?,
        }
        Ok(Exit::Done)
    }

    fn row(&self, set: &ShardSet, number: u64) -> Result<(), Failure> {
        let row = set.row(number).map_err(|error| super::shard_failure(&error))?;
        let text = self.text.then(|| decode(set, &row)).transpose()?;
        let maskable =
            row.maskable_starts.iter().zip(row.maskable_lens).map(|(&s, &l)| [s, l]).collect();
        let source = &set.sources()[usize::from(row.source)];
        let view = RowView {
            row: number,
            row_key: row.row_key,
            source: row.source,
            source_name: &source.name,
            prefix_len: row.prefix_len,
            valid_len: row.valid_len,
            segments: row.segments,
            continued: continued(set, number, source.first_row)?,
            maskable,
            spans: set.index().spans.map(|_| spans(&row)),
            tokens: row.tokens,
            text,
        };
        if self.json { print_json(&view) } else { print_text(&render(&view)) }
    }
}

/// The spans of a row's text, with the names of their kinds.
fn spans(row: &Row<'_>) -> Vec<(u32, u32, &'static str)> {
    let named = |span: SyntaxSpan| {
        let kind = SpanKind::ALL.into_iter().find(|kind| kind.code() == span.kind)?;
        Some((span.start, span.len, kind.name()))
    };
    row.spans.iter().filter_map(named).collect()
}

/// A row goes on from the one before when that one, of the same source, does not end a document.
fn continued(set: &ShardSet, number: u64, first_row: u64) -> Result<bool, Failure> {
    if number == first_row {
        return Ok(false);
    }
    let before = set.row(number - 1).map_err(|error| super::shard_failure(&error))?;
    let packed = before.prefix_len == 0 && before.valid_len == set.row_length();
    Ok(packed && before.tokens.last() != Some(&set.specials().eos))
}

fn decode(set: &ShardSet, row: &Row<'_>) -> Result<String, Failure> {
    let tokenizer = HfEncoder::load(&set.tokenizer_path(), false)
        .map_err(|e| Failure::from_error(Exit::Incompatible, &e).maybe_hint(e.hint()))?;
    tokenizer
        .decode(&row.tokens[..row.valid_len as usize])
        .map_err(|e| Failure::from_error(Exit::Incompatible, &e))
}

fn render(view: &RowView<'_>) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "row         {}", view.row);
    let _ = writeln!(out, "row_key     {:#018x}", view.row_key);
    let _ = writeln!(out, "source      {} ({})", view.source, view.source_name);
    let _ = writeln!(out, "prefix_len  {}", view.prefix_len);
    let _ = writeln!(out, "valid_len   {} of {}", view.valid_len, view.tokens.len());
    let from = if view.continued { " (the first goes on from the row before)" } else { "" };
    let _ = writeln!(out, "segments    {:?}{from}", view.segments);
    let _ = writeln!(out, "maskable    {:?} (start, length)", view.maskable);
    if let Some(spans) = &view.spans {
        let _ = writeln!(out, "spans       {spans:?} (start, length, kind)");
    }
    match &view.text {
        Some(text) => {
            let _ = writeln!(out, "text\n{text}");
        }
        None => {
            let _ = writeln!(out, "tokens      {:?}", view.tokens);
        }
    }
    out
}

fn summary(set: &ShardSet) -> String {
    let index = set.index();
    let totals = &index.totals;
    let mut out = String::new();
    let _ = writeln!(out, "{}", set.dir().display());
    let _ = writeln!(out, "fingerprint  {}", index.fingerprint);
    let _ = writeln!(
        out,
        "rows         {} of {} tokens in {} shards",
        index.rows,
        index.row_length,
        index.shards.len()
    );
    let bytes = index.shards.iter().map(|shard| shard.bytes).sum();
    let _ = writeln!(out, "size         {}", human::bytes(bytes));
    let _ = writeln!(
        out,
        "tokens       {} and {} of padding, from {} documents ({} of text)",
        human::count(totals.tokens),
        human::count(totals.padding_tokens),
        human::count(totals.documents),
        human::bytes(totals.input_bytes),
    );
    let _ = writeln!(out, "rejected     {} records", totals.rejected);
    let ids = index.specials;
    let _ = writeln!(out, "ids          eos {}, pad {}, mask {}", ids.eos, ids.pad, ids.mask);
    if let Some(kinds) = index.spans {
        let _ = writeln!(out, "spans        {kinds}");
    }
    for source in &index.sources {
        let _ = writeln!(
            out,
            "source       {}: rows {}..{}, {} tokens, {} documents, licence {}",
            source.name,
            source.first_row,
            source.first_row + source.rows,
            human::count(source.tokens),
            human::count(source.documents),
            source.license.as_deref().unwrap_or("not given"),
        );
        for (reason, count) in &source.rejects {
            let _ = writeln!(out, "             {count} rejected: {reason}");
        }
    }
    out
}
