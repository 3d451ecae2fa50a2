//! One run by two real processes on loopback. XLA's CPU plugin runs no program over several processes, so
//! the runs are rehearsals (`--rehearse`): everything but the execution is that of a real one.

mod common;

use coda_pjrt::{PluginKind, discover};
use common::World;
use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, ChildStderr, Command, Stdio},
};

fn plugin() -> String {
    let found = discover(None, PluginKind::Cpu).expect("the CPU plugin: `cargo xtask plugin`");
    found.to_str().expect("a plain path").to_owned()
}

const RUN: [&str; 7] = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--engine", "xla"];

/// A process of a run, and what it says.
struct Process {
    child: Child,
    said: BufReader<ChildStderr>,
    text: String,
}

impl Process {
    /// Process `number` of two.
    fn start(world: &World, address: &str, number: usize, args: &[&str]) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("coda-trainer"))
            .current_dir(world.dir.path())
            .args(RUN)
            .args(["--plugin", &plugin(), "--coordinator", address])
            .args(["--process", &format!("{number}/2")])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, said, text: String::new() }
    }

    /// Reads until a line has the word.
    fn wait_for(&mut self, word: &str) {
        while !self.text.contains(word) {
            let read = self.said.read_line(&mut self.text).expect("text");
            assert!(read > 0, "it ended without `{word}`: {}", self.text);
        }
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
    }

    /// How it ends, and all it said.
    fn end(mut self) -> (Option<i32>, String) {
        while self.said.read_line(&mut self.text).expect("text") > 0 {}
        (self.child.wait().expect("it ends").code(), self.text)
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

/// Two processes with the same arguments.
fn pair(world: &World, args: &[&str]) -> [Process; 2] {
    let address = free_address();
    [0, 1].map(|number| Process::start(world, &address, number, args))
}

#[test]
fn two_processes_train_as_one_through_a_kill_a_signal_and_a_resume() {
    let world = World::new();
    // Three passes a step, so that the rows of both processes interleave.
    let keys = ["train.micro_batch=2", "train.document_attention=true", "train.eval.batches=3"];
    let mesh = ["--mesh", "fsdp=2"];
    let plugin = plugin();
    let alone = [&["--engine", "xla", "--plugin", &plugin][..], &mesh, &keys].concat();
    world.train("alone", &alone);

    let args = [&["--rehearse", "--out", "both"][..], &mesh, &keys].concat();
    // A process that is killed is missed; nothing is saved, and nobody hangs.
    let [mut first, mut second] = pair(&world, &args);
    first.wait_for("rehearsed by 2 processes");
    second.wait_for("process 1 of 2");
    second.signal("-KILL");
    let (code, said) = first.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("process 1 has ended") && said.contains("hint:"), "{said}");
    assert_eq!(second.end().0, None);

    // A signal to one of them stops both after the same step, saved.
    let [first, mut second] = pair(&world, &args);
    second.wait_for("process 1 of 2");
    second.signal("-TERM");
    for process in [first, second] {
        let (code, said) = process.end();
        assert_eq!(code, Some(143), "{said}");
    }
    let steps = world.metrics("both").len();
    assert!((2..13).contains(&steps), "{steps}");

    // And they go on to the weights, losses and files of the one process, bit by bit.
    for (number, process) in pair(&world, &args).into_iter().enumerate() {
        let (code, said) = process.end();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains("resuming at step"), number == 0, "{said}");
    }
    let (both, one) = (world.metrics("both"), world.metrics("alone"));
    assert_eq!(both.len(), one.len());
    for (both, one) in both.iter().zip(&one) {
        for key in ["step", "loss_bits", "grad_norm_bits", "held_out_loss", "scored", "observed"] {
            assert_eq!(both[key], one[key], "{key} of {one}");
        }
    }
    assert!(world.state("both", 12) == world.state("alone", 12));
}

#[test]
fn processes_that_are_no_run_are_refused() {
    let world = World::new();
    let mesh = ["--mesh", "fsdp=2", "--out", "run"];
    // The CPU plugin shows a process its own devices only, so that there is no mesh over both.
    for process in pair(&world, &mesh) {
        let (code, said) = process.end();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("the devices of 1 of 2 processes"), "{said}");
        assert!(said.contains("--rehearse"), "{said}");
    }
    let rehearse = [&mesh[..], &["--rehearse"]].concat();
    let address = free_address();
    let first = Process::start(&world, &address, 0, &rehearse);
    let other = [&rehearse[..], &["train.lr.peak=0.02"]].concat();
    let second = Process::start(&world, &address, 1, &other);
    for process in [first, second] {
        let (code, said) = process.end();
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("process 1 has") && said.contains("0.02"), "{said}");
    }
    // Devices that cannot be shared out.
    for process in pair(&world, &["--mesh", "fsdp=3", "--rehearse", "--out", "run"]) {
        let (code, said) = process.end();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("3 devices cannot be shared out over 2 processes"), "{said}");
    }
    let error = world.fails(&["--manifest", "tiny.yaml", "--process", "0/2"], 2);
    assert!(error.contains("options of the XLA engine"), "{error}");
}
