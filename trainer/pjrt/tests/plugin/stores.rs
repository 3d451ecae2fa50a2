//! The key-value callbacks, called by a plugin that is written in C from the header's declarations.

use crate::fakes::{library, table};
use coda_pjrt::{
    Client, ClientOptions, ErrorCode, KeyValueStore, MemoryStore, PjrtError, Plugin, StoreError,
};
use std::{sync::Arc, time::Duration};

/// A `PJRT_Client_Create` that uses its callbacks, and then fails with what came of it.
const CREATE: &str = r#"
#include <string.h>
typedef void *(*make_error_fn)(int code, const char *text, size_t len);
struct put { struct head head; const char *key; size_t key_len; const char *value; size_t len;
    make_error_fn *make_error; void *user; };
struct get { struct head head; const char *key; size_t key_len; int timeout;
    make_error_fn *make_error; void *user; char *value; size_t len; void (*deleter)(char *); };
struct try_get { struct head head; const char *key; size_t key_len;
    make_error_fn *make_error; void *user; char *value; size_t len; void (*deleter)(char *); };
struct create { struct head head; void *options; size_t options_len;
    void *(*get)(struct get *); void *get_user; void *(*put)(struct put *); void *put_user;
    void *client; void *(*try_get)(struct try_get *); void *try_get_user; };
struct made { struct error error; char text[200]; size_t len; } made;
static void *make_error(int code, const char *text, size_t len) {
    made.error.code = code;
    made.len = len < 200 ? len : 200;
    memcpy(made.text, text, made.len);
    return &made;
}
static make_error_fn maker = make_error;
static void made_message(struct message *args) { args->text = made.text; args->len = made.len; }
static void *say(const char *text) { return make_error(9, text, strlen(text)); }
static void *create(struct create *args) {
    if (!args->put) return say("no store");
    struct put put = { { sizeof put, 0 }, "a\0b", 3, "va\0lue", 6, &maker, args->put_user };
    void *error = args->put(&put);
    if (error) return error;
    struct get get = { { sizeof get, 0 }, "a\0b", 3, 1000, &maker, args->get_user };
    if (args->get(&get)) return say("no value");
    if (get.len != 6 || memcmp(get.value, "va\0lue", 6)) return say("another value");
    get.deleter(get.value);
    struct put empty = { { sizeof put, 0 }, "", 0, "", 0, &maker, args->put_user };
    if (args->put(&empty)) return say("not put");
    struct try_get attempt = { { sizeof attempt, 0 }, "", 0, &maker, args->try_get_user };
    if (args->try_get(&attempt) || attempt.len != 0) return say("no empty value");
    attempt.deleter(attempt.value);
    attempt.key = "absent"; attempt.key_len = 6;
    if (args->try_get(&attempt) != &made || made.error.code != 5) return say("found what is not there");
    get.key = "absent"; get.key_len = 6; get.timeout = 1;
    if (args->get(&get) != &made || made.error.code != 4) return say("waited in vain");
    return say("all as it should be");
}
"#;

/// What such a client says about that store.
fn said(store: Option<Arc<dyn KeyValueStore>>) -> (ErrorCode, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let functions = "destroy, made_message, code, fine, 0, 0, 0, 0, 0, 0, create, fine";
    // The functions of the table stand after the declarations that they need.
    let code = table(1064, 0, functions);
    let at = code.find("static struct { size_t size;").expect("the table");
    let code = format!("{}{CREATE}{}", &code[..at], &code[at..]);
    let plugin = Plugin::load(library(&folder, "store", &code)).expect("it loads");
    let options = ClientOptions { options: Vec::new(), store };
    match Client::new(&plugin, &options).expect_err("it always fails") {
        PjrtError::Plugin { code, message, .. } => (code, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_go_through_the_callbacks_and_back() {
    let store = Arc::new(MemoryStore::default());
    assert_eq!(said(Some(store.clone())).1, "all as it should be");
    assert_eq!(store.try_get(b"a\0b").expect("reachable").as_deref(), Some(&b"va\0lue"[..]));
    assert_eq!(said(None).1, "no store");
}

struct Panicking;

impl KeyValueStore for Panicking {
    fn put(&self, _: &[u8], _: &[u8]) -> Result<(), StoreError> {
        panic!("on purpose")
    }

    fn get(&self, _: &[u8], _: Duration) -> Result<Vec<u8>, StoreError> {
        panic!("on purpose")
    }

    fn try_get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        panic!("on purpose")
    }
}

#[test]
fn a_store_that_panics_becomes_an_error_of_the_plugin() {
    assert_eq!(
        said(Some(Arc::new(Panicking))),
        (ErrorCode::Internal, "the store panicked".to_owned())
    );
}
