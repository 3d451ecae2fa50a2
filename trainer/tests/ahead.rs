//! `plan --aot` with plugins that are none: what they find in their environment, and what becomes of
//! one that dies. libtpu itself is Google's and not here; `benches/aot/shapes.py --trace` looks at it.

use std::{
    fs,
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A library that, when it is loaded, asks a server about this machine unless that is forbidden, as
/// libtpu does, and writes down what it found.
const ASKING: &str = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    const char *skip = getenv("TPU_SKIP_MDS_QUERY");
    FILE *file = fopen(getenv("FOUND"), "w");
    fprintf(file, "%s %s", skip ? skip : "unset", getenv("TPU_WORKER_HOSTNAMES"));
    fclose(file);
    if (skip && strcmp(skip, "1") == 0) return;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT"))) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int out = socket(AF_INET, SOCK_STREAM, 0);
    connect(out, (struct sockaddr *)&to, sizeof to);
    close(out);
}
void *GetPjrtApi(void) { return 0; }
"#;

const DYING: &str = r#"
#include <stdio.h>
#include <stdlib.h>
void *GetPjrtApi(void) { fputs("the body of the kernel is not what it should be\n", stderr); abort(); }
"#;

fn library(folder: &Path, code: &str) -> PathBuf {
    let (source, path) = (folder.join("plugin.c"), folder.join("libtpu.so"));
    fs::write(&source, code).expect("written");
    let mut compiler = Command::new("cc");
    let status = compiler.args(["-shared", "-fPIC", "-o"]).arg(&path).arg(&source).status();
    assert!(status.expect("a C compiler, as the build needs one").success());
    path
}

fn plan(plugin: &Path) -> Command {
    plan_for("v5p:2x2x1", plugin)
}

fn plan_for(devices: &str, plugin: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coda-trainer"));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/pretrain.yaml");
    command.args(["plan", "--manifest", manifest, "--aot", devices, "--plugin"]).arg(plugin);
    // a small model: its text is made before anything is loaded
    command.args(["model.num_hidden_layers=2", "model.hidden_size=64", "train.global_batch=4"]);
    command.args(["model.intermediate_size=64", "data.row_length=64", "model.init=null"]);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_plugin_is_forbidden_to_ask_whatever_the_user_has_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = library(folder.path(), ASKING);
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    server.set_nonblocking(true).expect("not blocking");
    let port = server.local_addr().expect("bound").port();
    let found = folder.path().join("found");
    let mut command = plan(&plugin);
    command.env("FOUND", &found).env("PORT", port.to_string()).env("TPU_SKIP_MDS_QUERY", "0");
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("GetPjrtApi gives nothing"), "{}", said(&output));
    assert_eq!(fs::read_to_string(&found).expect("it was loaded"), "1 localhost");
    let asked = server.accept().expect_err("nobody asks");
    assert_eq!(asked.kind(), ErrorKind::WouldBlock);
}

/// That the plugin of the test above asks when it may.
#[test]
fn the_plugin_of_this_test_does_ask_when_nobody_forbids_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = library(folder.path(), ASKING);
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("bound").port();
    let job = serde_json::json!({
        "plugin": plugin, "topology": "v5p:2x2x1", "target": "tpu", "devices": 1, "program": ""
    });
    let input = folder.path().join("job.json");
    fs::write(&input, job.to_string()).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_coda-trainer"))
        .arg("compile-ahead")
        .env("FOUND", folder.path().join("found"))
        .env("PORT", port.to_string())
        .env("TPU_SKIP_MDS_QUERY", "0")
        .stdin(fs::File::open(&input).expect("there"))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    server.accept().expect("it asked");
}

#[test]
fn a_plugin_that_dies_takes_only_its_own_process_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = library(folder.path(), DYING);
    let output = plan(&plugin).output().expect("it runs");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    for words in ["libtpu.so ended its process", "v5p:2x2x1", "the body of the kernel"] {
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

/// A plugin that writes down where it would find CUDA's assembler.
const FINDING: &str = r#"
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void) {
    FILE *file = fopen(getenv("FOUND"), "w");
    fprintf(file, "%s\n%s\n%s", getenv("XLA_FLAGS"), getenv("PATH"), getenv("TPU_SKIP_MDS_QUERY"));
    fclose(file);
}
void *GetPjrtApi(void) { return 0; }
"#;

#[test]
fn a_plugin_for_gpus_is_told_where_the_assembler_lies() {
    let folder = tempfile::tempdir().expect("a folder");
    let packages = folder.path().join("jax_plugins/xla_cuda13");
    let toolkit = folder.path().join("nvidia/cu13");
    fs::create_dir_all(&packages).expect("a folder");
    fs::create_dir_all(toolkit.join("bin")).expect("a folder");
    fs::write(toolkit.join("bin/ptxas"), "").expect("written");
    let found = folder.path().join("found");
    let mut command = plan_for("h200:8", &library(&packages, FINDING));
    let output = command
        .env("FOUND", &found)
        .env("XLA_FLAGS", "--of_user")
        .args(["--mesh", "fsdp=4"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let found = fs::read_to_string(&found).expect("it was loaded");
    let lines: Vec<&str> = found.lines().collect();
    let toolkit = toolkit.display();
    assert_eq!(lines[0], format!("--xla_gpu_cuda_data_dir={toolkit} --of_user"));
    assert!(lines[1].starts_with(&format!("{toolkit}/bin:")), "{found}");
    assert_eq!(lines[2], "1", "no plugin asks anybody");
}

#[test]
fn what_cannot_be_compiled_is_said_before_anything_is_loaded() {
    let missing = Path::new("/nonexistent/libtpu.so");
    let output = plan(missing).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("/nonexistent/libtpu.so"), "{}", said(&output));
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = library(folder.path(), DYING);
    let output = plan(&plugin).args(["--mesh", "fsdp=3"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("fsdp=3"), "{}", said(&output));
}
