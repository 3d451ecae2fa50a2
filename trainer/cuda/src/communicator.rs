//! Cards of one machine that send each other values, through NCCL.
//!
//! Of NCCL this uses sends and receives alone: what is added up, and in which order, is decided by
//! whoever exchanges ([`Communicator::exchange`] moves bytes), so that sums do not depend on the paths
//! that NCCL finds between cards.

use crate::{Card, CudaError, Library, Span, Stream};
use cudarc::nccl::{
    result::{self, NcclError},
    sys,
};

/// A name by which the ranks of a run find each other; made once and given to all of them.
#[derive(Clone, Copy, Debug)]
pub struct CommunicatorId(sys::ncclUniqueId);

/// One rank's end of NCCL. All ranks are threads or processes with a card each.
#[derive(Debug)]
pub struct Communicator {
    handle: sys::ncclComm_t,
    stream: Stream,
}

fn refused(call: &'static str) -> impl FnOnce(NcclError) -> CudaError {
    move |error| CudaError::Library { call, status: format!("{:?}", error.0) }
}

fn number(value: usize) -> Result<i32, CudaError> {
    i32::try_from(value).map_err(|_| CudaError::Shape(format!("{value} ranks are too many")))
}

impl CommunicatorId {
    /// A new name.
    ///
    /// # Errors
    /// If NCCL is missing or does not start.
    pub fn new() -> Result<Self, CudaError> {
        Library::Nccl.open()?;
        result::get_uniqueid().map(Self).map_err(refused("ncclGetUniqueId"))
    }
}

impl Communicator {
    /// Joins the others with a card, of which no other rank may have the same; returns when all `ranks`
    /// of them have joined.
    ///
    /// # Errors
    /// If NCCL refuses.
    pub fn join(
        card: &Card,
        id: CommunicatorId,
        rank: usize,
        ranks: usize,
    ) -> Result<Self, CudaError> {
        Library::Nccl.open()?;
        let stream = card.stream().clone();
        stream.device().bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle is written before the call returns without an error.
        unsafe { result::comm_init_rank(&raw mut handle, number(ranks)?, id.0, number(rank)?) }
            .map_err(refused("ncclCommInitRank"))?;
        Ok(Self { handle, stream })
    }

    /// Queues that these values go to those ranks, and that those come from them. The two of a pair have
    /// to call this with the same sizes in the same order, and as often.
    ///
    /// # Errors
    /// If NCCL refuses.
    pub fn exchange(
        &self,
        outgoing: &[(Span<'_>, usize)],
        incoming: &[(Span<'_>, usize)],
    ) -> Result<(), CudaError> {
        const BYTES: sys::ncclDataType_t = sys::ncclDataType_t::ncclUint8;
        self.stream.device().bind()?;
        let stream: sys::cudaStream_t = self.stream.handle().cast();
        result::group_start().map_err(refused("ncclGroupStart"))?;
        let send = |&(span, rank): &(Span<'_>, usize)| {
            let (from, bytes, rank) = (span.pointer() as *const _, span.bytes(), number(rank)?);
            // SAFETY: the span lies in a block, which work queued later may not change before.
            unsafe { result::send(from, bytes, BYTES, rank, self.handle, stream) }
                .map_err(refused("ncclSend"))
                .map(|_| ())
        };
        let receive = |&(span, rank): &(Span<'_>, usize)| {
            let (to, bytes, rank) = (span.pointer() as *mut _, span.bytes(), number(rank)?);
            // SAFETY: the span lies in a block, which work queued later may not read before.
            unsafe { result::recv(to, bytes, BYTES, rank, self.handle, stream) }
                .map_err(refused("ncclRecv"))
                .map(|_| ())
        };
        let queued =
            outgoing.iter().try_for_each(send).and_then(|()| incoming.iter().try_for_each(receive));
        // A group that was begun has to be ended.
        let ended = result::group_end().map_err(refused("ncclGroupEnd"));
        queued?;
        ended?;
        self.stream.queued(|| "exchange".into())
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: made in `join`, destroyed once. An error here can help nobody.
        let _ = unsafe { result::comm_destroy(self.handle) };
    }
}
