//! `cargo xtask bench-memory`: ingest's peak memory must not grow with the corpus.

use crate::process;
use clap::Args;
use coda_cli::{Failure, human};
use serde_json::json;
use std::{
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

/// Ingest a small and a ten times larger corpus and compare the peaks (Linux only).
#[derive(Args)]
pub(crate) struct BenchMemory {
    /// Megabytes of the small corpus; the large one has ten times as many.
    #[arg(long, default_value_t = 50, value_name = "MB")]
    small: u64,
    /// The growth that is allowed, in percent.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    allowed: f64,
}

/// Bytes of one file of the corpus.
const FILE: u64 = 10_000_000;

impl BenchMemory {
    /// Measures and compares.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let quickstart = process::root().join("runs").join("quickstart");
        let (code, tokenizer) =
            (quickstart.join("corpora").join("code"), quickstart.join("tokenizer"));
        if !tokenizer.join("tokenizer.json").is_file() {
            return Err(Failure::usage("this needs the quickstart's corpora and tokenizer")
                .hint("run `cargo xtask quickstart` first"));
        }
        let work = process::root().join("runs").join("bench-memory");
        let texts = sources(&code)?;
        let mut peaks = Vec::new();
        for megabytes in [self.small, self.small * 10] {
            let folder = work.join(format!("{megabytes}mb"));
            io(&folder, remade(&folder))?;
            io(&folder, corpus(&folder, &texts, megabytes * 1_000_000))?;
            io(&folder, fs::copy(tokenizer.join("tokenizer.json"), folder.join("tokenizer.json")))?;
            io(&folder, fs::write(folder.join("manifest.yaml"), MANIFEST))?;
            let peak = ingest(&folder)?;
            eprintln!("bench-memory: {megabytes} MB of text, peak {}", human::bytes(peak));
            peaks.push(peak as f64);
            io(&folder, fs::remove_dir_all(&folder))?;
        }
        let growth = (peaks[1] / peaks[0] - 1.0) * 100.0;
        let text = format!("ingest's peak memory over ten times the text: {growth:+.1} %");
        if growth > self.allowed {
            return Err(Failure::check_failed(format!("{text}, allowed are {} %", self.allowed)));
        }
        coda_cli::print_text(&format!("{text}\n"))
    }
}

const MANIFEST: &str = "version: 1
name: bench-memory
stage: pre
tokenizer: {path: tokenizer.json, eos: \"<|im_end|>\", pad: \"<|endoftext|>\", mask: \"<|mask|>\"}
data:
  out: shards
  row_length: 1024
  sources:
    - {name: code, paths: [corpus], format: jsonl}
";

fn io<T>(folder: &Path, result: std::io::Result<T>) -> Result<T, Failure> {
    result.map_err(|e| Failure::io(format!("{}: {e}", folder.display())))
}

fn remade(folder: &Path) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder.join("corpus"))
}

/// All source files under a folder.
fn sources(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in io(&directory, fs::read_dir(&directory))? {
            let path = io(&directory, entry)?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                texts.push(io(&path, fs::read_to_string(&path))?);
            }
        }
    }
    Ok(texts)
}

/// Real files over and over, each time with another first line, until there is enough text.
fn corpus(folder: &Path, texts: &[String], bytes: u64) -> std::io::Result<()> {
    let (mut written, mut document) = (0, 0);
    for file in 0..bytes.div_ceil(FILE) {
        let path = folder.join("corpus").join(format!("part-{file:03}.jsonl"));
        let mut out = BufWriter::new(fs::File::create(path)?);
        while written < bytes.min((file + 1) * FILE) {
            let text = format!("// {document}\n{}", texts[document % texts.len()]);
            written += text.len() as u64;
            document += 1;
            writeln!(out, "{}", json!({"text": text}))?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Ingests a folder's manifest and gives the process's peak resident memory in bytes.
fn ingest(folder: &Path) -> Result<u64, Failure> {
    let mut child = process::sibling("coda-ingest")?
        .args(["--jobs", "2", "--manifest"])
        .arg(folder.join("manifest.yaml"))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Failure::io(format!("cannot start coda-ingest: {e}")))?;
    let mut peak = 0;
    loop {
        peak = peak.max(resident_peak(&child).unwrap_or(0));
        let ended = child.try_wait().map_err(|e| Failure::io(format!("coda-ingest: {e}")))?;
        match ended {
            Some(status) if status.success() && peak > 0 => return Ok(peak),
            Some(status) => {
                return Err(Failure::check_failed(format!("coda-ingest ended with {status}")));
            }
            None => sleep(Duration::from_millis(10)),
        }
    }
}

/// `VmHWM` of a running process: it only grows, so the last reading is close to the true peak.
fn resident_peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
