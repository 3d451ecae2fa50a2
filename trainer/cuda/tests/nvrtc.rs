//! Every kernel through NVIDIA's compiler, for every generation of cards that the engine is for. No
//! card is needed. `cargo xtask plugin` downloads the compiler into `target/nvrtc`.
//!
//! What the assembler says of registers, spills and shared memory is kept in
//! `docs/cuda-kernels.md`; `CODA_UPDATE_KERNELS=1` writes it anew.

use coda_cuda::{KERNEL_FILES, look_in};
use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_100"];

/// Bytes that a thread of a kernel may have to put aside in memory.
const MOST_SPILLED: u32 = 32;

/// What one kernel needs on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    registers: u32,
    spilled: u32,
    shared: u32,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn compiler() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("nvrtc/nvidia/cu13/lib")
}

/// Reads the assembler's words: a line that names a function, and the ones about it that follow.
fn read(log: &str) -> BTreeMap<String, Needs> {
    let number_before = |line: &str, words: &str| -> Option<u32> {
        line[..line.find(words)?].rsplit([' ', ',']).find(|part| !part.is_empty())?.parse().ok()
    };
    let (mut all, mut name) = (BTreeMap::<String, Needs>::new(), String::new());
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().map(str::to_owned).expect("a name");
        }
        let needs = all.entry(name.clone()).or_default();
        if let Some(n) = number_before(line, " registers") {
            needs.registers = n;
        }
        needs.spilled += number_before(line, " bytes spill stores").unwrap_or(0);
        if let Some(n) = number_before(line, " bytes smem") {
            needs.shared = n;
        }
    }
    all.remove("");
    all
}

#[test]
fn every_kernel_compiles_for_every_architecture_almost_without_spills() {
    look_in(&compiler());
    let mut table: BTreeMap<(&str, String), [Needs; 3]> = BTreeMap::new();
    for file in KERNEL_FILES {
        for (column, architecture) in ARCHITECTURES.iter().enumerate() {
            let (code, log) = file
                .compile_with(architecture, &["--ptxas-options=--verbose"])
                .unwrap_or_else(|error| panic!("{error}; run `cargo xtask plugin` once"));
            assert_eq!(&code[..4], b"\x7fELF", "machine code");
            for (name, needs) in read(&log) {
                assert!(needs.spilled <= MOST_SPILLED, "{name} on {architecture}: {needs:?}");
                assert!((1..=255).contains(&needs.registers), "{name}: {needs:?}");
                table.entry((file.name, name)).or_default()[column] = needs;
            }
        }
    }
    let kernels = KERNEL_FILES.iter().map(|file| file.source().matches("\nKERNEL(").count());
    // Kernels of attention and of heads are made for two widths by macros.
    assert!(table.len() >= kernels.sum::<usize>() + 8, "{} kernels", table.len());

    let mut text = String::from(
        "# What the kernels need\n\nRegisters a thread (with the bytes of them that spill into memory, \
         where some do) and bytes of\nstatic shared memory a block, as NVRTC 13.0 compiles them.\nMade by \
         the test `nvrtc` of `coda-cuda` with \
         `CODA_UPDATE_KERNELS=1`; no card took part.\n\n| file | kernel | sm_80 | sm_90a | sm_100 | shared |\n\
         |---|---|---|---|---|---|\n",
    );
    for ((file, name), needs) in &table {
        let [a, b, c] = needs.map(|needs| match needs.spilled {
            0 => needs.registers.to_string(),
            bytes => format!("{} ({bytes} spilled)", needs.registers),
        });
        let shared = needs[1].shared;
        writeln!(text, "| {file} | `{name}` | {a} | {b} | {c} | {shared} |").expect("text");
    }
    let path = root().join("docs/cuda-kernels.md");
    if std::env::var_os("CODA_UPDATE_KERNELS").is_some() {
        std::fs::write(&path, &text).expect("the table");
    }
    let kept = std::fs::read_to_string(&path).expect("the table");
    assert!(kept == text, "docs/cuda-kernels.md is old; run this test with CODA_UPDATE_KERNELS=1");
}

#[test]
fn what_the_compiler_refuses_is_told() {
    look_in(&compiler());
    let error = KERNEL_FILES[0].compile("sm_1").unwrap_err().to_string();
    assert!(error.contains("norm.cu does not compile for sm_1"), "{error}");
    assert!(error.contains("gpu-architecture"), "{error}");
}
