//! Memory on devices.

use super::client::DevicePointer;
use super::functions as f;
use super::layout::{BufferObject, Download, Flag, Head, Int, MemoryLayout, Tiled};
use super::owned::{Owned, span};
use crate::PjrtError;
use std::{
    ffi::c_int,
    ptr::{self, NonNull},
};

pub(crate) type OwnedBuffer = Owned<BufferObject>;

/// A type of which every pattern of bits is a value, so that a plugin may write it.
///
/// # Safety
/// It is that, and zero bytes are a value.
pub(crate) unsafe trait Plain: Copy {
    const ZERO: Self;
}

macro_rules! plain {
    ($($type:ty = $zero:expr),*) => { $(
        // SAFETY: a number, all of whose bits are part of its value.
        unsafe impl Plain for $type {
            const ZERO: Self = $zero;
        }
    )* };
}
plain!(f32 = 0.0, f64 = 0.0, i8 = 0, i16 = 0, i32 = 0, i64 = 0, u8 = 0, u16 = 0, u32 = 0, u64 = 0);
plain!(half::bf16 = half::bf16::ZERO, half::f16 = half::f16::ZERO);

impl OwnedBuffer {
    pub(crate) fn element(&self) -> Result<c_int, PjrtError> {
        Ok(self.ask(f::BUFFER_ELEMENT, Int { value: 0, spare: 0 })?.value)
    }

    pub(crate) fn dims(&self) -> Result<Vec<i64>, PjrtError> {
        self.list(f::BUFFER_DIMENSIONS)
    }

    pub(crate) fn device(&self) -> Result<DevicePointer, PjrtError> {
        let device = self.ask(f::BUFFER_DEVICE, ptr::null_mut())?;
        let none = || self.api.broken(f::BUFFER_DEVICE.name, "gives nothing");
        NonNull::new(device).map(DevicePointer).ok_or_else(none)
    }

    pub(crate) fn is_deleted(&self) -> Result<bool, PjrtError> {
        Ok(self.ask(f::BUFFER_IS_DELETED, Flag { value: 0, spare: [0; 7] })?.value != 0)
    }

    pub(crate) fn address(&self) -> Result<usize, PjrtError> {
        self.ask(f::BUFFER_POINTER, 0)
    }

    /// Copies the buffer to the host in row-major order, whatever its order on the device.
    pub(crate) fn download<R: Plain>(&self, rank: usize, len: usize) -> Result<Vec<R>, PjrtError> {
        let mut minor_to_major: Vec<i64> = (0..).take(rank).collect();
        minor_to_major.reverse();
        let tiled = Tiled {
            head: Head::sized(size_of::<Tiled>()),
            minor_to_major: span(&minor_to_major),
            tile_dims: ptr::null(),
            tile_dim_sizes: ptr::null(),
            tiles: 0,
        };
        let head = Head::sized(size_of::<MemoryLayout>());
        let mut layout = MemoryLayout { head, tiled, kind: Int { value: 0, spare: 0 } };
        let mut args = Download {
            head: Head::EMPTY,
            source: self.pointer.as_ptr(),
            host_layout: &raw mut layout,
            target: ptr::null_mut(),
            target_size: 0,
            event: ptr::null_mut(),
        };
        let function = f::BUFFER_DOWNLOAD;
        // SAFETY: buffer and layout are alive; without a target this only asks for the size.
        unsafe { self.api.call(function, &mut args)? };
        let mut values = vec![R::ZERO; len];
        let size = size_of_val(values.as_slice());
        if args.target_size != size {
            let message = format!("wants {} bytes for {size}", args.target_size);
            return Err(self.api.broken(function.name, message));
        }
        args.target = values.as_mut_ptr().cast();
        args.event = ptr::null_mut();
        // SAFETY: the target has the size that was asked for, is waited for before it is touched
        // again, and takes any bits (`Plain`).
        unsafe {
            self.api.call(function, &mut args)?;
            self.api.finish(args.event)?;
        }
        Ok(values)
    }
}
