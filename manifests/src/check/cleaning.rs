//! The values of `clean`, `dedup` and `decontaminate`.

use super::{Checked, problem, require, share};
use crate::{Clean, Data, Decontaminate, Dedup};

/// The longest n-gram: its words are kept in a ring.
const MAX_NGRAM: u32 = 64;
/// The most values of a sketch.
const MAX_SKETCH: u64 = 1024;
/// The smallest tables that are worth their bookkeeping.
const MIN_MEMORY: u64 = 1 << 20;

pub(super) fn check(data: &Data) -> Checked {
    if let Some(clean) = &data.clean {
        check_clean(clean, "data.clean")?;
    }
    for (index, source) in data.sources.iter().enumerate() {
        if let Some(clean) = &source.clean {
            check_clean(clean, &format!("data.sources.{index}.clean"))?;
        }
        let merged = Clean::resolve(source.clean.as_ref(), data.clean.as_ref());
        let own = if source.clean.is_some() { format!("sources.{index}.") } else { String::new() };
        check_contradictions(&merged, &format!("data.{own}clean"))?;
    }
    if let Some(dedup) = &data.dedup {
        check_dedup(dedup)?;
    }
    data.decontaminate.as_ref().map_or(Ok(()), check_decontaminate)
}

fn check_clean(clean: &Clean, place: &str) -> Checked {
    for (name, value) in [
        ("max_replacement_share", clean.max_replacement_share),
        ("min_alnum_share", clean.min_alnum_share),
        ("max_repeated_line_share", clean.max_repeated_line_share),
        ("max_repeated_line_bytes_share", clean.max_repeated_line_bytes_share),
        ("max_repeated_paragraph_share", clean.max_repeated_paragraph_share),
        ("max_repeated_paragraph_bytes_share", clean.max_repeated_paragraph_bytes_share),
    ] {
        share(&format!("{place}.{name}"), value.unwrap_or(0.0), false)?;
    }
    for (name, value) in [
        ("max_chars", clean.max_chars),
        ("max_lines", clean.max_lines),
        ("max_line_chars", clean.max_line_chars),
    ] {
        require(value != Some(0), &format!("{place}.{name}"), || {
            "0 would leave out every document".to_owned()
        })
        .map_err(|problem| problem.hint("a rule is off when its key is absent"))?;
    }
    let mean = clean.max_mean_line_chars;
    require(
        mean.is_none_or(|mean| mean > 0.0 && mean.is_finite()),
        &format!("{place}.max_mean_line_chars"),
        || format!("{} is not above 0", mean.unwrap_or_default()),
    )?;
    for (name, pairs) in [
        ("max_top_ngram_share", &clean.max_top_ngram_share),
        ("max_repeated_ngram_share", &clean.max_repeated_ngram_share),
    ] {
        let key = format!("{place}.{name}");
        let pairs = pairs.as_deref().unwrap_or_default();
        for (index, (n, largest)) in pairs.iter().enumerate() {
            require((1..=MAX_NGRAM).contains(n), &key, || {
                format!("n-grams of {n} words: expected 1 to {MAX_NGRAM}")
            })?;
            require(pairs[..index].iter().all(|(other, _)| other != n), &key, || {
                format!("n = {n} stands twice")
            })?;
            share(&key, *largest, false)?;
        }
    }
    Ok(())
}

/// A smallest value above the largest one leaves nothing.
fn check_contradictions(clean: &Clean, place: &str) -> Checked {
    for (name, least, most) in
        [("chars", clean.min_chars, clean.max_chars), ("lines", clean.min_lines, clean.max_lines)]
    {
        if let (Some(least), Some(most)) = (least, most) {
            require(least <= most, &format!("{place}.min_{name}"), || {
                format!("{least} is above max_{name}, {most}: no document is left")
            })?;
        }
    }
    Ok(())
}

fn check_dedup(dedup: &Dedup) -> Checked {
    require(dedup.memory >= MIN_MEMORY, "data.dedup.memory", || {
        format!("{} bytes are too few: at least {MIN_MEMORY}", dedup.memory)
    })?;
    require(dedup.exact || dedup.near.is_some(), "data.dedup.exact", || {
        "neither exact nor near duplicates are looked for".to_owned()
    })
    .map_err(|problem| problem.hint("take `dedup` away, or give `near: {}`"))?;
    let Some(near) = &dedup.near else { return Ok(()) };
    require(near.threshold > 0.0 && near.threshold <= 1.0, "data.dedup.near.threshold", || {
        format!("{} is not above 0 and at most 1", near.threshold)
    })?;
    require((1..=MAX_NGRAM).contains(&near.ngram), "data.dedup.near.ngram", || {
        format!("{} is not from 1 to {MAX_NGRAM} words", near.ngram)
    })?;
    for (key, value) in [("data.dedup.near.bands", near.bands), ("data.dedup.near.rows", near.rows)]
    {
        require(value > 0, key, || "0 is not above 0".to_owned())?;
    }
    let values = u64::from(near.bands) * u64::from(near.rows);
    require(values <= MAX_SKETCH, "data.dedup.near.bands", || {
        format!("{values} values in a sketch (bands × rows) are too many: at most {MAX_SKETCH}")
    })
}

fn check_decontaminate(decontaminate: &Decontaminate) -> Checked {
    let key = |name: &str| format!("data.decontaminate.{name}");
    for (name, list) in [("files", &decontaminate.files), ("fields", &decontaminate.fields)] {
        require(!list.is_empty(), &key(name), || "the list is empty".to_owned())
            .map_err(|problem| problem.hint("for example `fields: [prompt, text]`"))?;
    }
    require((1..=MAX_NGRAM).contains(&decontaminate.ngram), &key("ngram"), || {
        format!("{} is not from 1 to {MAX_NGRAM} words", decontaminate.ngram)
    })?;
    let least = decontaminate.min_words();
    if !(1..=decontaminate.ngram).contains(&least) {
        let message = format!("{least} is not from 1 to ngram, {}", decontaminate.ngram);
        return Err(problem(key("min_words"), message));
    }
    Ok(())
}
