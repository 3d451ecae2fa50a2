//! A card made ready: a stream for work and one for copies, memory, kernels, matrix products.

use crate::{
    Arena, ArenaUse, Block, CudaError, Device, DeviceInfo, Element, Event, Library, Span, Stream,
    cache_folder, cudnn::Cudnn, device::refused, gemm::Products, launch::Kernels,
};
use cudarc::driver::result::{
    free_host, malloc_host, memcpy_dtod_async, memcpy_dtoh_async, memcpy_htod_async,
    memset_d8_async,
};
use half::bf16;
use std::{path::PathBuf, slice};

/// Values as they lie in a card's memory.
pub trait Value: Copy {
    /// Their kind there.
    const ELEMENT: Element;
}

impl Value for bf16 {
    const ELEMENT: Element = Element::Bf16;
}
impl Value for f32 {
    const ELEMENT: Element = Element::F32;
}
impl Value for f64 {
    const ELEMENT: Element = Element::F64;
}
impl Value for u32 {
    const ELEMENT: Element = Element::U32;
}
impl Value for [i32; 2] {
    const ELEMENT: Element = Element::Pair;
}

/// A card and all that works on it. Operations are queued on one stream and return at once.
#[derive(Debug)]
pub struct Card {
    pub(crate) kernels: Kernels,
    pub(crate) products: Products,
    pub(crate) cudnn: Option<Cudnn>,
    arena: Arena,
    stream: Stream,
    copies: Stream,
}

impl Card {
    /// Makes card `ordinal` ready. Kernels are compiled when they are first used, and kept in
    /// [`cache_folder`].
    ///
    /// # Errors
    /// If driver, card or one of the libraries is missing.
    pub fn open(ordinal: i32) -> Result<Self, CudaError> {
        Self::open_with_cache(ordinal, cache_folder())
    }

    /// As [`Card::open`], with compiled kernels kept elsewhere or not at all.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_cache(ordinal: i32, cache: Option<PathBuf>) -> Result<Self, CudaError> {
        let device = Device::open(ordinal)?;
        Library::Nvrtc.open()?;
        Library::CublasLt.open()?;
        let (stream, copies) = (Stream::new(&device)?, Stream::new(&device)?);
        let arena = Arena::on(&stream);
        Ok(Self {
            kernels: Kernels::new(&stream, cache),
            products: Products::new(&stream, &arena)?,
            cudnn: None,
            arena,
            stream,
            copies,
        })
    }

    /// What the card is.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        self.stream.device().info()
    }

    /// The stream on which operations are queued.
    #[must_use]
    pub const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Memory for work on [`Card::stream`].
    #[must_use]
    pub const fn arena(&self) -> &Arena {
        &self.arena
    }

    /// What the arena holds.
    #[must_use]
    pub fn usage(&self) -> ArenaUse {
        self.arena.usage()
    }

    /// A block for so many values. Its contents are whatever was there.
    ///
    /// # Errors
    /// If the card has no room.
    pub fn room(&self, element: Element, len: usize) -> Result<Block, CudaError> {
        self.arena.block(len * element.bytes())
    }

    /// A block with these values.
    ///
    /// # Errors
    /// If the card has no room.
    pub fn upload<T: Value>(&self, values: &[T]) -> Result<Block, CudaError> {
        let block = self.room(T::ELEMENT, values.len())?;
        self.write(Span::of(&block, T::ELEMENT, 0, values.len())?, values)?;
        Ok(block)
    }

    /// Overwrites values. The call returns when `values` has been read.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn write<T: Value>(&self, to: Span<'_>, values: &[T]) -> Result<(), CudaError> {
        let pointer = to.need("values to write", T::ELEMENT, values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        self.stream.device().bind()?;
        // SAFETY: the span is as long as the values, which are in pageable memory: the driver has
        // read them when it returns.
        unsafe { memcpy_htod_async(pointer, values, self.stream.handle()) }
            .map_err(refused("cuMemcpyHtoDAsync"))
    }

    /// Reads values, when everything queued before is done.
    ///
    /// # Errors
    /// If something queued before failed.
    pub fn read<T: Value + Default>(&self, from: Span<'_>) -> Result<Vec<T>, CudaError> {
        let pointer = from.need("values to read", T::ELEMENT, from.len())?;
        let mut values = vec![T::default(); from.len()];
        if !values.is_empty() {
            self.stream.device().bind()?;
            // SAFETY: the span is as long as the values, which live until the copy is done below.
            unsafe { memcpy_dtoh_async(&mut values, pointer, self.stream.handle()) }
                .map_err(refused("cuMemcpyDtoHAsync"))?;
        }
        self.stream.synchronize()?;
        Ok(values)
    }

    /// Sets every byte to 0.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn zero(&self, span: Span<'_>) -> Result<(), CudaError> {
        if span.is_empty() {
            return Ok(());
        }
        self.stream.device().bind()?;
        // SAFETY: the span lies in a block.
        unsafe { memset_d8_async(span.pointer(), 0, span.bytes(), self.stream.handle()) }
            .map_err(refused("cuMemsetD8Async"))?;
        self.stream.queued(|| "zero".into())
    }

    /// Copies values within the card.
    ///
    /// # Errors
    /// If the spans differ in kind or length.
    pub fn copy(&self, from: Span<'_>, to: Span<'_>) -> Result<(), CudaError> {
        let pointer = to.need("where to copy", from.element(), from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.stream.device().bind()?;
        // SAFETY: both spans lie in blocks and are of the same size.
        unsafe { memcpy_dtod_async(pointer, from.pointer(), from.bytes(), self.stream.handle()) }
            .map_err(refused("cuMemcpyDtoDAsync"))?;
        self.stream.queued(|| "copy".into())
    }

    /// Sends a host's page-locked bytes to a block of their own, beside the work that is queued.
    ///
    /// The copy begins when the work that was queued before this call is done, for the block may
    /// have been that work's; so send what several passes need before queueing the first of them.
    ///
    /// # Errors
    /// If the card has no room.
    pub fn send(&self, bytes: &PinnedBytes) -> Result<Sent, CudaError> {
        let block = self.arena.block(bytes.len)?;
        self.copies.wait(&self.stream.mark()?)?;
        if bytes.len > 0 {
            // SAFETY: the block is as long as the bytes; whoever holds them waits for the copy
            // before changing them (`PinnedBytes::fill`).
            unsafe {
                memcpy_htod_async(block.pointer(), bytes.as_slice(), self.copies.handle())
                    .map_err(refused("cuMemcpyHtoDAsync"))?;
            }
        }
        Ok(Sent { block, ready: self.copies.mark()? })
    }

    /// Lets the work that is queued from now on see what was sent.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn receive(&self, sent: &Sent) -> Result<(), CudaError> {
        self.stream.wait(&sent.ready)
    }

    /// Waits until all that was queued is done.
    ///
    /// # Errors
    /// If something that was queued failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.copies.synchronize()?;
        self.stream.synchronize()
    }
}

/// Bytes on their way to a card.
#[derive(Debug)]
pub struct Sent {
    /// Where they go.
    pub block: Block,
    ready: Event,
}

/// A host's memory that a card can read by itself.
#[derive(Debug)]
pub struct PinnedBytes {
    device: Device,
    pointer: *mut u8,
    capacity: usize,
    len: usize,
}

impl PinnedBytes {
    /// Empty.
    #[must_use]
    pub fn new(card: &Card) -> Self {
        let device = card.stream.device().clone();
        Self { device, pointer: std::ptr::null_mut(), capacity: 0, len: 0 }
    }

    /// Makes the contents `parts`, each at a multiple of 16 bytes; returns where each begins.
    /// Nothing that was sent from here may still be on its way.
    ///
    /// # Errors
    /// If the system has no page-locked memory left.
    pub fn fill(&mut self, parts: &[&[u8]]) -> Result<Vec<usize>, CudaError> {
        let mut starts = Vec::with_capacity(parts.len());
        let mut len = 0;
        for part in parts {
            starts.push(len);
            len += part.len().next_multiple_of(16);
        }
        if len > self.capacity {
            self.release();
            self.device.bind()?;
            let capacity = len.next_power_of_two().max(1 << 16);
            // SAFETY: freed once, in `release`.
            let pointer = unsafe { malloc_host(capacity, 0) }.map_err(refused("cuMemHostAlloc"))?;
            (self.pointer, self.capacity) = (pointer.cast(), capacity);
        }
        self.len = len;
        if len > 0 {
            // SAFETY: `len` bytes of the memory above, which nothing else refers to.
            let bytes = unsafe { slice::from_raw_parts_mut(self.pointer, len) };
            bytes.fill(0);
            for (start, part) in starts.iter().zip(parts) {
                bytes[*start..start + part.len()].copy_from_slice(part);
            }
        }
        Ok(starts)
    }

    fn as_slice(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: filled above.
        unsafe { slice::from_raw_parts(self.pointer, self.len) }
    }

    fn release(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated in `fill`, freed once.
            let _ = unsafe { free_host(self.pointer.cast()) };
            self.capacity = 0;
        }
    }
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        self.release();
    }
}
