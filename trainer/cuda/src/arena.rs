//! Memory of a card: blocks are kept when they are given back, so that a step like the one before
//! it asks the driver for nothing.
//!
//! A block that is given back may be handed out again at once. That is right because all work on
//! blocks is queued on one stream: whatever uses the block next is queued behind what used it
//! last. Work on another stream has to wait for a mark (see [`crate::Stream::wait`]).

use crate::{CudaError, Stream, device::refused};
use cudarc::driver::result::{free_sync, malloc_sync};
use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc};

/// Blocks up to [`LARGE`] are multiples of this, as are their addresses.
const GRAIN: usize = 512;

/// Larger blocks are multiples of [`LARGE_GRAIN`].
const LARGE: usize = 1 << 20;

/// The driver's pages.
const LARGE_GRAIN: usize = 2 << 20;

/// Where an arena's blocks come from.
pub trait Source {
    /// A block of `bytes`.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] if there is no room; then the arena gives back what it keeps and
    /// asks again.
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;

    /// Takes a block back.
    fn release(&self, pointer: u64, bytes: usize);
}

/// The memory of a card.
#[derive(Debug)]
pub struct CardMemory {
    stream: Stream,
}

impl Source for CardMemory {
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        let device = self.stream.device();
        device.bind()?;
        // SAFETY: the block is used within its size and released once, by the arena.
        match unsafe { malloc_sync(bytes) } {
            Ok(pointer) => Ok(pointer),
            Err(error) if error.0 == cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = device.memory()?;
                Err(CudaError::OutOfMemory { wanted: bytes as u64, free, total })
            }
            Err(error) => Err(refused("cuMemAlloc")(error)),
        }
    }

    fn release(&self, pointer: u64, _: usize) {
        // Work that uses the block may still be queued.
        let _ = self.stream.synchronize();
        // SAFETY: allocated above, released once; nothing queued uses it any more.
        let _ = unsafe { free_sync(pointer) };
    }
}

/// What an arena holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaUse {
    /// Bytes asked of the source and not given back.
    pub held: u64,
    /// Bytes of blocks in use.
    pub in_use: u64,
    /// The most that was in use at a time.
    pub peak: u64,
    /// How often the source was asked for a block.
    pub allocations: u64,
}

/// An allocator that keeps blocks by size.
pub struct Arena<S: Source = CardMemory>(Rc<Shared<S>>);

struct Shared<S: Source> {
    source: S,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Free blocks by size.
    free: BTreeMap<usize, Vec<u64>>,
    usage: ArenaUse,
}

/// A block of an arena; dropping it gives it back.
pub struct Block<S: Source = CardMemory> {
    arena: Rc<Shared<S>>,
    pointer: u64,
    /// Bytes asked for.
    bytes: usize,
    /// Bytes of the block.
    size: usize,
}

impl Arena {
    /// An arena whose blocks are used by work on `stream`.
    #[must_use]
    pub fn on(stream: &Stream) -> Self {
        Self::new(CardMemory { stream: stream.clone() })
    }
}

impl<S: Source> Arena<S> {
    /// An empty arena.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self(Rc::new(Shared { source, state: RefCell::default() }))
    }

    /// A block of at least `bytes`, at a multiple of 256 bytes. Its contents are whatever was there.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] if the source has no room even after everything kept went back.
    pub fn block(&self, bytes: usize) -> Result<Block<S>, CudaError> {
        let size = rounded(bytes);
        let mut state = self.0.state.borrow_mut();
        let kept = state.free.get_mut(&size).and_then(Vec::pop);
        let pointer = if let Some(pointer) = kept {
            pointer
        } else {
            let pointer = match self.0.source.allocate(size) {
                Err(CudaError::OutOfMemory { .. }) => {
                    state.release_kept(&self.0.source);
                    self.0.source.allocate(size)?
                }
                other => other?,
            };
            state.usage.held += size as u64;
            state.usage.allocations += 1;
            pointer
        };
        state.usage.in_use += size as u64;
        state.usage.peak = state.usage.peak.max(state.usage.in_use);
        Ok(Block { arena: Rc::clone(&self.0), pointer, bytes, size })
    }

    /// What is held and used.
    #[must_use]
    pub fn usage(&self) -> ArenaUse {
        self.0.state.borrow().usage
    }

    /// Starts the peak anew, at what is in use now.
    pub fn reset_peak(&self) {
        let usage = &mut self.0.state.borrow_mut().usage;
        usage.peak = usage.in_use;
    }
}

impl<S: Source> Clone for Arena<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Source> fmt::Debug for Arena<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arena").field(&self.usage()).finish()
    }
}

impl State {
    fn release_kept(&mut self, source: &impl Source) {
        for (size, pointers) in std::mem::take(&mut self.free) {
            for pointer in pointers {
                source.release(pointer, size);
                self.usage.held -= size as u64;
            }
        }
    }
}

impl<S: Source> Drop for Shared<S> {
    fn drop(&mut self) {
        self.state.borrow_mut().release_kept(&self.source);
    }
}

impl<S: Source> Block<S> {
    /// Its address on the card.
    #[must_use]
    pub const fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Bytes that were asked for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<S: Source> fmt::Debug for Block<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:#x}, {} bytes)", self.pointer, self.bytes)
    }
}

impl<S: Source> Drop for Block<S> {
    fn drop(&mut self) {
        let mut state = self.arena.state.borrow_mut();
        state.free.entry(self.size).or_default().push(self.pointer);
        state.usage.in_use -= self.size as u64;
    }
}

const fn rounded(bytes: usize) -> usize {
    let grain = if bytes <= LARGE { GRAIN } else { LARGE_GRAIN };
    // An empty matrix has an address too.
    if bytes == 0 { grain } else { bytes.div_ceil(grain) * grain }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Block, Source, rounded};
    use crate::CudaError;
    use proptest::prelude::*;
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
        rc::Rc,
    };

    /// A card of limited memory that knows which of its blocks are out.
    #[derive(Clone, Default)]
    struct Fake {
        out: Rc<RefCell<BTreeMap<u64, usize>>>,
        next: Rc<Cell<u64>>,
        limit: usize,
    }

    impl Source for Fake {
        fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
            let used: usize = self.out.borrow().values().sum();
            if used + bytes > self.limit {
                let (wanted, total) = (bytes as u64, self.limit as u64);
                return Err(CudaError::OutOfMemory { wanted, free: total - used as u64, total });
            }
            let pointer = self.next.get() + (1 << 40);
            self.next.set(self.next.get() + bytes as u64);
            self.out.borrow_mut().insert(pointer, bytes);
            Ok(pointer)
        }

        fn release(&self, pointer: u64, bytes: usize) {
            assert_eq!(self.out.borrow_mut().remove(&pointer), Some(bytes), "released once, whole");
        }
    }

    #[test]
    fn a_step_like_the_one_before_asks_for_nothing() {
        let arena = Arena::new(Fake { limit: 1 << 30, ..Fake::default() });
        let step = || {
            let weights = arena.block(3 << 20).unwrap();
            let mut kept: Vec<Block<Fake>> = Vec::new();
            for layer in 0..5 {
                let _scratch = arena.block(100_000).unwrap();
                kept.push(arena.block(40_000 + layer).unwrap());
            }
            drop(weights);
            kept.len()
        };
        step();
        let first = arena.usage();
        assert_eq!(first.in_use, 0);
        for _ in 0..10 {
            step();
            assert_eq!(arena.usage(), first);
        }
    }

    #[test]
    fn what_is_kept_makes_room_before_memory_is_said_to_be_out() {
        let fake = Fake { limit: 10 << 20, ..Fake::default() };
        let arena = Arena::new(fake.clone());
        drop(arena.block(6 << 20).unwrap());
        let large = arena.block(9 << 20).unwrap();
        assert_eq!(arena.usage().held, 10 << 20);
        let error = arena.block(1).unwrap_err();
        assert!(matches!(error, CudaError::OutOfMemory { wanted: 512, .. }), "{error}");
        drop(large);
        drop(arena);
        assert!(fake.out.borrow().is_empty(), "everything goes back in the end");
    }

    proptest! {
        #[test]
        fn blocks_in_use_never_overlap(sizes in proptest::collection::vec((0..5_000_000_usize, 0..4_usize), 1..60)) {
            let arena = Arena::new(Fake { limit: usize::MAX >> 1, ..Fake::default() });
            let mut live: Vec<Block<Fake>> = Vec::new();
            for (bytes, drops) in sizes {
                for _ in 0..drops.min(live.len()) {
                    live.swap_remove(live.len() / 2);
                }
                let block = arena.block(bytes).unwrap();
                prop_assert_eq!(block.pointer() % 256, 0);
                for other in &live {
                    let end = |b: &Block<Fake>| b.pointer() + rounded(b.bytes()) as u64;
                    prop_assert!(end(&block) <= other.pointer() || end(other) <= block.pointer());
                }
                live.push(block);
            }
            let used: usize = live.iter().map(|b| rounded(b.bytes())).sum();
            prop_assert_eq!(arena.usage().in_use, used as u64);
        }
    }
}
