//! cuDNN's descriptors: made, told what they describe, finished.

use super::functions::cudnn;
use crate::CudaError;
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Kind,
    cudnnBackendDescriptorType_t as What, cudnnStatus_t as Status,
};
use std::ffi::{CStr, c_void};

/// A descriptor of cuDNN's backend interface.
#[derive(Debug)]
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

/// A handle inside a list that cuDNN reads.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw(sys::cudnnBackendDescriptor_t);

/// An address inside a list that cuDNN reads.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Address(pub(super) u64);

/// What an attribute's values may be.
pub(super) trait Attribute: Copy {
    const KIND: Kind;
}

macro_rules! attributes {
    ($($type:ty => $kind:ident),+ $(,)?) => {
        $(impl Attribute for $type { const KIND: Kind = Kind::$kind; })+
    };
}

attributes! {
    i64 => CUDNN_TYPE_INT64,
    bool => CUDNN_TYPE_BOOLEAN,
    u8 => CUDNN_TYPE_CHAR,
    Raw => CUDNN_TYPE_BACKEND_DESCRIPTOR,
    Address => CUDNN_TYPE_VOID_PTR,
    sys::cudnnHandle_t => CUDNN_TYPE_HANDLE,
    sys::cudnnDataType_t => CUDNN_TYPE_DATA_TYPE,
    sys::cudnnPointwiseMode_t => CUDNN_TYPE_POINTWISE_MODE,
    sys::cudnnReduceTensorOp_t => CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
    sys::cudnnBackendHeurMode_t => CUDNN_TYPE_HEUR_MODE,
}

/// The status as an error of ours, with what cuDNN says about it.
pub(super) fn check(call: &'static str, status: Status) -> Result<(), CudaError> {
    if status == Status::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut words = [0_u8; 1024];
    // SAFETY: cuDNN writes at most as many bytes as it is told, the last of them 0.
    unsafe { (cudnn().last_error)(words.as_mut_ptr().cast(), words.len()) };
    let words = CStr::from_bytes_until_nul(&words).unwrap_or_default().to_string_lossy();
    let first = words.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    Err(CudaError::Library { call, status: format!("{status:?} {first}").trim_end().to_owned() })
}

impl Descriptor {
    /// A new one, which is about nothing yet.
    pub(super) fn new(what: What) -> Result<Self, CudaError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: cuDNN writes one handle.
        let status = unsafe { (cudnn().create_descriptor)(what, &raw mut handle) };
        check("cudnnBackendCreateDescriptor", status)?;
        Ok(Self(handle))
    }

    /// Sets an attribute. cuDNN copies the values.
    pub(super) fn set<T: Attribute>(self, name: Name, values: &[T]) -> Result<Self, CudaError> {
        let count = i64::try_from(values.len()).expect("few values");
        // SAFETY: the kind goes with the type of the values, and their number is right.
        let status = unsafe {
            (cudnn().set_attribute)(self.0, name, T::KIND, count, values.as_ptr().cast())
        };
        check("cudnnBackendSetAttribute", status)?;
        Ok(self)
    }

    /// Sets an attribute that is another descriptor.
    pub(super) fn refer(self, name: Name, to: &Self) -> Result<Self, CudaError> {
        self.set(name, &[to.raw()])
    }

    /// Lets cuDNN check it; from now on it is constant.
    pub(super) fn finish(self) -> Result<Self, CudaError> {
        // SAFETY: the handle is alive.
        check("cudnnBackendFinalize", unsafe { (cudnn().finish)(self.0) })?;
        Ok(self)
    }

    pub(super) const fn raw(&self) -> Raw {
        Raw(self.0)
    }

    /// A whole number that a finished descriptor has.
    pub(super) fn number(&self, name: Name) -> Result<i64, CudaError> {
        let mut value = 0_i64;
        self.get(name, i64::KIND, 1, (&raw mut value).cast())?;
        Ok(value)
    }

    /// A text that a finished descriptor has.
    pub(super) fn text(&self, name: Name) -> Result<String, CudaError> {
        let length = self.get(name, u8::KIND, 0, std::ptr::null_mut())?;
        let mut bytes = vec![0_u8; usize::try_from(length).unwrap_or_default()];
        self.get(name, u8::KIND, length, bytes.as_mut_ptr().cast())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The descriptors that a finished one has found.
    pub(super) fn found(&self, name: Name, what: What) -> Result<Vec<Self>, CudaError> {
        let count = self.get(name, Raw::KIND, 0, std::ptr::null_mut())?;
        let mut found = (0..count).map(|_| Self::new(what)).collect::<Result<Vec<_>, _>>()?;
        let mut handles: Vec<_> = found.iter().map(|one| one.0).collect();
        let filled = self.get(name, Raw::KIND, count, handles.as_mut_ptr().cast())?;
        found.truncate(usize::try_from(filled).unwrap_or_default());
        Ok(found)
    }

    /// Reads up to `room` values; returns how many there are.
    fn get(&self, name: Name, kind: Kind, room: i64, to: *mut c_void) -> Result<i64, CudaError> {
        let mut count = 0_i64;
        // SAFETY: the callers give room for so many values of the kind.
        let status =
            unsafe { (cudnn().get_attribute)(self.0, name, kind, room, &raw mut count, to) };
        check("cudnnBackendGetAttribute", status)?;
        Ok(count)
    }

    /// Runs this plan with what `pack` names.
    ///
    /// # Safety
    /// The pack's addresses are those of tensors as large as the plan's graph says, on the card and
    /// the stream of the handle.
    pub(super) unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        pack: &Self,
    ) -> Result<(), CudaError> {
        // SAFETY: as the caller vouches.
        let status = unsafe { (cudnn().execute)(handle, self.0, pack.0) };
        check("cudnnBackendExecute", status)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { (cudnn().destroy_descriptor)(self.0) };
    }
}
