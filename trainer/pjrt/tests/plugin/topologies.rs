//! Topologies and what is known about programs, on a plugin that is written in C from the header's
//! declarations: the CPU plugin has no topologies. It is newer than the header, so that its lists
//! have longer members, and counts what it is asked to free.

use crate::fakes::{library, table};
use coda_pjrt::{CompileOptions, MemoryStatistics, OptionValue, PjrtError, Plugin, Topology};
use std::{fs, path::Path};

const CODE: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void note(const char *what) {
    FILE *file = fopen(LOG, "a"); fprintf(file, "%s ", what); fclose(file);
}
struct query { struct head head; char *subject; void *start; size_t len; };
struct number { struct head head; char *subject; int value; };
struct count { struct head head; char *subject; size_t value; };
struct value { struct head head; const char *name; size_t name_len; int kind;
    union { const char *text; int64_t whole; const int64_t *list; float real; _Bool flag; };
    size_t len; const char *newer[2]; };
static int64_t ones[3] = { 1, -1, 1 };
static struct value values[6] = {
    { { 72, 0 }, "text", 4, 0, { .text = "abc" }, 2 },
    { { 72, 0 }, "int", 3, 1, { .whole = -7 }, 1 },
    { { 72, 0 }, "list", 4, 2, { .list = ones }, 3 },
    { { 72, 0 }, "float", 5, 3, { .real = 0.5 }, 1 },
    { { 72, 0 }, "new", 3, 77, { .whole = 0 }, 1 },
    { { 72, 0 }, "bool", 4, 4, { .flag = 1 }, 1 },
};
static char devices[2], *list[2] = { &devices[0], &devices[1] }, topology, executable, bytes;
struct create { struct head head; const char *name; size_t name_len; struct value *options;
    size_t options_len; char *topology; };
static void *create(struct create *args) {
    if (args->name_len != 6 || memcmp(args->name, "v9:1x2", 6)) return &refused;
    // Our own options are as long as the header of 0.81 has them.
    char *second = (char *)args->options + 56;
    if (args->options_len != 2 || args->options[0].whole != 5 || args->options[0].kind != 1) return &refused;
    if (memcmp(((struct value *)second)->text, "words", ((struct value *)second)->len)) return &refused;
    args->topology = &topology;
    return 0;
}
static void *describe(struct query *args) { args->start = list; args->len = 2; return 0; }
static void *attributes(struct query *args) { args->start = values; args->len = 6; return 0; }
static void *id(struct number *args) { args->value = args->subject == list[0] ? 10 : 11; return 0; }
static void *process(struct number *args) { args->value = args->subject == list[0] ? 0 : 3; return 0; }
static void *kind(struct query *args) { args->start = "v9 lite"; args->len = 7; return 0; }
struct program { struct head head; const char *code; size_t len; const char *format; size_t format_len; };
struct compile { struct head head; char *topology; struct program *program; const char *options;
    size_t options_len; char *client; char *executable; size_t newer; };
static void *compile(struct compile *args) {
    if (args->head.size < sizeof *args || args->newer || args->client) return &refused;
    if (args->program->len != 7 || memcmp(args->program->code, "program", 7)) return &refused;
    if (args->program->format_len != 4 || memcmp(args->program->format, "mlir", 4)) return &refused;
    if (args->topology != &topology || !args->options_len) return &refused;
    args->executable = &executable;
    return 0;
}
struct memory { struct head head; char *executable; int64_t sizes[10]; int64_t peak; int64_t newer; };
static void *memory(struct memory *args) {
    for (int i = 0; i < 10; i++) args->sizes[i] = i == 4 ? -1 : 100 + i;
    args->peak = PEAK;
    args->newer = 9;
    return 0;
}
struct cost { struct head head; char *executable; size_t len; struct value *values; };
static void *cost(struct cost *args) { args->len = 2; args->values = values; return 0; }
struct serialize { struct head head; char *executable; const char *bytes; size_t len; char *owner;
    void (*free)(char *); };
static void freed(char *owner) { note(owner == &bytes ? "bytes" : "another"); }
static void *serialize(struct serialize *args) {
    args->bytes = "se\0rial"; args->len = 7; args->owner = &bytes; args->free = freed; return 0;
}
static void *outputs(struct count *args) { args->value = 2; return 0; }
static void *print(struct query *args) { args->start = "finger"; args->len = 6; return 0; }
static void *end_topology(struct query *args) { note(args->subject == &topology ? "topology" : "another"); return 0; }
static void *end_executable(struct query *args) { note(args->subject == &executable ? "executable" : "another"); return 0; }
"#;

const FUNCTIONS: &str = "destroy, message, code, fine, [23] = id, [24] = process, [26] = kind,
    [40] = end_executable, [44] = outputs, [46] = cost, [49] = serialize, [82] = create,
    [83] = end_topology, [86] = describe, [88] = attributes, [89] = compile, [94] = print,
    [96] = memory";

/// A plugin that notes in `log` what it frees.
fn plugin(folder: &tempfile::TempDir, log: &Path, peak: i64) -> Plugin {
    let code = table(1064, 0, FUNCTIONS);
    let at = code.find("static struct { size_t size;").expect("the table");
    let (before, after) = code.split_at(at);
    let settings = format!("#define LOG \"{}\"\n#define PEAK {peak}\n", log.display());
    let path = library(folder, "slice", &format!("{before}\n{settings}{CODE}{after}"));
    Plugin::load(path).expect("it loads")
}

fn options() -> Vec<(String, OptionValue)> {
    vec![("number".to_owned(), 5_i64.into()), ("words".to_owned(), "words".into())]
}

#[test]
fn a_topology_shows_its_devices_and_compiles_and_everything_is_freed_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let plugin = plugin(&folder, &log, 1000);
    let topology = Topology::new(&plugin, "v9:1x2", &options()).expect("known");
    let devices: Vec<_> = topology
        .devices()
        .iter()
        .map(|device| (device.id(), device.process_index(), device.kind()))
        .collect();
    assert_eq!(devices, [(10, 0, "v9 lite"), (11, 3, "v9 lite")]);
    let named = |name: &str, value: OptionValue| (name.to_owned(), value);
    let first = [named("text", "ab".into()), named("int", (-7_i64).into())];
    // A kind that nobody knew yet is left out.
    let rest = [
        named("list", vec![1_i64, -1, 1].into()),
        named("float", 0.5_f32.into()),
        named("bool", true.into()),
    ];
    assert_eq!(topology.attributes().expect("told"), [&first[..], &rest].concat());

    let program = topology.compile("program", &CompileOptions::default()).expect("compiled");
    // The program keeps what it was compiled for.
    drop(topology);
    let expected = MemoryStatistics {
        code: 100,
        arguments: 101,
        outputs: 102,
        aliased: 103,
        temporaries: 0,
        host_temporaries: 109,
        peak: Some(1000),
    };
    assert_eq!(program.memory().expect("told"), expected);
    assert_eq!(program.cost().expect("told"), first);
    assert_eq!(program.serialize().expect("bytes"), b"se\0rial");
    assert_eq!(program.fingerprint().expect("told"), b"finger");
    assert_eq!(program.outputs().expect("told"), 2);
    drop(program);
    assert_eq!(fs::read_to_string(&log).expect("written"), "bytes executable topology ");
}

#[test]
fn without_a_peak_everything_at_once_is_the_total() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = plugin(&folder, &folder.path().join("log"), 0);
    let topology = Topology::new(&plugin, "v9:1x2", &options()).expect("known");
    let program = topology.compile("program", &CompileOptions::default()).expect("compiled");
    let memory = program.memory().expect("told");
    assert_eq!((memory.peak, memory.total()), (None, 100 + 101 + 102 - 103));
}

#[test]
fn a_name_that_is_unknown_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let plugin = plugin(&folder, &log, 0);
    let error = Topology::new(&plugin, "v9:2x2", &options()).expect_err("unknown");
    assert!(matches!(error, PjrtError::Plugin { .. }), "{error:?}");
    assert!(!log.exists());
}
