//! The draws that decide a row's masks. This page is what `docs/shard-format.md` cites: with it and
//! the row's columns, a reader in any language gets our masks bit for bit.
//!
//! # The streams
//! All draws are 32-bit words of Philox4x32-10 ([`coda_random::Stream`]). A row's streams have
//! the run's seed, the row's `row_key`, and the row's own epoch (how often its source has been gone
//! through before this visit). Draw `i` is lane `i mod 4` of the block with counter
//! `[i / 4, epoch | purpose << 24, row_key low, row_key high]` and key `[seed low, seed high]`.
//!
//! | purpose | draw | decides |
//! |---|---|---|
//! | `Sigma` (3) | 0 | `u = w / 2^32`, `sigma = eps + (1 - eps) · u` |
//! | `PrefixGate` (4) | 0 | S1 takes the row when `w < T(p1)` |
//! | `PrefixCut` (5) | 0 | S1's cut `1 + (w · (L - 1) >> 32)` |
//! | `SuffixGate` (6) | 0 | S2 takes the row when S1 did not and `w < T(p2)` |
//! | `SuffixCut` (7) | 0 | S2's cut `1 + (w · (L - 1) >> 32)` |
//! | `BlockGate` (8) | 0 | `coda-paper`: S3 takes the row when `w < T(p3)` |
//! | `BlockSize` (9) | 0 | `coda-paper`: `k = sizes[w · len >> 32]` |
//! | `BatchBlockSize` (12) | 0 | `coda-repo`: the same, in the stream with `row_key` = the step and epoch 0 |
//! | `BlockStart` (10) | `i` | S3: a block starts at position `i` when `w >= S(1 - sigma, k)` |
//! | `TokenMask` (11) | `i` | without S3: position `i` is masked when `w < T(sigma)`; with S3 over spans: the block that starts at `i`, or position `i` outside of blocks |
//!
//! `T(p) = floor(p · 2^32)` ([`coda_random::bernoulli_threshold`]). `S(keep, k)` is the largest
//! integer `s` in `0..=2^32` with `(s / 2^32)^k <= keep`, the power by repeated squaring from the
//! exponent's lowest bit ([`coda_random::survival_threshold`]). `sigma` is computed in f64 as
//! written, each operation rounded (no fused multiply-add). A row of fewer than two tokens has no
//! cut: neither S1 nor S2 takes it. Under `coda-repo`, S3 takes every row as soon as `p3 > 0`.
//!
//! # The maskable positions
//! With `L` the row length, `prompt` the column `prefix_len`, `r` the ratio of the conditioned span:
//!
//! 1. `protected = floor(r · prompt)`; `prefix = max(protected, cut)` if S1 took the row, else
//!    `protected`.
//! 2. `valid = min(column valid_len, cut)` if S2 took the row, else column `valid_len`. Positions
//!    `>= valid` are pads: their clean id becomes the pad id.
//! 3. Maskable: positions in `prefix..valid` that lie in `protected..prompt` (the part of the prompt
//!    that is not protected) or in a span of the column `maskable`; and, if pads are scored and
//!    `p2 = 0` at this step, the pads `valid..L` that lie at or after `prefix`.
//!
//! # Blocks that are spans
//! With `mask_blocks` other than `tokens`, S3's blocks are spans of the column `spans`: in its order,
//! each span of a wanted kind that has at most `k` tokens, lies inside one maximal run of maskable
//! positions and begins at or after the end of the last block. A block is masked as a whole, and
//! every other maskable position by itself, when the draw `TokenMask` of its first position is below
//! `T(sigma)`.
//!
//! # Runs
//! Maximal runs of maskable positions are what S3 sees: a block of `k` may start at `i` when
//! `i..i + k` lies inside one run. Draws at other positions are simply not looked at, so a
//! position's word never depends on what happens elsewhere in the row.
