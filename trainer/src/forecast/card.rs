//! Cards, by what their makers publish.

use serde::Serialize;

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Card {
    /// What the command line calls it.
    pub name: &'static str,
    /// Bytes of memory.
    pub memory: u64,
    /// Dense bf16 operations a second, accumulated in f32.
    pub flops: f64,
    /// Bytes a second to and from its memory.
    pub bandwidth: f64,
    /// Bytes a second that it sends to the other cards of its node, in one direction.
    pub link: f64,
}

/// The cards that are known, from the data sheets of their maker (SXM forms where there are several).
pub const CARDS: [Card; 8] = [
    card("a100-40", 40, 312.0, 1.555, 300.0),
    card("a100", 80, 312.0, 2.039, 300.0),
    card("h100", 80, 989.4, 3.35, 450.0),
    card("h200", 141, 989.4, 4.8, 450.0),
    card("b200", 180, 2250.0, 8.0, 900.0),
    card("l40s", 48, 362.0, 0.864, 32.0),
    card("rtx4090", 24, 165.2, 1.008, 32.0),
    card("rtx6000ada", 48, 364.2, 0.960, 32.0),
];

const fn card(name: &'static str, gigabytes: u64, tera: f64, terabytes: f64, link: f64) -> Card {
    Card {
        name,
        memory: gigabytes * 1_000_000_000,
        flops: tera * 1e12,
        bandwidth: terabytes * 1e12,
        link: link * 1e9,
    }
}

impl Card {
    /// The card of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        CARDS.iter().find(|card| card.name == name)
    }

    /// The card that a driver calls so, as `NVIDIA H100 80GB HBM3`, with so many bytes of memory.
    #[must_use]
    pub fn of_device(device: &str, memory: u64) -> Option<&'static Self> {
        let words: Vec<String> = device.split([' ', '-']).map(str::to_lowercase).collect();
        let has = |word: &str| words.iter().any(|known| known == word);
        let name = match () {
            () if has("h200") => "h200",
            () if has("h100") => "h100",
            () if has("b200") => "b200",
            () if has("a100") && memory < 60_000_000_000 => "a100-40",
            () if has("a100") => "a100",
            () if has("l40s") => "l40s",
            () if has("4090") => "rtx4090",
            () if has("6000") && has("ada") => "rtx6000ada",
            () => return None,
        };
        Self::named(name)
    }

    /// Bytes that a run may count on: 5 in 100 are left for what allocators lose and libraries take.
    #[must_use]
    pub const fn usable(&self) -> u64 {
        self.memory / 100 * 95
    }
}

#[cfg(test)]
mod tests {
    use super::Card;

    #[test]
    fn cards_are_known_by_what_drivers_call_them() {
        let known = [
            ("NVIDIA H100 80GB HBM3", 85_000_000_000, Some("h100")),
            ("NVIDIA H200", 150_000_000_000, Some("h200")),
            ("NVIDIA A100-SXM4-40GB", 42_000_000_000, Some("a100-40")),
            ("NVIDIA A100-SXM4-80GB", 85_000_000_000, Some("a100")),
            ("NVIDIA GeForce RTX 4090", 25_000_000_000, Some("rtx4090")),
            ("NVIDIA RTX 6000 Ada Generation", 51_000_000_000, Some("rtx6000ada")),
            ("emulated card", 8_000_000_000, None),
        ];
        for (device, memory, name) in known {
            assert_eq!(Card::of_device(device, memory).map(|card| card.name), name, "{device}");
        }
    }
}
