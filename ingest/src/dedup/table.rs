//! The youngest entries of a [`super::Seen`], in memory.

/// A key and the ordinal of the document that had it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<const W: usize> {
    pub(super) key: [u64; W],
    /// From 1; 0 marks a free slot.
    pub(super) ordinal: u64,
}

/// Slots of a fresh table.
const FIRST_SLOTS: usize = 1 << 10;

/// A hash table that never takes more than its budget.
pub(super) struct Table<const W: usize> {
    slots: Vec<Entry<W>>,
    length: usize,
    most_slots: usize,
}

impl<const W: usize> Table<W> {
    /// An empty table that will take at most `bytes`, also while it grows.
    pub(super) fn new(bytes: u64) -> Self {
        // While it grows, the old half lives beside the new whole.
        let slots = bytes * 2 / 3 / size_of::<Entry<W>>() as u64;
        let most_slots = usize::try_from(slots).unwrap_or(usize::MAX).max(FIRST_SLOTS);
        // A power of two above the first one, so that every table is twice the one before.
        let most_slots = FIRST_SLOTS << (most_slots / FIRST_SLOTS).ilog2();
        Self { slots: Vec::new(), length: 0, most_slots }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the next entry has to wait until the table was taken out.
    pub(super) fn is_full(&self) -> bool {
        self.length >= self.most_slots / 8 * 7
    }

    pub(super) fn get(&self, key: &[u64; W]) -> Option<u64> {
        if self.slots.is_empty() {
            return None;
        }
        let entry = &self.slots[self.slot(key)];
        (entry.ordinal > 0).then_some(entry.ordinal)
    }

    /// Adds a key that is not there. The table must not be full.
    pub(super) fn insert(&mut self, key: [u64; W], ordinal: u64) {
        if self.length >= self.slots.len() / 8 * 7 {
            self.grow();
        }
        let slot = self.slot(&key);
        self.slots[slot] = Entry { key, ordinal };
        self.length += 1;
    }

    /// All entries in the order of their keys; the table is empty afterwards. The slots themselves
    /// are sorted: no second copy is made.
    pub(super) fn take_sorted(&mut self) -> Vec<Entry<W>> {
        let mut entries = std::mem::take(&mut self.slots);
        self.length = 0;
        entries.retain(|entry| entry.ordinal > 0);
        entries.sort_unstable();
        entries
    }

    /// Forgets the entries of documents after `ordinal`.
    pub(super) fn forget_after(&mut self, ordinal: u64) {
        let mut entries = std::mem::take(&mut self.slots);
        entries.retain(|entry| (1..=ordinal).contains(&entry.ordinal));
        self.length = 0;
        for entry in entries {
            self.insert(entry.key, entry.ordinal);
        }
    }

    /// Bytes of the slots.
    pub(super) fn bytes(&self) -> u64 {
        (self.slots.capacity() * size_of::<Entry<W>>()) as u64
    }

    /// Where the key is, or would be put.
    fn slot(&self, key: &[u64; W]) -> usize {
        let mask = self.slots.len() - 1;
        #[allow(clippy::cast_possible_truncation, reason = "the slot is masked anyway")]
        let mut slot = key[0] as usize & mask;
        while self.slots[slot].ordinal > 0 && self.slots[slot].key != *key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let free = Entry { key: [0; W], ordinal: 0 };
        let slots = (self.slots.len() * 2).max(FIRST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![free; slots]);
        for entry in old.into_iter().filter(|entry| entry.ordinal > 0) {
            let slot = self.slot(&entry.key);
            self.slots[slot] = entry;
        }
    }
}
