//! Numbers as MLIR reads them: exactly the bits that are meant.

use crate::shape::ElementType;

/// A number as the element type holds it.
pub(crate) fn rounded(number: f64, element: ElementType) -> f64 {
    match element {
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
        ElementType::F32 => f64::from(number as f32),
        ElementType::Bf16 => f64::from(f32::from_bits(u32::from(bf16_bits(number)) << 16)),
        ElementType::I32 => number.trunc(),
        ElementType::Bool => f64::from(u8::from(number != 0.0)),
    }
}

/// Round to nearest, ties to even, by way of f32, as XLA converts.
fn bf16_bits(number: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
    let single = number as f32;
    let bits = single.to_bits();
    let upper = u16::try_from(bits >> 16).expect("16 bits");
    if single.is_nan() {
        return upper | 0x40;
    }
    // adding half of the last kept place, less one for an even neighbour below a tie
    let half = 0x7FFF + (bits >> 16 & 1);
    u16::try_from(bits.wrapping_add(half) >> 16).expect("16 bits")
}

/// The literal of a constant. A decimal where it is exact, else the bits in hexadecimal: a decimal
/// that is rounded twice, first to f64 by the reader, can end one place off.
pub(crate) fn literal(number: f64, element: ElementType) -> String {
    let value = rounded(number, element);
    match element {
        ElementType::Bool => (value != 0.0).to_string(),
        ElementType::I32 => format!("{value:.0}"),
        ElementType::F32 | ElementType::Bf16 => decimal(value, element).unwrap_or_else(|| {
            #[expect(clippy::cast_possible_truncation, reason = "rounded to the type above")]
            let single = value as f32;
            match element {
                ElementType::Bf16 => format!("0x{:04X}", bf16_bits(number)),
                _ => format!("0x{:08X}", single.to_bits()),
            }
        }),
    }
}

/// A short decimal of exactly this value, if there is one.
fn decimal(value: f64, element: ElementType) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "exact: the value is one of the type")]
    let shortest = match element {
        ElementType::Bf16 => format!("{value:E}"),
        _ => format!("{:E}", value as f32),
    };
    let exact = shortest.parse::<f64>().is_ok_and(|read| read.to_bits() == value.to_bits());
    // what is exact but long (2^-30) reads better as bits
    (exact && shortest.len() <= 16).then(|| match shortest.split_once('E') {
        Some((digits, power)) if !digits.contains('.') => format!("{digits}.0E{power}"),
        _ => shortest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a literal as MLIR does: hexadecimal as bits, decimals by way of f64.
    fn read(text: &str, element: ElementType) -> f64 {
        match text.strip_prefix("0x") {
            Some(bits) if element == ElementType::Bf16 => {
                let bits = u32::from_str_radix(bits, 16).expect("hexadecimal");
                f64::from(f32::from_bits(bits << 16))
            }
            Some(bits) => f64::from(f32::from_bits(u32::from_str_radix(bits, 16).expect("hex"))),
            None => rounded(text.parse().expect("a decimal"), element),
        }
    }

    #[test]
    fn plain_numbers_are_decimals_and_others_are_bits() {
        let f32 = |number| literal(number, ElementType::F32);
        assert_eq!(f32(1.0), "1.0E0");
        assert_eq!(f32(-0.5), "-5.0E-1");
        assert_eq!(f32(-0.0), "-0.0E0");
        assert_eq!(f32(0.1), "0x3DCCCCCD");
        assert_eq!(f32(f64::NEG_INFINITY), "0xFF800000");
        assert_eq!(f32(1e300), "0x7F800000");
        assert_eq!(literal(f64::NEG_INFINITY, ElementType::Bf16), "0xFF80");
        assert_eq!(literal(-7.0, ElementType::I32), "-7");
        assert_eq!(literal(1.0, ElementType::Bool), "true");
    }

    #[test]
    fn bf16_rounds_ties_to_even() {
        let one_place = f64::from(f32::from_bits(0x3F81_0000)) - 1.0;
        let bits = |number| rounded(number, ElementType::Bf16).to_bits();
        assert_eq!(bits(1.0 + one_place / 2.0), 1.0f64.to_bits());
        assert_eq!(bits(1.0 + one_place * 1.5), (1.0 + one_place * 2.0).to_bits());
        assert!(rounded(f64::NAN, ElementType::Bf16).is_nan());
        assert_eq!(bits(f64::MAX), f64::INFINITY.to_bits());
    }

    proptest! {
        #[test]
        fn every_f32_is_read_back_to_the_bit(bits in any::<u32>()) {
            let value = f64::from(f32::from_bits(bits));
            let back = read(&literal(value, ElementType::F32), ElementType::F32);
            prop_assert!(value.is_nan() && back.is_nan() || value.to_bits() == back.to_bits());
        }

        #[test]
        fn every_bf16_is_read_back_to_the_bit(bits in any::<u16>()) {
            let value = f64::from(f32::from_bits(u32::from(bits) << 16));
            let back = read(&literal(value, ElementType::Bf16), ElementType::Bf16);
            prop_assert!(value.is_nan() && back.is_nan() || value.to_bits() == back.to_bits());
        }

        #[test]
        fn rounding_goes_to_the_nearest_bf16(number in -1e30f64..1e30) {
            let value = rounded(number, ElementType::Bf16);
            prop_assert!((value - number).abs() <= number.abs() / 256.0 + f64::from(f32::MIN_POSITIVE));
            prop_assert_eq!(rounded(value, ElementType::Bf16).to_bits(), value.to_bits());
        }
    }
}
