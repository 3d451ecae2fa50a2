//! Rows × positions: what a batch looks like.

use coda_curriculum::MaskPlan;
use std::fmt::Write as _;

/// Columns of the picture; longer rows are summed up.
const COLUMNS: u32 = 128;
const CLASSES: [&str; 7] = ["m0", "m1", "m2", "m3", "m4", "prefix", "cut"];

/// What the colours stand for, as HTML.
pub(crate) const KEYS: &str = "<p class=\"keys\"><span><i class=\"prefix\"></i>unmaskable prefix</span>\
    <span><i class=\"cut\"></i>cut off or padding</span><span><i class=\"m0\"></i>open</span>\
    <span><i class=\"m1\"></i>up to a quarter masked</span><span><i class=\"m2\"></i>up to half</span>\
    <span><i class=\"m3\"></i>up to three quarters</span><span><i class=\"m4\"></i>all or nearly</span></p>";

/// How many positions a cell stands for, in words.
pub(crate) fn cell(length: u32) -> String {
    match length.div_ceil(COLUMNS).max(1) {
        1 => "1 position a cell".to_owned(),
        positions => format!("{positions} positions a cell"),
    }
}

/// The rows' plans as an `<svg>` element, one line of cells each. `length` is that of the rows.
pub(crate) fn svg(label: &str, plans: &[MaskPlan], length: u32) -> String {
    let columns = length.clamp(1, COLUMNS);
    // One path a colour, made of the stretches that have it.
    let mut paths = vec![String::new(); CLASSES.len()];
    for (y, plan) in plans.iter().enumerate() {
        let classes: Vec<usize> =
            (0..columns).map(|column| class(plan, bounds(column, columns, length))).collect();
        let mut from = 0;
        while from < classes.len() {
            let here = classes[from];
            let wide = classes[from..].iter().take_while(|class| **class == here).count();
            let _ = write!(paths[here], "M{from} {y}h{wide}v.9h-{wide}z");
            from += wide;
        }
    }
    // Lines of one height, until many of them have to share a screen.
    let high = (plans.len().max(1) as f64 * 1.1).min(15.0);
    let mut svg = format!(
        "<svg style=\"height: {high:.1}rem\" viewBox=\"0 0 {columns} {}\" preserveAspectRatio=\"none\" shape-rendering=\"crispEdges\" \
         role=\"img\" aria-label=\"{label}\">",
        plans.len().max(1)
    );
    for (class, path) in CLASSES.iter().zip(paths).filter(|(_, path)| !path.is_empty()) {
        let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    svg.push_str("</svg>");
    svg
}

fn bounds(column: u32, columns: u32, length: u32) -> std::ops::Range<u32> {
    let edge = |column: u32| {
        let edge = u64::from(column) * u64::from(length) / u64::from(columns);
        u32::try_from(edge).unwrap_or(length)
    };
    edge(column)..edge(column + 1)
}

/// The index of the colour for some positions: how much of them is masked, or what most of them are.
fn class(plan: &MaskPlan, positions: std::ops::Range<u32>) -> usize {
    let from = plan.masked.partition_point(|&position| position < positions.start);
    let to = plan.masked.partition_point(|&position| position < positions.end);
    let (masked, all) = ((to - from) as u64, u64::from(positions.end - positions.start));
    let middle = positions.start.midpoint(positions.end.saturating_sub(1).max(positions.start));
    match masked {
        0 if middle < plan.prefix_len => 5,
        0 if middle >= plan.valid_len => 6,
        0 => 0,
        masked => usize::try_from((masked * 4).div_ceil(all.max(1))).unwrap_or(4).min(4),
    }
}

#[cfg(test)]
mod tests {
    use super::{class, svg};
    use coda_curriculum::MaskPlan;
    use coda_manifests::MaskBlocks;

    fn plan(masked: &[u32]) -> MaskPlan {
        MaskPlan {
            row_key: 0,
            sigma: 0.5,
            s1: false,
            s2: false,
            s3: false,
            prefix_len: 4,
            valid_len: 12,
            block_size: None,
            mask_blocks: MaskBlocks::Tokens,
            masked: masked.to_vec(),
        }
    }

    #[test]
    fn a_cell_has_the_colour_of_what_it_holds() {
        let plan = plan(&[5, 8, 9, 10, 11]);
        let classes = [0..4, 4..8, 8..12, 12..16, 9..10].map(|cell| class(&plan, cell));
        assert_eq!(classes, [5, 1, 4, 6, 4]);
    }

    #[test]
    fn equal_neighbours_are_one_stretch() {
        let svg = svg("rows", &[plan(&[4, 5, 6])], 16);
        assert!(svg.contains("viewBox=\"0 0 16 1\""), "{svg}");
        assert!(svg.contains("class=\"m4\" d=\"M4 0h3v.9h-3z\""), "{svg}");
        assert!(svg.contains("class=\"prefix\" d=\"M0 0h4v.9h-4z\""), "{svg}");
        assert!(svg.contains("class=\"cut\" d=\"M12 0h4v.9h-4z\""), "{svg}");
    }
}
