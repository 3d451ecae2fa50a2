//! A client of a plugin: its devices, and what brings programs and data to them.

use crate::{
    Buffer, CompileOptions, Element, Executable, KeyValueStore, OptionValue, PjrtError, Plugin,
    api::{Described, DevicePointer, OwnedClient},
};
use std::{fmt, sync::Arc};

/// How a client is made.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// Options of the plugin, such as `cpu_device_count`.
    pub options: Vec<(String, OptionValue)>,
    /// What the processes of one program share; a process that is alone needs none.
    pub store: Option<Arc<dyn KeyValueStore>>,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("options", &self.options)
            .field("store", &self.store.is_some())
            .finish()
    }
}

/// A client, which holds the devices of its plugin. Cheap to clone; everything that comes from it
/// keeps it alive.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<ClientInner>,
}

pub(crate) struct ClientInner {
    raw: OwnedClient,
    plugin: Plugin,
    platform_name: String,
    platform_version: String,
    process_index: i64,
    devices: Vec<(DevicePointer, Described, bool)>,
}

impl Client {
    /// Makes a client. On GPUs and TPUs this takes the devices for this process.
    ///
    /// # Errors
    /// If the plugin finds none of its devices or does not know an option.
    pub fn new(plugin: &Plugin, options: &ClientOptions) -> Result<Self, PjrtError> {
        let raw = OwnedClient::create(&plugin.api, &options.options, options.store.clone())?;
        let inner = ClientInner {
            plugin: plugin.clone(),
            platform_name: raw.platform_name()?,
            platform_version: raw.platform_version()?,
            process_index: raw.process_index()?,
            devices: raw.devices()?,
            raw,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The plugin.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.inner.plugin
    }

    /// `cpu`, `cuda`, `tpu`.
    #[must_use]
    pub fn platform_name(&self) -> &str {
        &self.inner.platform_name
    }

    /// What the plugin says about its version.
    #[must_use]
    pub fn platform_version(&self) -> &str {
        &self.inner.platform_version
    }

    /// The place of this process among those that share the devices.
    #[must_use]
    pub fn process_index(&self) -> i64 {
        self.inner.process_index
    }

    /// All devices, those of other processes too.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        (0..self.inner.devices.len()).map(|index| self.device(index)).collect()
    }

    /// The devices that this process can use.
    #[must_use]
    pub fn addressable_devices(&self) -> Vec<Device> {
        self.devices().into_iter().filter(Device::is_addressable).collect()
    }

    fn device(&self, index: usize) -> Device {
        Device { client: Arc::clone(&self.inner), index }
    }

    /// The device that the plugin means.
    pub(crate) fn find(&self, pointer: DevicePointer) -> Option<Device> {
        let index = self.inner.devices.iter().position(|(known, ..)| *known == pointer)?;
        Some(self.device(index))
    }

    /// Compiles a program from StableHLO text.
    ///
    /// # Errors
    /// If the text is no valid program, asks for more devices than there are, or does not fit.
    pub fn compile(
        &self,
        mlir_text: &str,
        options: &CompileOptions,
    ) -> Result<Executable, PjrtError> {
        Executable::new(self, self.inner.raw.compile(mlir_text, &options.encode()?)?)
    }

    /// Copies elements in row-major order to a device, and waits until they are read.
    ///
    /// # Errors
    /// If there are not as many elements as the dimensions say, if the device belongs to another
    /// client or process, or if the plugin cannot take them.
    pub fn upload<T: Element>(
        &self,
        device: &Device,
        data: &[T],
        dims: &[usize],
    ) -> Result<Buffer, PjrtError> {
        let size = || PjrtError::Size { len: data.len(), dims: dims.to_vec() };
        let product = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
        if product != Some(data.len()) {
            return Err(size());
        }
        if !Arc::ptr_eq(&device.client, &self.inner) || !device.is_addressable() {
            let message = format!("{device:?} cannot be used by this client");
            return Err(PjrtError::Arguments { message });
        }
        let sizes: Vec<i64> = dims
            .iter()
            .map(|dim| i64::try_from(*dim))
            .collect::<Result<_, _>>()
            .map_err(|_| size())?;
        let memory = T::memory(data);
        let raw = self.inner.raw.upload(device.pointer(), T::TYPE.number(), &memory, &sizes)?;
        Buffer::new(self, raw)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("plugin", self.plugin())
            .field("platform", &self.platform_name())
            .field("devices", &self.inner.devices.len())
            .finish()
    }
}

/// A device of a client.
#[derive(Clone)]
pub struct Device {
    client: Arc<ClientInner>,
    index: usize,
}

impl Device {
    fn described(&self) -> &Described {
        &self.client.devices[self.index].1
    }

    fn pointer(&self) -> DevicePointer {
        self.client.devices[self.index].0
    }

    /// Its id, which is the same in all processes.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.described().id
    }

    /// The plugin's name for this sort of device.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.described().kind
    }

    /// The process that it belongs to.
    #[must_use]
    pub fn process_index(&self) -> i64 {
        self.described().process_index
    }

    /// Whether this process can use it.
    #[must_use]
    pub fn is_addressable(&self) -> bool {
        self.client.devices[self.index].2
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client) && self.index == other.index
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ({}) of process {}", self.id(), self.kind(), self.process_index())
    }
}
