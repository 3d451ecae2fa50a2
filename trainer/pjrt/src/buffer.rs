//! Memory on a device.

use crate::{Client, Device, Element, ElementType, PjrtError, api::OwnedBuffer};
use std::fmt;

/// An array on a device, freed when it is dropped.
pub struct Buffer {
    // Dropped before the device, which keeps the client alive.
    pub(crate) raw: OwnedBuffer,
    device: Device,
    element: ElementType,
    dims: Vec<usize>,
}

impl Buffer {
    pub(crate) fn new(client: &Client, raw: OwnedBuffer) -> Result<Self, PjrtError> {
        let arguments = |message: &str| PjrtError::Arguments { message: message.to_owned() };
        let device = client.find(raw.device()?).ok_or_else(|| {
            arguments("the plugin put a buffer on a device that it does not list")
        })?;
        let dims = raw
            .dims()?
            .into_iter()
            .map(usize::try_from)
            .collect::<Result<_, _>>()
            .map_err(|_| arguments("the plugin made a buffer of negative dimensions"))?;
        let element = ElementType::from_number(raw.element()?);
        Ok(Self { raw, device, element, dims })
    }

    /// The dimensions of what this device has.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The type of the elements.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Where it lies.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The id of the device where it lies.
    #[must_use]
    pub fn device_id(&self) -> i64 {
        self.device.id()
    }

    /// Whether its memory is gone, since a program took it over as a donated argument.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        // A plugin that cannot tell does not let it be used either.
        self.raw.is_deleted().unwrap_or(true)
    }

    /// Copies the elements to the host, in row-major order.
    ///
    /// # Errors
    /// If the buffer holds another type, was deleted, or its program failed.
    pub fn download<T: Element>(&self) -> Result<Vec<T>, PjrtError> {
        if self.element != T::TYPE {
            return Err(PjrtError::Element { wanted: T::TYPE, found: self.element });
        }
        if self.is_deleted() {
            return Err(PjrtError::Deleted { place: "the buffer".to_owned() });
        }
        Ok(T::elements(self.raw.download(self.dims.len(), self.dims.iter().product())?))
    }

    /// The address of the memory on its device: enough to see that a donated argument's memory was
    /// used again, and of no other use.
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn unsafe_pointer(&self) -> Result<usize, PjrtError> {
        self.raw.address()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} {:?} on {:?})", self.element, self.dims, self.device)
    }
}
