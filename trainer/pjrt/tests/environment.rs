//! What stands in the environment before libtpu may be loaded, in processes with one thread.

use coda_pjrt::{PjrtError, Plugin, prepare_environment};
use std::{env, process::Command};

/// What the process of that name is to find out.
const INNER: &str = "CODA_TEST_ENVIRONMENT";
const SKIP: &str = "TPU_SKIP_MDS_QUERY";
const LOG: &str = "TF_CPP_MIN_LOG_LEVEL";

fn main() {
    match env::var(INNER).as_deref() {
        Ok("prepared") => prepared(),
        Ok("late") => late(),
        _ => {
            inner("prepared", &[]);
            inner("prepared", &[(SKIP, "")]);
            // What the user has set stays.
            inner("prepared", &[(SKIP, "0"), (LOG, "1")]);
            inner("late", &[]);
            println!("4 processes: ok");
        }
    }
}

fn inner(what: &str, set: &[(&str, &str)]) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.env(INNER, what).env_remove(SKIP).env_remove(LOG).env_remove("TPU_LIBRARY_PATH");
    let status = command.envs(set.iter().copied()).status().expect("started");
    assert!(status.success(), "{what} {set:?}");
}

/// Why a libtpu that does not exist is not loaded.
fn refusal() -> PjrtError {
    Plugin::load("/nonexistent/libtpu.so").expect_err("there is none")
}

fn prepared() {
    let before = env::var(SKIP).unwrap_or_default();
    assert_eq!(matches!(refusal(), PjrtError::Environment { .. }), before.is_empty());
    prepare_environment().expect("one thread");
    let expected = |before: &str, ours: &str| {
        if before.is_empty() { ours.to_owned() } else { before.to_owned() }
    };
    assert_eq!(env::var(SKIP).expect("set"), expected(&before, "1"));
    assert_eq!(env::var(LOG).expect("set"), if before == "0" { "1" } else { "2" });
    assert!(matches!(refusal(), PjrtError::Load { .. }));
}

fn late() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let error = prepare_environment().expect_err("two threads");
    assert!(matches!(error, PjrtError::TooLate { threads: 2 }), "{error:?}");
    assert!(env::var(SKIP).is_err());
    drop(end);
    assert!(thread.join().expect("no panic").is_err());
}
