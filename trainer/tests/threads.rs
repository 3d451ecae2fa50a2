//! Threads that share the work of the operations they start. In a process of its own: what it chooses stays.

use assert_cmd::Command;
use coda_trainer::threads::share_this_thread;
use rayon::prelude::*;
use std::{env, thread};

fn sum() -> u64 {
    (0..10_000_u64).into_par_iter().map(|n| n % 7).sum()
}

/// Which of the pool's threads a new one is, and what it computes.
fn in_a_thread() -> (Option<usize>, u64) {
    let shared = thread::spawn(|| {
        share_this_thread();
        share_this_thread();
        (rayon::current_thread_index(), sum())
    });
    shared.join().expect("no panic")
}

/// Runs itself with other numbers of threads, since a process chooses once.
#[test]
fn the_first_thread_joins_the_pool_and_a_later_one_has_its_own() {
    let expected = (0..10_000_u64).map(|n| n % 7).sum();
    let Ok(threads) = env::var("RAYON_NUM_THREADS") else {
        for threads in ["1", "2", "5"] {
            let mut again = Command::new(env::current_exe().expect("this test"));
            again.env("RAYON_NUM_THREADS", threads).assert().success();
        }
        return;
    };
    assert_eq!(rayon::current_thread_index(), None);
    // One that is alone would leave nobody to work for the others: the pool keeps its own.
    let place = (threads != "1").then_some(0);
    assert_eq!(in_a_thread(), (place, expected));
    // The pool is there now, and its first thread has gone; one that comes later does not need it.
    assert_eq!(in_a_thread(), (place, expected));
    assert_eq!(sum(), expected, "of a thread that did not join");
}
