//! How often keys were seen, in a table that is used for one document after the other.

/// Above this many slots a table is given back after use, so that one long document does not stay in
/// memory.
const KEEP_SLOTS: usize = 1 << 17;

/// Counts of 64-bit keys that are hashes already.
#[derive(Default)]
pub(super) struct Counts {
    /// Key and count; a count of 0 is a free slot.
    slots: Vec<(u64, u32)>,
    mask: usize,
}

impl Counts {
    /// Forgets everything and makes room for `keys` keys.
    pub(super) fn reset(&mut self, keys: usize) {
        let slots = (keys.max(8) * 2).next_power_of_two();
        self.slots.clear();
        if slots <= KEEP_SLOTS {
            self.slots.shrink_to(KEEP_SLOTS);
        }
        self.slots.resize(slots, (0, 0));
        self.mask = slots - 1;
    }

    /// Counts `key` once more; how often it was there before.
    pub(super) fn add(&mut self, key: u64) -> u32 {
        // The low bits of an n-gram's hash depend on the low bits of its words alone.
        #[allow(clippy::cast_possible_truncation, reason = "the slot is masked anyway")]
        let mut slot = (key ^ (key >> 32)) as usize & self.mask;
        loop {
            let (found, count) = &mut self.slots[slot];
            if *count == 0 {
                (*found, *count) = (key, 1);
                return 0;
            }
            if *found == key {
                *count = count.saturating_add(1);
                return *count - 1;
            }
            slot = (slot + 1) & self.mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(documents in prop::collection::vec(prop::collection::vec(0_u64..40, 0..200), 1..4)) {
            let mut counts = Counts::default();
            for keys in documents {
                counts.reset(keys.len());
                let mut map = HashMap::new();
                for key in keys {
                    // Keys that fall on the same slot.
                    let key = key << 40;
                    let seen: &mut u32 = map.entry(key).or_default();
                    prop_assert_eq!(counts.add(key), *seen);
                    *seen += 1;
                }
            }
        }
    }
}
