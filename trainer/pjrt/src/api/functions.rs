//! The functions of the API's table that are used here, with their places.
//!
//! The API may grow at its end, and an index never changes within a major version.

use super::layout::{
    Attributes, BufferObject, ClientCompile, ClientCreate, ClientObject, Cost, DescriptionObject,
    DeviceObject, Download, ErrorObject, EventObject, ExecutableObject, Execute, Flag, Function,
    Int, LoadedObject, Memory, NamedValue, Nothing, Query, Serialize, Span, Subject, Text,
    TopologyCompile, TopologyCreate, TopologyObject, Upload,
};

macro_rules! functions {
    ($($constant:ident: $args:ty = $index:literal, $name:literal;)*) => {
        $(pub(crate) const $constant: Function<$args> = Function::new($index, $name);)*
    };
}

functions! {
    ERROR_DESTROY: Subject<ErrorObject> = 0, "PJRT_Error_Destroy";
    ERROR_MESSAGE: Query<ErrorObject, Text> = 1, "PJRT_Error_Message";
    ERROR_CODE: Query<ErrorObject, Int> = 2, "PJRT_Error_GetCode";
    PLUGIN_INITIALIZE: Nothing = 3, "PJRT_Plugin_Initialize";
    PLUGIN_ATTRIBUTES: Attributes = 4, "PJRT_Plugin_Attributes";
    EVENT_DESTROY: Subject<EventObject> = 5, "PJRT_Event_Destroy";
    EVENT_AWAIT: Subject<EventObject> = 8, "PJRT_Event_Await";
    CLIENT_CREATE: ClientCreate = 10, "PJRT_Client_Create";
    CLIENT_DESTROY: Subject<ClientObject> = 11, "PJRT_Client_Destroy";
    CLIENT_PLATFORM_NAME: Query<ClientObject, Text> = 12, "PJRT_Client_PlatformName";
    CLIENT_PROCESS_INDEX: Query<ClientObject, Int> = 13, "PJRT_Client_ProcessIndex";
    CLIENT_PLATFORM_VERSION: Query<ClientObject, Text> = 14, "PJRT_Client_PlatformVersion";
    CLIENT_DEVICES: Query<ClientObject, Span<*mut DeviceObject>> = 15, "PJRT_Client_Devices";
    CLIENT_ADDRESSABLE: Query<ClientObject, Span<*mut DeviceObject>>
        = 16, "PJRT_Client_AddressableDevices";
    CLIENT_COMPILE: ClientCompile = 20, "PJRT_Client_Compile";
    CLIENT_UPLOAD: Upload = 22, "PJRT_Client_BufferFromHostBuffer";
    DESCRIPTION_ID: Query<DescriptionObject, Int> = 23, "PJRT_DeviceDescription_Id";
    DESCRIPTION_PROCESS: Query<DescriptionObject, Int>
        = 24, "PJRT_DeviceDescription_ProcessIndex";
    DESCRIPTION_KIND: Query<DescriptionObject, Text> = 26, "PJRT_DeviceDescription_Kind";
    DEVICE_DESCRIPTION: Query<DeviceObject, *mut DescriptionObject>
        = 29, "PJRT_Device_GetDescription";
    EXECUTABLE_DESTROY: Subject<ExecutableObject> = 40, "PJRT_Executable_Destroy";
    EXECUTABLE_OUTPUTS: Query<ExecutableObject, usize> = 44, "PJRT_Executable_NumOutputs";
    EXECUTABLE_COST: Cost = 46, "PJRT_Executable_GetCostAnalysis";
    EXECUTABLE_SERIALIZE: Serialize = 49, "PJRT_Executable_Serialize";
    LOADED_DESTROY: Subject<LoadedObject> = 50, "PJRT_LoadedExecutable_Destroy";
    LOADED_EXECUTABLE: Query<LoadedObject, *mut ExecutableObject>
        = 51, "PJRT_LoadedExecutable_GetExecutable";
    LOADED_ADDRESSABLE: Query<LoadedObject, Span<*mut DeviceObject>>
        = 52, "PJRT_LoadedExecutable_AddressableDevices";
    LOADED_EXECUTE: Execute = 55, "PJRT_LoadedExecutable_Execute";
    BUFFER_DESTROY: Subject<BufferObject> = 58, "PJRT_Buffer_Destroy";
    BUFFER_ELEMENT: Query<BufferObject, Int> = 59, "PJRT_Buffer_ElementType";
    BUFFER_DIMENSIONS: Query<BufferObject, Span<i64>> = 60, "PJRT_Buffer_Dimensions";
    BUFFER_DEVICE: Query<BufferObject, *mut DeviceObject> = 65, "PJRT_Buffer_Device";
    BUFFER_IS_DELETED: Query<BufferObject, Flag> = 68, "PJRT_Buffer_IsDeleted";
    BUFFER_DOWNLOAD: Download = 70, "PJRT_Buffer_ToHostBuffer";
    BUFFER_POINTER: Query<BufferObject, usize> = 73, "PJRT_Buffer_UnsafePointer";
    TOPOLOGY_CREATE: TopologyCreate = 82, "PJRT_TopologyDescription_Create";
    TOPOLOGY_DESTROY: Subject<TopologyObject> = 83, "PJRT_TopologyDescription_Destroy";
    TOPOLOGY_DEVICES: Query<TopologyObject, Span<*mut DescriptionObject>>
        = 86, "PJRT_TopologyDescription_GetDeviceDescriptions";
    TOPOLOGY_ATTRIBUTES: Query<TopologyObject, Span<NamedValue>>
        = 88, "PJRT_TopologyDescription_Attributes";
    TOPOLOGY_COMPILE: TopologyCompile = 89, "PJRT_Compile";
    EXECUTABLE_FINGERPRINT: Query<ExecutableObject, Text> = 94, "PJRT_Executable_Fingerprint";
    EXECUTABLE_MEMORY: Memory = 96, "PJRT_Executable_GetCompiledMemoryStats";
}
