//! Measurements against the peers that a user would pick instead. Each is a program of its own with
//! a driver beside it that runs both sides in turns; results are recorded in `docs/benchmarks.md`.
//!
//! * `train_step`: one training step on the CPU, against eager PyTorch (`compare_train_step.py`).
//! * `sampling`: ways of sampling from a trained model, against the plain one in the same run.
