//! `coda-curriculum` in a folder of its own. What lies in the folder is each target's.

#![allow(dead_code, reason = "each test target uses its part")]

use serde_json::Value;
use std::process::{Command, Output};
use tempfile::TempDir;

/// The folder that the program runs in.
pub(crate) struct House {
    pub(crate) dir: TempDir,
}

impl House {
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_coda-curriculum"))
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("the binary runs")
    }

    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.stdout(args)).expect("one JSON object")
    }

    pub(crate) fn refused(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(output.stdout.is_empty(), "results of a failed run on stdout");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code().expect("an exit code"), stderr)
    }
}
