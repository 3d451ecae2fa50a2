//! Ids by the text of their tokens.
//!
//! A vocabulary has some hundred thousand short texts. In a map of strings of their own, making and
//! giving back the strings costs more than all the rest; here they lie one behind the other.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{borrow::Cow, fmt, hash::BuildHasher as _};

/// A map from texts to ids.
#[derive(Default)]
pub(super) struct Ids {
    texts: String,
    entries: Vec<Entry>,
    /// Open addressing; a power of two of slots, at most half of them taken. In each, the hash of a text
    /// and the number of its entry from 1, or 0.
    slots: Vec<(u32, u32)>,
}

struct Entry {
    start: u32,
    length: u32,
    id: u32,
}

/// Slots of the first table.
const FIRST_SLOTS: usize = 1 << 10;

impl Ids {
    /// The id of a text.
    pub(super) fn get(&self, text: &str) -> Option<u32> {
        let number = self.slots.get(self.slot(text)?)?.1;
        (number > 0).then(|| self.entries[number as usize - 1].id)
    }

    /// Gives a text its id, also one that has another; gives that.
    pub(super) fn insert(&mut self, text: &str, id: u32) -> Option<u32> {
        if self.slots.len() < 2 * (self.entries.len() + 1) {
            self.grow();
        }
        let slot = self.slot(text)?;
        let number = self.slots[slot].1;
        if number > 0 {
            return Some(std::mem::replace(&mut self.entries[number as usize - 1].id, id));
        }
        let offset = |n: usize| u32::try_from(n).expect("a tokenizer file is below 4 GiB");
        let (start, length) = (offset(self.texts.len()), offset(text.len()));
        self.texts.push_str(text);
        self.entries.push(Entry { start, length, id });
        self.slots[slot] = (hash(text), offset(self.entries.len()));
        None
    }

    /// All texts with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.entries.iter().map(|entry| (self.text(entry), entry.id))
    }

    /// Ids run from 0 to this, exclusive.
    pub(super) fn limit(&self) -> u32 {
        self.entries.iter().map(|entry| entry.id.saturating_add(1)).max().unwrap_or(0)
    }

    fn text(&self, entry: &Entry) -> &str {
        let start = entry.start as usize;
        &self.texts[start..start + entry.length as usize]
    }

    /// Where a text is, or would be put; nothing while there is no table.
    fn slot(&self, text: &str) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let hash = hash(text);
        let mut slot = hash as usize & mask;
        loop {
            let (found, number) = self.slots[slot];
            let is_it = || self.text(&self.entries[number as usize - 1]) == text;
            if number == 0 || (found == hash && is_it()) {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(FIRST_SLOTS);
        for (hash, number) in std::mem::replace(&mut self.slots, vec![(0, 0); slots]) {
            if number > 0 {
                let mut slot = hash as usize & (slots - 1);
                while self.slots[slot].1 > 0 {
                    slot = (slot + 1) & (slots - 1);
                }
                self.slots[slot] = (hash, number);
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "half of a good hash is a good hash")]
fn hash(text: &str) -> u32 {
    foldhash::quality::FixedState::default().hash_one(text) as u32
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Borrowed where the file has no escapes in it.
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ids, A::Error> {
                let mut ids = Ids::default();
                while let Some((Text(text), id)) = map.next_entry()? {
                    ids.insert(&text, id);
                }
                Ok(ids)
            }
        }
        from.deserialize_map(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn it_is_a_map(entries in prop::collection::vec(("[a-c\\\\\"é]{0,4}", any::<u32>()), 0..2000)) {
            let (mut ids, mut map) = (Ids::default(), HashMap::new());
            prop_assert_eq!((ids.get(""), ids.limit()), (None, 0));
            for (text, id) in &entries {
                prop_assert_eq!(ids.insert(text, *id), map.insert(text.as_str(), *id));
            }
            let json = serde_json::to_string(&map).unwrap();
            for ids in [ids, serde_json::from_str(&json).unwrap()] {
                prop_assert_eq!(&ids.iter().collect::<HashMap<_, _>>(), &map);
                prop_assert_eq!(ids.limit(), map.values().max().map_or(0, |id| id.saturating_add(1)));
                for (text, id) in &map {
                    prop_assert_eq!(ids.get(text), Some(*id));
                    prop_assert_eq!(ids.get(&format!("{text}d")), None);
                }
            }
        }
    }
}
