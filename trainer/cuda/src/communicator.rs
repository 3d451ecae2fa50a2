//! Cards of one machine that send each other values, through NCCL.
//!
//! Of NCCL this uses sends and receives alone: what is added up, and in which order, is decided by
//! whoever exchanges ([`Communicator::exchange`] moves bytes), so that sums do not depend on the paths
//! that NCCL finds between cards.
//!
//! A rank whose partner has failed would wait for it without end, in NCCL or on its card. So, as NCCL's
//! user guide has it (under fault tolerance), communicators do not block, whoever waits asks in turn for
//! the work, for NCCL's own errors and for the other ranks, and each rank aborts its own communicator,
//! from its own thread.

use crate::{Card, CudaError, Library, Span, Stream};
use cudarc::nccl::{
    result::{self, NcclError, NcclStatus},
    sys::{self, ncclResult_t},
};
use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// How long a wait asks as fast as it can; most exchanges are done by then.
const EAGER: Duration = Duration::from_millis(2);

/// How long a longer wait sleeps between its questions.
const PAUSE: Duration = Duration::from_micros(50);

/// A name by which the ranks of a run find each other; made once and given to all of them.
#[derive(Clone, Copy, Debug)]
pub struct CommunicatorId(sys::ncclUniqueId);

/// One rank's end of NCCL. All ranks are threads or processes with a card each.
pub struct Communicator {
    /// None once it was aborted.
    handle: Cell<Option<sys::ncclComm_t>>,
    stream: Stream,
    gone: Box<dyn Fn() -> bool>,
}

fn refused(call: &'static str) -> impl FnOnce(NcclError) -> CudaError {
    move |error| of_status(call, error.0)
}

fn of_status(call: &'static str, status: ncclResult_t) -> CudaError {
    CudaError::Library { call, status: format!("{status:?}") }
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
    /// of them have joined. `gone` tells, here and in every later wait, whether one of them takes no part
    /// any more.
    ///
    /// # Errors
    /// If NCCL refuses, and [`CudaError::Left`] if `gone` says so.
    pub fn join(
        card: &Card,
        id: CommunicatorId,
        rank: usize,
        ranks: usize,
        gone: impl Fn() -> bool + 'static,
    ) -> Result<Self, CudaError> {
        Library::Nccl.open()?;
        let stream = card.stream().clone();
        stream.device().bind()?;
        let mut handle = std::ptr::null_mut();
        let mut config = not_blocking();
        let (ranks, rank) = (number(ranks)?, number(rank)?);
        // SAFETY: the handle is written before the call returns without an error; NCCL copies the
        // configuration.
        unsafe {
            result::comm_init_rank_config(&raw mut handle, ranks, id.0, rank, &raw mut config)
        }
        .map_err(refused("ncclCommInitRankConfig"))?;
        let joined = Self { handle: Cell::new(Some(handle)), stream, gone: Box::new(gone) };
        joined.settle("ncclCommInitRankConfig")?;
        Ok(joined)
    }

    /// Queues that these values go to those ranks, and that those come from them. The two of a pair have
    /// to call this with the same sizes in the same order, and as often. What waits for the card
    /// afterwards has to be [`Communicator::wait`].
    ///
    /// # Errors
    /// If NCCL refuses, and [`CudaError::Left`] if a rank has left.
    pub fn exchange(
        &self,
        outgoing: &[(Span<'_>, usize)],
        incoming: &[(Span<'_>, usize)],
    ) -> Result<(), CudaError> {
        const BYTES: sys::ncclDataType_t = sys::ncclDataType_t::ncclUint8;
        let handle = self.handle()?;
        self.stream.device().bind()?;
        let stream: sys::cudaStream_t = self.stream.handle().cast();
        result::group_start().map_err(refused("ncclGroupStart"))?;
        let send = |&(span, rank): &(Span<'_>, usize)| {
            let (from, bytes, rank) = (span.pointer() as *const _, span.bytes(), number(rank)?);
            // SAFETY: the span lies in a block, which work queued later may not change before.
            unsafe { result::send(from, bytes, BYTES, rank, handle, stream) }
                .map_err(refused("ncclSend"))
                .map(|_| ())
        };
        let receive = |&(span, rank): &(Span<'_>, usize)| {
            let (to, bytes, rank) = (span.pointer() as *mut _, span.bytes(), number(rank)?);
            // SAFETY: the span lies in a block, which work queued later may not read before.
            unsafe { result::recv(to, bytes, BYTES, rank, handle, stream) }
                .map_err(refused("ncclRecv"))
                .map(|_| ())
        };
        let queued =
            outgoing.iter().try_for_each(send).and_then(|()| incoming.iter().try_for_each(receive));
        // A group that was begun has to be ended.
        let ended = result::group_end().map_err(refused("ncclGroupEnd"));
        queued?;
        if ended? == NcclStatus::InProgress {
            self.settle("ncclGroupEnd")?;
        }
        self.stream.queued(|| "exchange".into())
    }

    /// Waits until the card has done all that was queued, exchanges among it.
    ///
    /// # Errors
    /// If something of it failed, and [`CudaError::Left`] if a rank has left.
    pub fn wait(&self) -> Result<(), CudaError> {
        let mark = self.stream.mark()?;
        self.until(|| {
            if mark.passed()? {
                return Ok(true);
            }
            match self.state()? {
                ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress => Ok(false),
                error => Err(of_status("an exchange of NCCL", error)),
            }
        })
    }

    /// Ends what this rank still waits for, here and on its card, and takes it out for good. Values that
    /// were on their way are undefined then.
    pub fn abort(&self) {
        if let Some(handle) = self.handle.take() {
            // SAFETY: made in `join`, aborted once, by the one thread that uses it. An error here can
            // help nobody.
            let _ = unsafe { result::comm_abort(handle) };
        }
    }

    fn handle(&self) -> Result<sys::ncclComm_t, CudaError> {
        self.handle.get().ok_or(CudaError::Left)
    }

    /// What NCCL says of this communicator: a success, that it is not done, or an error.
    fn state(&self) -> Result<ncclResult_t, CudaError> {
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: the handle is alive, and the state is ours to be written.
        unsafe { sys::ncclCommGetAsyncError(self.handle()?, &raw mut state) }
            .result()
            .map_err(refused("ncclCommGetAsyncError"))?;
        Ok(state)
    }

    /// Waits until NCCL has done what `call` began.
    fn settle(&self, call: &'static str) -> Result<(), CudaError> {
        self.until(|| match self.state()? {
            ncclResult_t::ncclSuccess => Ok(true),
            ncclResult_t::ncclInProgress => Ok(false),
            error => Err(of_status(call, error)),
        })
    }

    /// Asks until it is done, as long as all ranks are there.
    fn until(&self, done: impl Fn() -> Result<bool, CudaError>) -> Result<(), CudaError> {
        let began = Instant::now();
        while !done()? {
            if (self.gone)() {
                self.abort();
                return Err(CudaError::Left);
            }
            if began.elapsed() < EAGER { thread::yield_now() } else { thread::sleep(PAUSE) }
        }
        Ok(())
    }
}

/// NCCL's defaults, but that no call blocks.
const fn not_blocking() -> sys::ncclConfig_t {
    const UNDEFINED: i32 = i32::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: 0xcafe_beef,
        // The version that these fields are of, 2.22.0.
        version: 22_200,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: std::ptr::null(),
        splitShare: UNDEFINED,
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Communicator").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Not `ncclCommDestroy`, which waits for the others.
        self.abort();
    }
}
