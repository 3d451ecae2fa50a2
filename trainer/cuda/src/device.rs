//! A card, its streams and its events.
//!
//! Of cudarc this uses the thin layer over the driver's functions, and of those only ones that every
//! driver since CUDA 12.4 has: cudarc looks a function up when it is first called and panics if it is
//! not there.

use crate::{CudaError, Library, Timed, timeline::Timeline};
use cudarc::driver::{
    DriverError,
    result::{ctx, device, event, mem_get_info, primary_ctx, stream},
    sys::{self, CUdevice_attribute as Attribute},
};
use std::{borrow::Cow, rc::Rc};

/// What a card is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number among the visible cards.
    pub ordinal: i32,
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its compute capability, major and minor.
    pub capability: (i32, i32),
    /// Its multiprocessors.
    pub multiprocessors: i32,
}

/// A card that this process uses, through the driver's primary context. The handle is shared and
/// stays on its thread.
#[derive(Clone, Debug)]
pub struct Device(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: sys::CUdevice,
    context: sys::CUcontext,
    info: DeviceInfo,
}

/// The driver's answer as an error of ours.
pub(crate) fn refused(call: &'static str) -> impl FnOnce(DriverError) -> CudaError {
    move |error| CudaError::Driver { call, reason: describe(error) }
}

fn describe(error: DriverError) -> String {
    match error.error_string() {
        Ok(words) => format!("{:?}: {}", error.0, words.to_string_lossy()),
        Err(_) => format!("{:?}", error.0),
    }
}

/// Number of cards that the driver sees.
///
/// # Errors
/// If there is no driver, or it does not start.
pub fn device_count() -> Result<i32, CudaError> {
    Library::Driver.open()?;
    match cudarc::driver::result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(0),
        other => other.map_err(refused("cuInit"))?,
    }
    device::get_count().map_err(refused("cuDeviceGetCount"))
}

impl Device {
    /// Opens card `ordinal` and makes it this thread's.
    ///
    /// # Errors
    /// If there is no driver, no such card, or the card is older than the kernels.
    pub fn open(ordinal: i32) -> Result<Self, CudaError> {
        if ordinal >= device_count()? {
            return Err(CudaError::NoDevice);
        }
        let handle = device::get(ordinal).map_err(refused("cuDeviceGet"))?;
        let info = describe_device(ordinal, handle)?;
        if info.capability < (8, 0) {
            let (major, minor) = info.capability;
            return Err(CudaError::OldDevice { name: info.name, major, minor });
        }
        // SAFETY: the handle comes from the driver.
        let context =
            unsafe { primary_ctx::retain(handle) }.map_err(refused("cuDevicePrimaryCtxRetain"))?;
        let device = Self(Rc::new(Inner { handle, context, info }));
        device.bind()?;
        Ok(device)
    }

    /// Makes the card the one that this thread's calls go to.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { ctx::set_current(self.0.context) }.map_err(refused("cuCtxSetCurrent"))
    }

    /// What the card is.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Bytes free and bytes in all.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        self.bind()?;
        let (free, total) = mem_get_info().map_err(refused("cuMemGetInfo"))?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: retained in `open`, released once. An error here can help nobody.
        let _ = unsafe { primary_ctx::release(self.handle) };
    }
}

fn describe_device(ordinal: i32, handle: sys::CUdevice) -> Result<DeviceInfo, CudaError> {
    let attribute = |attribute| {
        // SAFETY: the handle comes from the driver.
        unsafe { device::get_attribute(handle, attribute) }.map_err(refused("cuDeviceGetAttribute"))
    };
    // SAFETY: as above.
    let memory = unsafe { device::total_mem(handle) }.map_err(refused("cuDeviceTotalMem"))?;
    Ok(DeviceInfo {
        ordinal,
        name: device::get_name(handle).map_err(refused("cuDeviceGetName"))?,
        memory: memory as u64,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

/// A queue of work on a card, in order.
#[derive(Clone, Debug)]
pub struct Stream(Rc<StreamInner>);

#[derive(Debug)]
struct StreamInner {
    device: Device,
    handle: sys::CUstream,
    timeline: Timeline,
}

impl Stream {
    /// A new queue that waits for no other.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        device.bind()?;
        let handle =
            stream::create(stream::StreamKind::NonBlocking).map_err(refused("cuStreamCreate"))?;
        let timeline = Timeline::default();
        Ok(Self(Rc::new(StreamInner { device: device.clone(), handle, timeline })))
    }

    /// The card.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The driver's handle.
    #[must_use]
    pub fn handle(&self) -> sys::CUstream {
        self.0.handle
    }

    /// Waits until all that was queued is done.
    ///
    /// # Errors
    /// If something that was queued failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { stream::synchronize(self.0.handle) }.map_err(refused("cuStreamSynchronize"))
    }

    /// Takes the time of every operation from now on.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn start_timeline(&self) -> Result<(), CudaError> {
        self.0.timeline.start(&self.0.device, self.0.handle)
    }

    /// Waits for what is queued, stops taking times, and gives them.
    ///
    /// # Errors
    /// If something that was queued failed.
    pub fn stop_timeline(&self) -> Result<Vec<Timed>, CudaError> {
        self.synchronize()?;
        self.0.timeline.stop()
    }

    /// Names what was just queued, should times be taken.
    pub(crate) fn queued(&self, name: impl FnOnce() -> Cow<'static, str>) -> Result<(), CudaError> {
        self.0.timeline.note(self.0.handle, name)
    }

    /// A mark behind what is queued now.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn mark(&self) -> Result<Event, CudaError> {
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let handle = event::create(flags).map_err(refused("cuEventCreate"))?;
        let event = Event { handle, _device: self.0.device.clone() };
        // SAFETY: both handles are alive.
        unsafe { event::record(handle, self.0.handle) }.map_err(refused("cuEventRecord"))?;
        Ok(event)
    }

    /// Lets what is queued from now on wait for a mark of another queue.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both handles are alive; the driver keeps the event until the wait is over.
        unsafe { stream::wait_event(self.0.handle, event.handle, flags) }
            .map_err(refused("cuStreamWaitEvent"))
    }
}

impl Drop for StreamInner {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once; the driver finishes what is queued.
        let _ = unsafe { stream::destroy(self.handle) };
    }
}

/// A mark in a queue.
#[derive(Debug)]
pub struct Event {
    handle: sys::CUevent,
    _device: Device,
}

impl Event {
    /// Whether the work before the mark is done.
    ///
    /// # Errors
    /// If that work failed.
    pub fn passed(&self) -> Result<bool, CudaError> {
        // SAFETY: the event is alive.
        match unsafe { event::query(self.handle) } {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(refused("cuEventQuery")(error)),
        }
    }

    /// Waits until the work before the mark is done.
    ///
    /// # Errors
    /// If that work failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the event is alive.
        unsafe { event::synchronize(self.handle) }.map_err(refused("cuEventSynchronize"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `mark`, destroyed once; the driver keeps it while it is waited for.
        let _ = unsafe { event::destroy(self.handle) };
    }
}
