//! Files that are no plugins, and plugins that are broken.

use coda_pjrt::{Client, ClientOptions, ErrorCode, PjrtError, Plugin, prepare_environment};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A library of that C code.
pub(crate) fn library(folder: &TempDir, name: &str, code: &str) -> PathBuf {
    let source = folder.path().join(format!("{name}.c"));
    fs::write(&source, code).expect("written");
    let path = folder.path().join(format!("{name}.so"));
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&path)
        .arg(&source)
        .status()
        .expect("a C compiler, as the build needs one");
    assert!(status.success());
    path
}

/// A table as the header begins: its size, no extensions, the version, then functions.
pub(crate) fn table(size: usize, major: i32, functions: &str) -> String {
    format!(
        "#include <stddef.h>
        struct error {{ int code; }};
        static struct error refused = {{ 9 }};
        struct head {{ size_t size; void *extension; }};
        struct message {{ struct head head; void *error; const char *text; size_t len; }};
        struct code {{ struct head head; struct error *error; int code; }};
        static void destroy(void *args) {{ }}
        static void message(struct message *args) {{ args->text = \"no, never\"; args->len = 9; }}
        static void *code(struct code *args) {{ args->code = args->error->code; return 0; }}
        static void *fine(void *args) {{ return 0; }}
        static void *refuse(void *args) {{ return &refused; }}
        static struct {{ size_t size; void *extension; size_t vsize; void *vext; int major, minor;
            void *functions[128]; }} table = {{ {size}, 0, 24, 0, {major}, 54, {{ {functions} }} }};
        void *GetPjrtApi(void) {{ return &table; }}"
    )
}

#[test]
fn files_that_are_no_plugins_are_named_with_what_they_lack() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |path: &Path| Plugin::load(path).expect_err("no plugin");
    let error = load(Path::new("/nonexistent/plugin.so"));
    assert!(matches!(error, PjrtError::Load { .. }), "{error:?}");
    assert_eq!(error.hint().as_deref(), Some("check the path"));
    let text = folder.path().join("text.so");
    fs::write(&text, "hello").expect("written");
    let error = load(&text);
    assert!(matches!(error, PjrtError::Load { .. }) && error.to_string().contains("text.so"));

    let error = load(&library(&folder, "other", "int f(void) { return 1; }"));
    assert!(error.to_string().ends_with("it does not export GetPjrtApi"), "{error}");
    let null = library(&folder, "null", "void *GetPjrtApi(void) { return 0; }");
    assert!(load(&null).to_string().ends_with("GetPjrtApi gives nothing"));
    let short = library(&folder, "short", &table(16, 0, ""));
    assert!(load(&short).to_string().ends_with("its table of functions is too short"));
    let unresolved = "extern int nowhere_defined; int *f = &nowhere_defined;";
    assert!(matches!(load(&library(&folder, "unresolved", unresolved)), PjrtError::Load { .. }));
}

#[test]
fn another_major_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = library(&folder, "major", &table(1064, 7, "destroy, message, code, fine"));
    let error = Plugin::load(&path).expect_err("version 7");
    assert_eq!(error.to_string(), format!("{} (PJRT 7.54): the API must be 0.x", path.display()));
}

#[test]
fn a_plugin_that_fails_to_initialize_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = library(&folder, "refusing", &table(1064, 0, "destroy, message, code, refuse"));
    let error = Plugin::load(&path).expect_err("it refuses");
    let PjrtError::Plugin { function, code, message, .. } = &error else { panic!("{error:?}") };
    assert_eq!(
        (*function, *code, message.as_str()),
        ("PJRT_Plugin_Initialize", ErrorCode::FailedPrecondition, "no, never")
    );
}

#[test]
fn a_function_that_an_old_plugin_lacks_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    // Ten functions: the table ends before PJRT_Client_Create.
    let path = library(&folder, "old", &table(40 + 80, 0, "destroy, message, code, fine"));
    let plugin = Plugin::load(&path).expect("it loads");
    assert_eq!(plugin.api_version(), (0, 54));
    let error = Client::new(&plugin, &ClientOptions::default()).expect_err("no clients");
    let expected = format!("{} (PJRT 0.54) has no function PJRT_Client_Create", path.display());
    assert_eq!(error.to_string(), expected);
    // Within the table, but empty.
    let error = plugin.attributes().expect_err("null");
    assert!(error.to_string().ends_with("has no function PJRT_Plugin_Attributes"), "{error}");
}

#[test]
fn a_plugin_that_gives_no_client_is_broken() {
    let folder = tempfile::tempdir().expect("a folder");
    let functions = "destroy, message, code, fine, 0, 0, 0, 0, 0, 0, fine, fine";
    let plugin = Plugin::load(library(&folder, "broken", &table(1064, 0, functions)));
    let error = Client::new(&plugin.expect("it loads"), &ClientOptions::default());
    let error = error.expect_err("nothing");
    assert!(error.to_string().ends_with("PJRT_Client_Create gives nothing"), "{error}");
}

/// Set in the process that the next test starts.
const INNER: &str = "CODA_TEST_LIBTPU";

#[test]
fn libtpu_is_not_loaded_while_it_may_ask_the_network() {
    if let Some(path) = std::env::var_os(INNER) {
        let error = Plugin::load(Path::new(&path)).expect_err("refused");
        assert!(matches!(error, PjrtError::Environment { .. }), "{error:?}");
        assert!(error.hint().expect("a hint").contains("TPU_SKIP_MDS_QUERY=1"));
        // The harness has started threads: it is too late to set it.
        let error = prepare_environment().expect_err("threads");
        assert!(matches!(error, PjrtError::TooLate { .. }), "{error:?}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // Loading it would leave a file behind.
    let mark = folder.path().join("loaded");
    let code = format!(
        "#include <stdio.h>
        __attribute__((constructor)) static void load(void) {{ fclose(fopen(\"{}\", \"w\")); }}
        {}",
        mark.display(),
        table(1064, 0, "destroy, message, code, fine")
    );
    let path = library(&folder, "libtpu", &code);
    let inner = |skip: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "fakes::libtpu_is_not_loaded_while_it_may_ask_the_network"]);
        command.env(INNER, &path).env_remove("TPU_SKIP_MDS_QUERY").env_remove("TPU_LIBRARY_PATH");
        command.envs(skip.map(|value| ("TPU_SKIP_MDS_QUERY", value)));
        command.output().expect("started").status.success()
    };
    assert!(inner(None));
    assert!(inner(Some("")));
    assert!(!mark.exists());
    // With the variable it is loaded, and the inner test fails as it expects a refusal.
    assert!(!inner(Some("1")));
    assert!(mark.exists());
}
