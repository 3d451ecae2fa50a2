//! Which part of the input a task takes.

use crate::source::InputFile;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, str::FromStr};

/// Task I of N, written `I/N`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    number: u32,
    of: u32,
}

/// A text that is no task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a task I/N with I from 1 to N, such as 2/8")]
pub struct TaskError(String);

/// So many tasks are a mistake.
const MOST: u32 = 1 << 20;

impl FromStr for Task {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let number = |text: &str| text.parse::<u32>().ok();
        let parsed = text.split_once('/').and_then(|(i, n)| Some((number(i)?, number(n)?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) && of <= MOST => {
                Ok(Self { number, of })
            }
            _ => Err(TaskError(text.to_owned())),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl Task {
    /// I, from 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// N.
    #[must_use]
    pub const fn of(self) -> u32 {
        self.of
    }

    /// The files of a source that this task reads: whole files, contiguous, by their bytes. A file
    /// belongs to the task in whose N-th of the bytes its middle lies.
    #[must_use]
    pub fn files(self, files: &[InputFile]) -> Range<usize> {
        let all: u128 = files.iter().map(|file| u128::from(file.bytes)).sum();
        let (mut start, mut range) = (0_u128, 0..0);
        for (index, file) in files.iter().enumerate() {
            // Twice the middle, so that it is a whole number.
            let middle = 2 * start + u128::from(file.bytes);
            let of = u128::from(self.of);
            let owner = (middle * of / (2 * all).max(1)).min(of - 1);
            if owner < u128::from(self.number - 1) {
                range = index + 1..index + 1;
            } else if owner == u128::from(self.number - 1) {
                range.end = index + 1;
            }
            start += u128::from(file.bytes);
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::Task;
    use crate::source::{Container, InputFile};
    use proptest::prelude::*;

    fn files(sizes: &[u64]) -> Vec<InputFile> {
        let file = |&bytes: &u64| InputFile {
            path: "x".into(),
            name: "x".to_owned(),
            container: Container::Jsonl,
            bytes,
            origin: None,
            vendored: false,
        };
        sizes.iter().map(file).collect()
    }

    #[test]
    fn tasks_are_written_with_a_slash() {
        let task: Task = "2/8".parse().expect("a task");
        assert_eq!((task.number(), task.of(), task.to_string()), (2, 8, "2/8".to_owned()));
        for wrong in ["", "2", "0/8", "9/8", "2/", "/8", "-1/8", "2/8/9", "1/99999999", "a/b"] {
            let error = wrong.parse::<Task>().expect_err(wrong);
            assert!(error.to_string().contains("2/8"), "{error}");
        }
    }

    #[test]
    fn a_giant_file_belongs_to_one_task() {
        let files = files(&[1, 1000, 1]);
        let of = |i| format!("{i}/4").parse::<Task>().expect("a task").files(&files);
        assert_eq!([of(1), of(2), of(3), of(4)], [0..1, 1..1, 1..2, 2..3]);
    }

    proptest! {
        #[test]
        fn every_file_belongs_to_one_task_in_order(
            sizes in prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..1000, Just(u64::MAX / 64)], 0..20),
            of in 1_u32..12,
        ) {
            let files = files(&sizes);
            let mut next = 0;
            for number in 1..=of {
                let range = Task { number, of }.files(&files);
                prop_assert!(range.is_empty() || range.start == next, "{:?} after {}", range, next);
                next = next.max(range.end);
            }
            prop_assert_eq!(next, files.len());
        }

        #[test]
        fn files_of_like_size_are_dealt_evenly(count in 1_usize..200, of in 1_u32..12) {
            let files = files(&vec![100; count]);
            let lengths: Vec<usize> =
                (1..=of).map(|number| Task { number, of }.files(&files).len()).collect();
            let (least, most) = (lengths.iter().min(), lengths.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", lengths);
        }
    }
}
