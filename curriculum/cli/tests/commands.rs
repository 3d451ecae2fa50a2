//! The command line as scripts see it: output, files, exit codes.

mod support;

use coda_curriculum::{RowView, SyntaxSpans, plan_row};
use coda_manifests::Manifest;
use coda_shards::{Order, RowBuf, ShardSet, ShardWriter, SourceReport, Span, Specials};
use coda_shards::{WriterOptions, row_key};
use coda_stages::Recipe;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};
use support::House;

const LENGTH: u32 = 32;
const SPECIALS: Specials = Specials { eos: 0, pad: 1, mask: 2 };
const MANIFEST: &str = "
version: 1
name: small
stage: mid
seed: 99
tokenizer: {path: tokenizer.json}
data:
  out: shards
  row_length: 32
  held_out: 0.1
  sources:
    - {name: code, paths: [code.jsonl], weight: 3}
    - {name: text, paths: [text.jsonl], weight: 1}
curriculum: {p2: {linear: {to: 0.5, steps: 40}}}
train: {steps: 100, global_batch: 4}
";

/// A manifest, a tokenizer of words `w0 w1 …`, and a shard set of 30 and 20 rows.
impl House {
    fn new() -> Self {
        let house = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        fs::write(house.path("run.yaml"), MANIFEST).expect("the manifest");
        let words: Vec<String> = (0..80).map(|id| format!("\"w{id}\":{id}")).collect();
        let tokenizer = format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":null,"post_processor":null,"decoder":null,
            "model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"w0"}}}}"#,
            words.join(",")
        );
        fs::write(house.path("tokenizer.json"), tokenizer).expect("the tokenizer");
        house
    }

    fn with_shards() -> Self {
        let house = Self::new();
        let names = ["code", "text"];
        let options = WriterOptions {
            row_length: LENGTH,
            rows_per_shard: 16,
            specials: SPECIALS,
            spans: None,
            tokenizer: house.path("tokenizer.json"),
            manifest_hash: "none".to_owned(),
            sources: names.map(str::to_owned).to_vec(),
            replace: false,
        };
        let mut writer = ShardWriter::create(house.path("shards"), options).expect("a writer");
        for (source, rows) in [(0u16, 30u32), (1, 20)] {
            for ordinal in 0..rows {
                let valid_len = if ordinal == 7 { 20 } else { LENGTH };
                let token = |p| if p < valid_len { 3 + (p + ordinal) % 70 } else { SPECIALS.pad };
                let row = RowBuf {
                    tokens: (0..LENGTH).map(token).collect(),
                    segments: vec![0],
                    row_key: row_key(names[usize::from(source)], u64::from(ordinal)),
                    source,
                    prefix_len: 0,
                    valid_len,
                    maskable: vec![Span { start: 0, len: LENGTH }],
                    spans: Vec::new(),
                };
                writer.push(&row).expect("a row");
            }
        }
        let report = |name: &str| SourceReport {
            name: name.to_owned(),
            documents: 1,
            ..SourceReport::default()
        };
        writer.finish(names.map(report).to_vec()).expect("an index");
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[test]
fn rows_without_spans_cannot_be_masked_by_them() {
    let house = House::with_shards();
    let over = ["data.spans=lines", "curriculum.mask_blocks=lines", "curriculum.p3=0.5"];
    for command in [&["show"][..], &["draw", "--step", "3"]] {
        let output = house.run(&[command, &["--manifest", "run.yaml"], &over[..]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        let named = ["curriculum.mask_blocks", "lines", "hint: set `data.spans: lines`"];
        assert!(named.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
    // Without a set there is nothing to miss yet.
    let show = ["show", "--manifest", "run.yaml", "--rows", "100"];
    let table = house.stdout(&[&show[..], &over[..], &["curriculum.block_sizes=[40]"]].concat());
    assert!(table.contains("S3: the longest whole lines in tokens"), "{table}");
    let json = house.stdout(&[&show[..], &over[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let line = &json["lines"][0];
    assert_eq!(line["mask_blocks"], "lines");
    // Every position is masked at sigma: what is masked is what single tokens come to.
    let plain = house.stdout(&[&show[..], &["curriculum.p3=0", "--json"]].concat());
    let plain: serde_json::Value = serde_json::from_str(&plain).expect("JSON");
    let masked = "expected_masked_fraction";
    assert_eq!(line[masked], plain["lines"][0][masked]);
    house.stdout(&[&show[..], &over[..], &["--html", "page.html"]].concat());
    let page = fs::read_to_string(house.path("page.html")).expect("a page");
    for text in ["S3 masks whole lines of up to", "follows from the text", "have no text"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn show_prints_a_table() {
    let house = House::new();
    insta::assert_snapshot!(house.stdout(&["show", "--manifest", "run.yaml"]));
}

#[test]
fn show_as_json_is_one_object_with_a_line_per_epoch_or_phase() {
    let house = House::new();
    let shown = house.json(&["show", "--manifest", "run.yaml", "--json"]);
    assert_eq!(shown["total_steps"], 100);
    let lines = shown["lines"].as_array().expect("lines");
    let starts: Vec<u64> = lines.iter().filter_map(|line| line["first_step"].as_u64()).collect();
    assert_eq!(starts, [0, 20, 40, 60, 80], "Table 3 has five epochs");
    let column = |key: &str| lines.iter().map(|l| l[key].as_f64().expect(key)).collect::<Vec<_>>();
    assert_eq!(column("p1"), [0.01, 0.05, 0.1, 0.15, 0.2]);
    assert_eq!(column("p3"), [0.05, 0.1, 0.15, 0.2, 0.25]);
    assert_eq!(column("p2"), [0.0, 0.25, 0.5, 0.5, 0.5], "as the manifest says");
    assert_eq!(lines[1]["tokens_seen"], 40 * 4 * u64::from(LENGTH));
    for key in [
        "epoch",
        "steps",
        "block_sizes",
        "sampling_eps",
        "conditioned_span_ratio",
        "learning_rate",
        "expected_masked_fraction",
        "expected_scored_tokens",
        "expected_loss_weight",
        "s1_share",
        "s2_share",
        "s3_share",
        "last",
    ] {
        assert!(!lines[0][key].is_null(), "{key}");
    }
    let overridden = house.json(&["show", "--manifest", "run.yaml", "--json", "curriculum.p1=0.5"]);
    assert_eq!(overridden["lines"][0]["p1"], 0.5);
}

#[test]
fn show_draws_a_picture_and_a_self_contained_page() {
    let house = House::new();
    let args = ["show", "--manifest", "run.yaml", "--svg", "a.svg", "--html", "a.html"];
    assert_eq!(house.stdout(&args), "");
    let told = String::from_utf8_lossy(&house.run(&args).stderr).into_owned();
    assert!(told.contains("a.svg is written") && told.contains("a.html is written"), "{told}");
    let svg = fs::read_to_string(house.path("a.svg")).expect("the picture");
    for text in ["<svg", "S1 unmaskable prefix", "Block sizes of S3", "Learning rate", "step"] {
        assert!(svg.contains(text), "{text}");
    }
    let page = fs::read_to_string(house.path("a.html")).expect("the page");
    assert_self_contained(&page);
    for text in [
        "What small shows the model",
        "S1 leaves the start of a row unmasked, up to a random cut. Share of rows: 1% at first, 20% in the end.",
        "How much of a row is masked",
        "How long the masked runs are",
        "There is no shard set yet",
        "prefers-color-scheme: dark",
        "<table>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("class=\"heat\"").count(), 3, "start, middle and end");
    let mut files: Vec<_> = fs::read_dir(house.dir.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["a.html", "a.svg", "run.yaml", "tokenizer.json"],
        "and nothing is left over"
    );
}

/// One file that asks for nothing else, and whose elements are all closed.
fn assert_self_contained(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for outside in ["<script", "<link", "src=", "href=", "url(", "@import", "http:"] {
        assert!(!page.contains(outside), "the page reaches outside: {outside}");
    }
    for element in ["figure", "svg", "table", "tr", "td", "div", "ul", "li", "p", "text", "dl"] {
        let opened = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn show_says_what_the_rows_that_are_there_come_to() {
    let house = House::with_shards();
    let show = |more: &[&str]| {
        let args =
            ["show", "--manifest", "run.yaml", "--json", "curriculum.p1=0", "curriculum.p3=0"];
        house.json(&[&args[..], more].concat())["shard_set_rows"].clone()
    };
    // Without strategies 0.5005 of the maskable positions are masked. Of 50 rows two have 12 pads; one of
    // three in four positions is of the code's 27 rows, one in four of the text's 18.
    let full = show(&["curriculum.p2=0"]);
    let masked =
        |value: &Value| value["first"]["expected_masked_fraction"].as_f64().expect("a share");
    assert!((masked(&full) - 0.5005).abs() < 1e-9, "pads are masked as long as S2 is off: {full}");
    let open = masked(&show(&["curriculum.p2=0", "train.score_pads=false"]));
    let pads = (0.75 / 27.0 + 0.25 / 18.0) * 12.0 / f64::from(LENGTH);
    assert!((open - 0.5005 * (1.0 - pads)).abs() < 0.1 * 0.5005 * pads, "{open}, {pads}");
    assert_eq!(full["rows"], 400, "a hundred steps of four");
    let text = house.stdout(&["show", "--manifest", "run.yaml", "curriculum.p2=0"]);
    let said = "(the mean of 400 visits): masked 48.8% at first, 40.6% in the end;";
    assert!(text.contains(said), "{text}");
}

#[test]
fn show_draws_the_rows_that_are_there() {
    let house = House::with_shards();
    house.stdout(&["show", "--manifest", "run.yaml", "--html", "a.html"]);
    let page = fs::read_to_string(house.path("a.html")).expect("the page");
    assert_self_contained(&page);
    assert!(page.contains("the first rows of the batches that the trainer will see"), "{page}");
    // Row 7 of the code has pads; the page of a run over full rows alone would have none at p2 = 0.
    let plain = [
        "show",
        "--manifest",
        "run.yaml",
        "--html",
        "b.html",
        "curriculum.p2=0",
        "train.global_batch=24",
    ];
    house.stdout(&[&plain[..], &["train.score_pads=false"]].concat());
    let page = fs::read_to_string(house.path("b.html")).expect("the page");
    assert!(page.contains("<path class=\"cut\""), "pads are seen");
}

/// The distributions of the JSON output are those of the library, and hold what the averages say.
#[test]
fn show_as_json_has_distributions_that_fit_the_averages() {
    let house = House::new();
    let shown = house.json(&["show", "--manifest", "run.yaml", "--json", "curriculum.p2=0.25"]);
    for line in shown["lines"].as_array().expect("lines") {
        let real = |value: &Value| value.as_f64().expect("a number");
        let fractions = line["masked_fraction"].as_array().expect("a histogram");
        assert_eq!(fractions.len(), 20);
        assert!((fractions.iter().map(real).sum::<f64>() - 1.0).abs() < 1e-6);
        let middles = (0..20).map(|i| (f64::from(i) + 0.5) / 20.0);
        let mean: f64 = fractions.iter().zip(middles).map(|(share, at)| real(share) * at).sum();
        // Bins are wider than the 32 positions are fine.
        assert!((mean - real(&line["expected_masked_fraction"])).abs() < 0.03, "{line}");
        let runs = line["masked_runs"].as_array().expect("runs");
        let ends: Vec<u64> = runs.iter().map(|bin| bin["to"].as_u64().expect("a length")).collect();
        assert_eq!(ends, [1, 2, 4, 8, 16, 32]);
        let shares = runs.iter().map(|bin| real(&bin["share_of_masked_tokens"])).sum::<f64>();
        assert!((shares - 1.0).abs() < 1e-9);
    }
}

/// The pictures of `docs/curriculum.md`. After a change that is meant:
/// `for f in docs/examples/*.yaml; do coda-curriculum show --manifest $f --svg docs/images/$(basename $f .yaml).svg; done`
#[test]
fn the_pictures_of_the_documentation_are_those_that_show_draws() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = fs::read_to_string(docs.join("curriculum.md")).expect("the page");
    let house = House::new();
    let mut pictures = 0;
    for example in fs::read_dir(docs.join("examples")).expect("the examples") {
        let example = example.expect("an example").path();
        let name = example.file_stem().and_then(|name| name.to_str()).expect("a name");
        let picture = format!("{name}.svg");
        house.stdout(&["show", "--manifest", example.to_str().expect("UTF-8"), "--svg", "new.svg"]);
        let drawn = fs::read_to_string(house.path("new.svg")).expect("the picture");
        let committed = fs::read_to_string(docs.join("images").join(&picture)).expect("a picture");
        assert!(drawn == committed, "docs/images/{picture} is not what `show --svg` draws");
        assert!(page.contains(&format!("images/{picture}")), "{picture} is not shown");
        pictures += 1;
    }
    assert_eq!(pictures, 5);
}

const BY_SOURCE: &str = "curriculum.sources={code: {p3: {cosine: {from: 0.2, to: 0.8, steps: 60}}, \
                         block_sizes: {piecewise: [[0, 2], [50, [4, 8]]]}}}";

#[test]
fn show_has_a_block_for_each_source_that_differs_and_the_mix() {
    let house = House::new();
    insta::assert_snapshot!(house.stdout(&["show", "--manifest", "run.yaml", BY_SOURCE]));
    let shown = house.json(&["show", "--manifest", "run.yaml", "--json", BY_SOURCE]);
    let own = &shown["sources"][0];
    assert_eq!((own["source"].as_str(), own["share"].as_f64()), (Some("code"), Some(0.75)));
    let at = |value: &Value, key: &str| value[key].as_f64().expect(key);
    for (i, line) in shown["mix"].as_array().expect("the mix").iter().enumerate() {
        let step = line["first_step"].as_u64().expect("a step");
        let of = |lines: &Value| {
            let lines = lines.as_array().expect("lines").clone();
            lines.into_iter().find(|line| line["first_step"] == step)
        };
        // Where a line begins in both, the mix is three parts code and one part the rest.
        if let (Some(code), Some(rest)) = (of(&own["lines"]), of(&shown["lines"])) {
            for key in ["s3_share", "expected_masked_fraction", "expected_scored_tokens"] {
                let mixed = 0.75 * at(&code, key) + 0.25 * at(&rest, key);
                assert!((at(line, key) - mixed).abs() < 1e-12, "line {i}, {key}");
            }
        }
    }
    house.stdout(&["show", "--manifest", "run.yaml", "--html", "a.html", BY_SOURCE]);
    let page = fs::read_to_string(house.path("a.html")).expect("the page");
    assert_self_contained(&page);
    assert!(page.contains("<h2>Source code, 75% of the rows</h2>"));
    let (code, stderr) =
        house.refused(&["show", "--manifest", "run.yaml", "curriculum.sources.cod.p1=1"]);
    assert!(code == 2 && stderr.contains("did you mean `code`?"), "{stderr}");
}

#[test]
fn draw_goes_by_the_schedules_of_a_rows_source() {
    let house = House::with_shards();
    let drawn =
        |own: &str| house.json(&["draw", "--manifest", "run.yaml", "--step", "55", "--json", own]);
    let (plain, own) = (
        drawn("curriculum.p3=0"),
        drawn("curriculum={p3: 0, sources: {code: {p3: 1, block_sizes: 3}}}"),
    );
    let rows = |value: &Value| value["rows"].as_array().expect("rows").clone();
    let mut blocks = 0;
    for (plain, own) in rows(&plain).iter().zip(&rows(&own)) {
        assert_eq!(plain["key"], own["key"]);
        if own["source"] == "code" {
            assert_eq!(own["block_size"], 3);
            blocks += 1;
        } else {
            assert_eq!(plain["masked"], own["masked"]);
        }
    }
    assert!(blocks > 0);
}

/// What the trainer's feed does for a position, from the same public functions.
fn as_trained(dir: &Path, step: u64, position: u64) -> (u64, coda_curriculum::MaskPlan) {
    let manifest = Manifest::load(&dir.join("run.yaml"), &[""; 0], &[]).expect("the manifest");
    let set = ShardSet::open(dir.join("shards")).expect("the shard set");
    let mut ranges = set.source_ranges(manifest.data.held_out);
    for (range, source) in ranges.iter_mut().zip(&manifest.data.sources) {
        range.weight = source.weight;
    }
    let order = Order::new(manifest.seed, &ranges).expect("an order");
    let recipe = Recipe::resolve(&manifest, Some(order.train_rows())).expect("a recipe");
    let at = order.at(position);
    let row = set.row(at.row).expect("the row");
    let view = RowView {
        length: LENGTH,
        row_key: row.row_key,
        epoch: at.epoch,
        prefix_len: row.prefix_len,
        valid_len: row.valid_len,
        maskable_starts: row.maskable_starts,
        maskable_lens: row.maskable_lens,
        spans: SyntaxSpans {
            starts: row.spans.starts,
            lens: row.spans.lens,
            kinds: row.spans.kinds,
        },
    };
    let settings = recipe.curriculum.settings(recipe.progress(step));
    (at.row, plan_row(&settings, &recipe.curriculum.context(step), &view))
}

fn assert_same(drawn: &Value, row: u64, plan: &coda_curriculum::MaskPlan) {
    assert_eq!(drawn["row"], row);
    assert_eq!(drawn["key"], format!("{:016x}", plan.row_key));
    assert!((drawn["sigma"].as_f64().expect("sigma") - plan.sigma).abs() < 1e-15);
    let strategies = [(plan.s1, "S1"), (plan.s2, "S2"), (plan.s3, "S3")];
    let strategies: Vec<_> = strategies.iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
    assert_eq!(drawn["strategies"], Value::from(strategies));
    assert_eq!(drawn["prefix_len"], plan.prefix_len);
    assert_eq!(drawn["valid_len"], plan.valid_len);
    assert_eq!(drawn["block_size"].as_u64(), plan.block_size.map(u64::from));
    assert_eq!(drawn["masked"], Value::from(plan.masked.clone()));
}

#[test]
fn draw_without_rows_is_the_batch_of_the_step() {
    let house = House::with_shards();
    for step in [0, 37, 99] {
        let number = step.to_string();
        let drawn = house.json(&["draw", "--manifest", "run.yaml", "--step", &number, "--json"]);
        let rows = drawn["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 4);
        for (position, drawn) in (step * 4..).zip(rows) {
            let (row, plan) = as_trained(house.dir.path(), step, position);
            assert_same(drawn, row, &plan);
            assert_eq!(drawn["visited_at_step"], step);
        }
    }
}

#[test]
fn draw_of_rows_takes_each_at_its_next_visit() {
    let house = House::with_shards();
    let drawn = house.json(&[
        "draw",
        "--manifest",
        "run.yaml",
        "--shards",
        "shards",
        "--rows",
        "25..33",
        "--step",
        "50",
        "--json",
    ]);
    let rows = drawn["rows"].as_array().expect("rows");
    let numbers: Vec<u64> = rows.iter().filter_map(|row| row["row"].as_u64()).collect();
    assert_eq!(numbers, [25, 26, 30, 31, 32], "27 to 29 are held out");
    for drawn in rows {
        let row = drawn["row"].as_u64().expect("a row");
        // The first position from step 50 on that reads this row.
        let found = (200..2000).find_map(|position| {
            let (at, plan) = as_trained(house.dir.path(), 50, position);
            (at == row).then_some((position, plan))
        });
        let (position, plan) = found.expect("the row comes round");
        assert_same(drawn, row, &plan);
        assert_eq!(drawn["visited_at_step"], position / 4);
    }
}

#[test]
fn draw_shows_text_with_plain_marks() {
    let house = House::with_shards();
    let args = ["draw", "--manifest", "run.yaml", "--rows", "7..8", "--step", "0", "--text"];
    let text = house.stdout(&args);
    assert!(text.contains("── row 7 · code · step 0 · epoch "), "{text}");
    assert!(text.contains('█') && text.contains("▒[12 pads"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours without a terminal");
    let (row, _) = as_trained(house.dir.path(), 0, 0);
    let table = house.stdout(&["draw", "--manifest", "run.yaml", "--step", "0"]);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(
        table.lines().nth(1).is_some_and(|l| l.trim().starts_with(&row.to_string())),
        "{table}"
    );
}

#[test]
fn draw_has_the_ids_and_a_page_of_the_rows() {
    let house = House::with_shards();
    let args = ["draw", "--manifest", "run.yaml", "--step", "50", "--rows", "7..9", "--json"];
    assert!(house.json(&args)["rows"][0]["clean"].is_null(), "ids only when asked for");
    let drawn = house.json(&[args.as_slice(), &["--ids"]].concat());
    for row in drawn["rows"].as_array().expect("rows") {
        let ids = |key: &str| row[key].as_array().expect(key).clone();
        let (clean, noised, masked) = (ids("clean"), ids("noised"), ids("masked"));
        for (position, (clean, noised)) in clean.iter().zip(&noised).enumerate() {
            let hidden = masked.contains(&Value::from(position));
            assert_eq!(*noised, if hidden { Value::from(SPECIALS.mask) } else { clean.clone() });
        }
    }
    let page = ["draw", "--manifest", "run.yaml", "--step", "90", "--html", "rows.html"];
    assert_eq!(house.stdout(&page), "");
    let text = fs::read_to_string(house.path("rows.html")).expect("the page");
    assert_self_contained(&text);
    assert_eq!(text.matches("<details open>").count(), 4, "a row each of the batch");
    assert!(text.contains("<mark class=\"hidden\">w"), "masked words can be read");
}

#[test]
fn diff_says_where_two_runs_part() {
    let house = House::new();
    insta::assert_snapshot!(house.stdout(&["diff", "run.yaml", "--profiles"]));
    assert!(house.stdout(&["diff", "run.yaml", "run.yaml"]).contains("The model sees the same."));
    let raised = house.json(&["diff", "run.yaml", "curriculum.p1=0.5", "--json"]);
    assert_eq!(raised["same"], false);
    let keys = raised["keys"].as_array().expect("keys");
    assert_eq!((keys.len(), &keys[0]["key"]), (1, &Value::from("curriculum.p1")));
    assert_eq!(keys[0]["b"], 0.5);
    let block = &raised["blocks"][0];
    for line in block["lines"].as_array().expect("lines") {
        assert!(line["a"]["p1"].as_f64() < line["b"]["p1"].as_f64(), "{line}");
    }
    // S1 at its farthest: 1 % in the first epoch against a half.
    let s1 =
        block["largest"].as_array().expect("largest").iter().find(|l| l["what"] == "share of S1");
    let s1 = s1.expect("S1 differs");
    assert_eq!(
        (s1["at"].as_f64(), s1["a"].as_f64(), s1["b"].as_f64()),
        (Some(0.0), Some(0.01), Some(0.5))
    );
    // Runs of two lengths are laid over each other by their share.
    let longer = MANIFEST.replace("steps: 100", "steps: 1000");
    fs::write(house.path("long.yaml"), longer).expect("a longer run");
    let long = house.json(&["diff", "run.yaml", "long.yaml", "--json", "curriculum.p2=0"]);
    let keys = long["keys"].as_array().expect("keys");
    assert_eq!((keys.len(), &keys[0]["key"]), (1, &Value::from("train.steps")));
    assert_eq!(long["blocks"][0]["lines"], Value::from(Vec::<Value>::new()), "Table 3 fits both");
    house.stdout(&["diff", "run.yaml", BY_SOURCE, "--html", "diff.html"]);
    let page = fs::read_to_string(house.path("diff.html")).expect("the page");
    assert_self_contained(&page);
    assert!(page.contains("Source code, where the schedules part") && page.contains("Share of S3"));
    house.stdout(&["diff", "run.yaml", BY_SOURCE, "--svg", "diff.svg"]);
    let svg = fs::read_to_string(house.path("diff.svg")).expect("the picture");
    assert!(svg.starts_with("<svg xmlns") && svg.contains("prefers-color-scheme"), "stands alone");
    for text in
        ["A: run.yaml", "B: run.yaml with", "Source code: Share of S3", "Source code: Block sizes"]
    {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("Source code: Share of S1"), "only what parts");
    house.stdout(&["diff", "run.yaml", "run.yaml", "--svg", "same.svg"]);
    let same = fs::read_to_string(house.path("same.svg")).expect("the picture");
    assert!(same.contains("The model sees the same.") && !same.contains("<path"));
    house.stdout(&["diff", "run.yaml", "seed=5", "--svg", "seed.svg"]);
    let seed = fs::read_to_string(house.path("seed.svg")).expect("the picture");
    assert!(seed.contains("The schedules are the same. Other keys differ: seed."), "{seed}");
    for wrong in [
        &["diff", "run.yaml"][..],
        &["diff", "run.yaml", "a", "b"],
        &["diff", "run.yaml", "a", "--profiles"],
    ] {
        let (code, stderr) = house.refused(wrong);
        assert!(code == 2 && stderr.contains("hint: diff A B compares"), "{stderr}");
    }
}

#[test]
fn mistakes_have_their_exit_codes_and_a_hint() {
    let house = House::with_shards();
    let hinted = |args: &[&str]| {
        let (code, stderr) = house.refused(args);
        assert!(stderr.starts_with("error: ") && stderr.contains("\nhint: "), "{stderr}");
        (code, stderr)
    };
    let (code, stderr) = hinted(&["show", "--manifest", "run.yaml", "curriculum.p4=1"]);
    assert!(code == 2 && stderr.contains("p4"), "{code} {stderr}");
    let (code, stderr) = house.refused(&["show", "--manifest", "none.yaml"]);
    assert!(code == 3 && stderr.contains("none.yaml"), "{code} {stderr}");
    let unknown = House::new();
    let post = MANIFEST.replace("stage: mid", "stage: post").replace("steps: 100", "epochs: 2");
    let sft = "kind: sft, fields: {instruction: a, output: b}, paths";
    fs::write(unknown.path("post.yaml"), post.replace("paths", sft)).expect("the manifest");
    let post = ["show", "--manifest", "post.yaml"];
    let (code, stderr) = unknown.refused(&post);
    assert!(code == 2 && stderr.contains("--rows N"), "{code} {stderr}");
    assert!(unknown.stdout(&[post.as_slice(), &["--rows", "8"]].concat()).contains(" 4 steps of "));
    let rows = ["draw", "--manifest", "run.yaml", "--step", "0", "--rows"];
    assert_eq!(house.refused(&[rows.as_slice(), &["40..51"]].concat()).0, 2);
    assert_eq!(house.refused(&[rows.as_slice(), &["9..3"]].concat()).0, 2);
    let (code, stderr) =
        hinted(&["draw", "--manifest", "run.yaml", "--step", "0", "data.row_length=64"]);
    assert!(code == 4 && stderr.contains("32") && stderr.contains("64"), "{code} {stderr}");
    let index = house.path("shards/index.json");
    let text =
        fs::read_to_string(&index).expect("the index").replace("\"rows\": 50", "\"rows\": 51");
    fs::write(&index, text).expect("damage");
    assert_eq!(hinted(&["draw", "--manifest", "run.yaml", "--step", "0"]).0, 4);

    let empty = House::new();
    let (code, stderr) = empty.refused(&["draw", "--manifest", "run.yaml", "--step", "0"]);
    assert!(code == 3 && stderr.contains("hint: run `coda-ingest"), "{code} {stderr}");
}
