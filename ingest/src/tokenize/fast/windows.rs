//! Piece boundaries for 64 bytes at once.
//!
//! A window begins where a piece begins. Every ASCII byte in it gets its class as a bit in one of a few
//! masks, and shifts and additions of the masks give the beginnings of all pieces, without a branch for
//! a character. What a window cannot tell (pieces that reach out of it, characters that are not ASCII,
//! the end of the text) is left to [`piece_end`].

use super::{
    classes::Classes,
    pieces::{contraction, piece_end},
};

/// Bytes of a window.
pub(super) const WINDOW: usize = 64;
/// Pieces that one window can end.
pub(super) const MOST: usize = WINDOW;

/// The classes of a window's bytes, a bit for each. Bytes that are not ASCII are in `wide` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masks {
    letter: u64,
    number: u64,
    /// White space, line ends included.
    white: u64,
    line_end: u64,
    blank: u64,
    quote: u64,
    wide: u64,
}

/// How masks are made on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 64 bytes an instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 32 bytes an instruction.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// One piece after the other.
    Pieces,
}

impl Width {
    /// The widest that the processor has.
    pub(super) fn detect() -> Self {
        Self::all().next().unwrap_or(Self::Pieces)
    }

    /// All that the processor has, the widest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let wide = {
            let scalar = is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt");
            [
                (
                    Self::Avx512,
                    scalar
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl"),
                ),
                (Self::Avx2, scalar && is_x86_feature_detected!("avx2")),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let wide = [];
        let wide = wide.into_iter().filter_map(|(width, has): (Self, bool)| has.then_some(width));
        wide.chain([Self::Pieces])
    }
}

/// Appends the ends of the pieces from `at` on to `ends`, until there are `enough` or the text is over,
/// and returns the last of them. At most [`MOST`] more than `enough` are appended. `masks` gives the masks
/// of 64 bytes, or nothing where the processor has no instructions for it.
#[allow(clippy::inline_always, reason = "it must take on its caller's processor features")]
#[inline(always)]
pub(super) fn ends(
    masks: impl Fn(&[u8; WINDOW]) -> Option<Masks>,
    classes: &Classes,
    bytes: &[u8],
    mut at: usize,
    enough: usize,
    ends: &mut Vec<usize>,
) -> usize {
    while at < bytes.len() && ends.len() < enough {
        let window = bytes[at..].first_chunk().and_then(&masks);
        let mut starts = window.map_or(0, |masks| starts(masks, bytes, at));
        if starts == 0 {
            at = piece_end(classes, bytes, at);
            ends.push(at);
            continue;
        }
        let base = at;
        while starts != 0 {
            at = base + starts.trailing_zeros() as usize;
            ends.push(at);
            starts &= starts - 1;
        }
    }
    at
}

/// The bits at which pieces begin, without the first, as far as the window can tell. Bit 0 is a piece's
/// beginning.
#[allow(clippy::inline_always, reason = "it must take on its caller's processor features")]
#[inline(always)]
fn starts(masks: Masks, bytes: &[u8], at: usize) -> u64 {
    let known = masks.wide.trailing_zeros();
    if known < 4 {
        return 0;
    }
    let valid = u64::MAX >> (64 - known);
    let letter = masks.letter & valid;
    let number = masks.number & valid;
    let white = masks.white & valid;
    let line_end = masks.line_end & valid;
    let blank = masks.blank & valid;
    let other = valid & !(letter | number | white);
    let space = white & !line_end;

    // Symbols: a run begins a piece unless a blank before it does. A single one takes the letters after
    // it along (alternative 2); with a blank before it, it does not (alternative 4 comes at the blank).
    let run = other & !(other << 1);
    let symbols = run & !(blank << 1);
    let prefix = symbols & (letter >> 1);
    // Letters: what stands before them, if it is white or such a symbol, begins their piece.
    let letters = letter & !(letter << 1) & !((space | prefix) << 1);
    // White space: the last of a run goes to what follows, or is a piece of its own.
    let last = space & !(white >> 1);
    // A run begins a piece, but line ends after symbols belong to these (alternative 4), and what
    // follows them begins anew.
    let taken = line_end & (other << 1);
    let white_run = white & !(white << 1) & !taken;
    let after_taken = taken.wrapping_add(line_end) & !line_end & space;
    // So does what follows the last line end of a run (alternative 5)…
    let mut after_line_end = space & (line_end << 1);
    let run_ends = after_line_end.wrapping_add(space) & !space;
    let mut not_last = run_ends & line_end;
    // …but not what follows another one.
    while not_last != 0 {
        let end = not_last.trailing_zeros();
        let below = !space & ((1 << end) - 1);
        after_line_end &= !(1 << (64 - below.leading_zeros()));
        not_last &= not_last - 1;
    }
    let mut starts = symbols | letters | number | last | white_run | after_taken | after_line_end;

    // Alternative 1 ends a piece within letters.
    let mut quotes = prefix & masks.quote;
    while quotes != 0 {
        let quote = quotes.trailing_zeros();
        let length = contraction(bytes, at + quote as usize);
        if length > 0 {
            starts |= 1u64.checked_shl(quote + length).unwrap_or(0);
        }
        quotes &= quotes - 1;
    }

    // A beginning is certain when the character after it is known, and when the white space before it
    // does not go on beyond the window.
    let not_white = valid & !white;
    let tail = 64 - not_white.leading_zeros();
    let certain = if tail == known { known - 2 } else { tail.min(known - 2) };
    starts & (u64::MAX >> (63 - certain)) & !1
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::{Masks, WINDOW};
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi8, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8,
        _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm512_add_epi8,
        _mm512_cmpeq_epi8_mask, _mm512_cmplt_epu8_mask, _mm512_loadu_si512, _mm512_movepi8_mask,
        _mm512_or_si512, _mm512_set1_epi8,
    };

    /// See [`Masks`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(in super::super) fn masks_avx512(window: &[u8; WINDOW]) -> Masks {
        // SAFETY: the window has the 64 bytes that are read.
        let bytes: __m512i = unsafe { _mm512_loadu_si512(window.as_ptr().cast()) };
        let all = |byte: u8| _mm512_set1_epi8(byte.cast_signed());
        let is = |byte| _mm512_cmpeq_epi8_mask(bytes, all(byte));
        // `first..first + count`
        let within = |bytes, first: u8, count| {
            _mm512_cmplt_epu8_mask(_mm512_add_epi8(bytes, all(first.wrapping_neg())), all(count))
        };
        let line_end = is(b'\n') | is(b'\r');
        let blank = is(b' ');
        Masks {
            letter: within(_mm512_or_si512(bytes, all(0x20)), b'a', 26),
            number: within(bytes, b'0', 10),
            white: within(bytes, b'\t', 5) | blank,
            line_end,
            blank,
            quote: is(b'\''),
            wide: _mm512_movepi8_mask(bytes),
        }
    }

    /// See [`Masks`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in super::super) fn masks_avx2(window: &[u8; WINDOW]) -> Masks {
        let (low, high) = window.split_at(32);
        let (low, high) = (half_avx2(low), half_avx2(high));
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [letter, number, white, line_end, blank, quote, wide] =
            std::array::from_fn(|n| join(low[n], high[n]));
        Masks { letter, number, white, line_end, blank, quote, wide }
    }

    /// The masks of 32 bytes, in the order of [`Masks`].
    #[inline]
    #[target_feature(enable = "avx2")]
    fn half_avx2(window: &[u8]) -> [u32; 7] {
        assert_eq!(window.len(), 32);
        // SAFETY: the window has the 32 bytes that are read.
        let bytes: __m256i = unsafe { _mm256_loadu_si256(window.as_ptr().cast()) };
        let all = |byte: u8| _mm256_set1_epi8(byte.cast_signed());
        let mask = |bytes| _mm256_movemask_epi8(bytes).cast_unsigned();
        let is = |byte| mask(_mm256_cmpeq_epi8(bytes, all(byte)));
        let within = |bytes, first: u8, count: u8| {
            let from = _mm256_add_epi8(bytes, all(first.wrapping_neg()));
            mask(_mm256_cmpeq_epi8(_mm256_min_epu8(from, all(count - 1)), from))
        };
        let blank = is(b' ');
        [
            within(_mm256_or_si256(bytes, all(0x20)), b'a', 26),
            within(bytes, b'0', 10),
            within(bytes, b'\t', 5) | blank,
            is(b'\n') | is(b'\r'),
            blank,
            is(b'\''),
            mask(bytes),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{Classes, Width, piece_end};
    use proptest::prelude::*;
    use std::sync::OnceLock;

    fn classes() -> &'static Classes {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(|| Classes::new().expect("valid"))
    }

    fn ends(width: Width, bytes: &[u8], at: usize, enough: usize, all: &mut Vec<usize>) -> usize {
        match width {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Width::all` has found the processor's features.
            Width::Avx512 => unsafe { ends_avx512(bytes, at, enough, all) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Width::Avx2 => unsafe { ends_avx2(bytes, at, enough, all) },
            Width::Pieces => super::ends(|_| None, classes(), bytes, at, enough, all),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2,lzcnt")]
    fn ends_avx512(bytes: &[u8], at: usize, enough: usize, all: &mut Vec<usize>) -> usize {
        let masks = |window: &_| Some(super::x86::masks_avx512(window));
        super::ends(masks, classes(), bytes, at, enough, all)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    fn ends_avx2(bytes: &[u8], at: usize, enough: usize, all: &mut Vec<usize>) -> usize {
        let masks = |window: &_| Some(super::x86::masks_avx2(window));
        super::ends(masks, classes(), bytes, at, enough, all)
    }

    fn check(text: &str) -> Result<(), TestCaseError> {
        let mut expected = Vec::new();
        let mut at = 0;
        while at < text.len() {
            at = piece_end(classes(), text.as_bytes(), at);
            expected.push(at);
        }
        for width in Width::all() {
            let (mut all, mut at) = (Vec::new(), 0);
            while at < text.len() {
                at = ends(width, text.as_bytes(), at, all.len() + 7, &mut all);
            }
            prop_assert_eq!(&all, &expected, "{:?}: {:?}", width, text);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn windows_cut_as_pieces_do(
            text in "('|''|'s|'t |'re|'VE|'ll| 'd|ſ|[a-c]|[A-D]{1,9}|é|漢|[0-9]| {1,5}|\t|\u{b}|\u{c}|\u{1c}|\u{a0}|\r|\n|\n {1,9}|[.,(=\u{0}\u{7f}]|={3,70}|—){0,90}",
        ) {
            check(&text)?;
        }

        /// Long runs of few characters, so that they lie across windows in every way.
        #[test]
        fn long_runs(text in "(a{0,70}|b?| {0,70}|\n{0,40}|\\.{0,70}|1{0,5}|'s|é{0,3}){0,12}") {
            check(&text)?;
        }

        #[test]
        fn any_ascii(text in "[ -~\n]{0,300}") {
            check(&text)?;
        }
    }

    #[test]
    fn this_processor_has_a_width() {
        assert_eq!(Width::all().last(), Some(Width::Pieces));
    }
}
