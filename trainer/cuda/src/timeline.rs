//! What a stream spends its time on: a mark with a clock behind every operation.

use crate::{CudaError, Device, device::refused};
use cudarc::driver::{
    result::event,
    sys::{self, CUevent_flags},
};
use std::{borrow::Cow, cell::RefCell};

/// An operation that a stream has done, and how long it took there.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The kernel, or the product with its sizes.
    pub name: Cow<'static, str>,
    /// Seconds from the end of what was before it to its own.
    pub seconds: f64,
}

/// Marks behind the operations of a stream, if they are wanted.
#[derive(Debug, Default)]
pub(crate) struct Timeline(RefCell<Option<Vec<Mark>>>);

/// What was queued, and the mark behind it.
type Mark = (Cow<'static, str>, Clock);

/// A mark that knows when it was passed.
#[derive(Debug)]
struct Clock(sys::CUevent);

impl Clock {
    fn behind(queued: sys::CUstream) -> Result<Self, CudaError> {
        let handle =
            event::create(CUevent_flags::CU_EVENT_DEFAULT).map_err(refused("cuEventCreate"))?;
        let clock = Self(handle);
        // SAFETY: both handles are alive.
        unsafe { event::record(handle, queued) }.map_err(refused("cuEventRecord"))?;
        Ok(clock)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // SAFETY: created in `behind`, destroyed once.
        let _ = unsafe { event::destroy(self.0) };
    }
}

impl Timeline {
    /// Begins to take times.
    pub(crate) fn start(&self, device: &Device, queue: sys::CUstream) -> Result<(), CudaError> {
        device.bind()?;
        self.0.replace(Some(vec![(Cow::Borrowed("start"), Clock::behind(queue)?)]));
        Ok(())
    }

    /// Puts a mark behind what was just queued, if times are taken.
    pub(crate) fn note(
        &self,
        queue: sys::CUstream,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Result<(), CudaError> {
        if let Some(marks) = self.0.borrow_mut().as_mut() {
            marks.push((name(), Clock::behind(queue)?));
        }
        Ok(())
    }

    /// Stops, and gives what was timed. The stream has to be done.
    pub(crate) fn stop(&self) -> Result<Vec<Timed>, CudaError> {
        let marks = self.0.take().unwrap_or_default();
        let timed = |pair: &[Mark]| {
            // SAFETY: both marks were passed.
            let milliseconds = unsafe { event::elapsed(pair[0].1.0, pair[1].1.0) }
                .map_err(refused("cuEventElapsedTime"))?;
            Ok(Timed { name: pair[1].0.clone(), seconds: f64::from(milliseconds) / 1e3 })
        };
        marks.windows(2).map(timed).collect()
    }
}
