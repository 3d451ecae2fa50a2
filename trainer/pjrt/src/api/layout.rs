//! The argument structures of the PJRT C API, as the header of API 0.81 lays them out.
//!
//! Most functions ask one object for one thing, so most structures are a [`Query`]. Fields that are
//! smaller than a word have an explicit spare beside them: a later version of the header may put a
//! field there, and it has to find a zero.

use std::{
    ffi::{c_char, c_int, c_void},
    marker::PhantomData,
    ptr,
};

/// What every argument structure begins with; [`super::Api::call`] fills it in.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) struct_size: usize,
    pub(crate) extension: *mut c_void,
}

impl Head {
    /// Before the call has given the size.
    pub(crate) const EMPTY: Self = Self::sized(0);

    /// For structures that are passed inside others.
    pub(crate) const fn sized(struct_size: usize) -> Self {
        Self { struct_size, extension: ptr::null_mut() }
    }
}

/// A structure that a function of the API takes.
///
/// # Safety
/// The type is `#[repr(C)]` and begins with a [`Head`], and its size is a multiple of its alignment
/// of eight bytes.
pub(crate) unsafe trait Args: Copy {}

/// A structure with room behind it: plugins that are newer than the header here want at least the
/// size that they know, and find zeros in what they do not get from us.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Padded<A> {
    pub(crate) args: A,
    pub(crate) spare: [usize; 8],
}

impl<A> Padded<A> {
    pub(crate) fn new(args: A) -> Self {
        Self { args, spare: [0; 8] }
    }
}

/// A function of the API: its place in the table, its name, and what it takes.
pub(crate) struct Function<A> {
    pub(crate) index: usize,
    pub(crate) name: &'static str,
    args: PhantomData<fn(A)>,
}

impl<A> Clone for Function<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Function<A> {}

impl<A> Function<A> {
    pub(crate) const fn new(index: usize, name: &'static str) -> Self {
        Self { index, name, args: PhantomData }
    }
}

macro_rules! opaque {
    ($($name:ident),*) => { $(
        /// An object of the plugin; only pointers to it exist here.
        pub(crate) enum $name {}
    )* };
}
opaque!(ErrorObject, EventObject, ClientObject, DeviceObject, DescriptionObject, BufferObject);
opaque!(LoadedObject, ExecutableObject, SerializedObject, TopologyObject);

/// A subject alone: destroying it, waiting for it.
#[repr(C)]
pub(crate) struct Subject<S> {
    pub(crate) head: Head,
    pub(crate) subject: *mut S,
}

/// One question to one object.
#[repr(C)]
pub(crate) struct Query<S, O> {
    pub(crate) head: Head,
    pub(crate) subject: *mut S,
    pub(crate) out: O,
}

// Derives would ask for `S: Copy`, which opaque objects are not.
impl<S> Clone for Subject<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Subject<S> {}
impl<S, O: Copy> Clone for Query<S, O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S, O: Copy> Copy for Query<S, O> {}

/// Memory of the plugin: where it begins and how many elements it has.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Span<T> {
    pub(crate) start: *const T,
    pub(crate) len: usize,
}

/// Text of the plugin, with no zero at its end.
pub(crate) type Text = Span<c_char>;

/// An `int` with what may stand behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Int {
    pub(crate) value: c_int,
    pub(crate) spare: c_int,
}

/// A `bool` with what may stand behind it; a byte, since the plugin writes it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) value: u8,
    pub(crate) spare: [u8; 7],
}

/// `PJRT_Plugin_Initialize_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Nothing {
    pub(crate) head: Head,
}

/// `PJRT_Plugin_Attributes_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) head: Head,
    pub(crate) out: Span<NamedValue>,
}

/// `PJRT_NamedValue`: an option or an attribute.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NamedValue {
    pub(crate) head: Head,
    pub(crate) name: Text,
    pub(crate) kind: Int,
    pub(crate) value: NamedUnion,
    pub(crate) len: usize,
}

/// The value of a [`NamedValue`]; its kind says which.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union NamedUnion {
    pub(crate) text: *const c_char,
    pub(crate) int: i64,
    pub(crate) ints: *const i64,
    pub(crate) float: f32,
    pub(crate) flag: u8,
}

/// `PJRT_Client_Create_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ClientCreate {
    pub(crate) head: Head,
    pub(crate) options: Span<NamedValue>,
    pub(crate) get: Option<GetCallback>,
    pub(crate) get_user: *mut c_void,
    pub(crate) put: Option<PutCallback>,
    pub(crate) put_user: *mut c_void,
    pub(crate) client: *mut ClientObject,
    pub(crate) try_get: Option<TryGetCallback>,
    pub(crate) try_get_user: *mut c_void,
}

/// Makes an error object of the plugin, by which a callback of ours tells what failed.
pub(crate) type CallbackError =
    unsafe extern "C" fn(code: c_int, message: *const c_char, len: usize) -> *mut ErrorObject;
/// Frees a value that a callback of ours gave away.
pub(crate) type Deleter = unsafe extern "C" fn(value: *mut c_char);
pub(crate) type GetCallback = unsafe extern "C" fn(*mut KeyValueGet) -> *mut ErrorObject;
pub(crate) type TryGetCallback = unsafe extern "C" fn(*mut KeyValueTryGet) -> *mut ErrorObject;
pub(crate) type PutCallback = unsafe extern "C" fn(*mut KeyValuePut) -> *mut ErrorObject;

/// A value that a callback gives, and how the plugin frees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Given {
    pub(crate) value: *mut c_char,
    pub(crate) len: usize,
    pub(crate) deleter: Option<Deleter>,
}

/// `PJRT_KeyValueGetCallback_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KeyValueGet {
    pub(crate) head: Head,
    pub(crate) key: Text,
    pub(crate) timeout_ms: Int,
    pub(crate) error: *mut CallbackError,
    pub(crate) user: *mut c_void,
    pub(crate) given: Given,
}

/// `PJRT_KeyValueTryGetCallback_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KeyValueTryGet {
    pub(crate) head: Head,
    pub(crate) key: Text,
    pub(crate) error: *mut CallbackError,
    pub(crate) user: *mut c_void,
    pub(crate) given: Given,
}

/// `PJRT_KeyValuePutCallback_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KeyValuePut {
    pub(crate) head: Head,
    pub(crate) key: Text,
    pub(crate) value: Text,
    pub(crate) error: *mut CallbackError,
    pub(crate) user: *mut c_void,
}

/// `PJRT_Program`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Program {
    pub(crate) head: Head,
    pub(crate) code: Text,
    pub(crate) format: Text,
}

/// `PJRT_Client_Compile_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ClientCompile {
    pub(crate) head: Head,
    pub(crate) client: *mut ClientObject,
    pub(crate) program: *const Padded<Program>,
    pub(crate) options: Text,
    pub(crate) executable: *mut LoadedObject,
}

/// `PJRT_Compile_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TopologyCompile {
    pub(crate) head: Head,
    pub(crate) topology: *mut TopologyObject,
    pub(crate) program: *const Padded<Program>,
    pub(crate) options: Text,
    pub(crate) client: *mut ClientObject,
    pub(crate) executable: *mut ExecutableObject,
}

/// `PJRT_TopologyDescription_Create_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TopologyCreate {
    pub(crate) head: Head,
    pub(crate) name: Text,
    pub(crate) options: Span<NamedValue>,
    pub(crate) topology: *mut TopologyObject,
}

/// `PJRT_Client_BufferFromHostBuffer_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Upload {
    pub(crate) head: Head,
    pub(crate) client: *mut ClientObject,
    pub(crate) data: *const c_void,
    pub(crate) element: Int,
    pub(crate) dims: Span<i64>,
    pub(crate) byte_strides: Span<i64>,
    pub(crate) semantics: Int,
    pub(crate) device: *mut DeviceObject,
    pub(crate) memory: *mut c_void,
    pub(crate) device_layout: *mut MemoryLayout,
    pub(crate) done_with_host: *mut EventObject,
    pub(crate) buffer: *mut BufferObject,
}

/// `PJRT_Buffer_MemoryLayout`, of which the tiled form is the larger one.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MemoryLayout {
    pub(crate) head: Head,
    pub(crate) tiled: Tiled,
    pub(crate) kind: Int,
}

/// `PJRT_Buffer_MemoryLayout_Tiled`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Tiled {
    pub(crate) head: Head,
    pub(crate) minor_to_major: Span<i64>,
    pub(crate) tile_dims: *const i64,
    pub(crate) tile_dim_sizes: *const usize,
    pub(crate) tiles: usize,
}

/// `PJRT_Buffer_ToHostBuffer_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Download {
    pub(crate) head: Head,
    pub(crate) source: *mut BufferObject,
    pub(crate) host_layout: *mut MemoryLayout,
    pub(crate) target: *mut c_void,
    pub(crate) target_size: usize,
    pub(crate) event: *mut EventObject,
}

/// `PJRT_ExecuteOptions`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ExecuteOptions {
    pub(crate) head: Head,
    pub(crate) send_callbacks: *mut c_void,
    pub(crate) receive_callbacks: *mut c_void,
    pub(crate) sends: usize,
    pub(crate) receives: usize,
    pub(crate) launch: Int,
    pub(crate) not_donated: Span<i64>,
    pub(crate) context: *mut c_void,
    pub(crate) call_location: *const c_char,
    /// Names of tasks and their incarnations, which header 0.81 ends with.
    pub(crate) tasks: [usize; 3],
}

/// `PJRT_LoadedExecutable_Execute_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Execute {
    pub(crate) head: Head,
    pub(crate) executable: *mut LoadedObject,
    pub(crate) options: *mut Padded<ExecuteOptions>,
    pub(crate) arguments: *const *const *mut BufferObject,
    pub(crate) devices: usize,
    pub(crate) arguments_len: usize,
    pub(crate) outputs: *const *mut *mut BufferObject,
    pub(crate) complete: *mut *mut EventObject,
    pub(crate) device: *mut DeviceObject,
}

/// `PJRT_Executable_GetCostAnalysis_Args`; the count stands before the pointer here.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) head: Head,
    pub(crate) executable: *mut ExecutableObject,
    pub(crate) len: usize,
    pub(crate) start: *const NamedValue,
}

/// `PJRT_Executable_GetCompiledMemoryStats_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) head: Head,
    pub(crate) executable: *mut ExecutableObject,
    /// Code, arguments, outputs, aliased, temporary; then the same five on the host.
    pub(crate) sizes: [i64; 10],
    pub(crate) peak: i64,
}

/// `PJRT_Executable_Serialize_Args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Serialize {
    pub(crate) head: Head,
    pub(crate) executable: *mut ExecutableObject,
    pub(crate) bytes: Text,
    pub(crate) serialized: *mut SerializedObject,
    pub(crate) deleter: Option<unsafe extern "C" fn(*mut SerializedObject)>,
}

// SAFETY: each is `#[repr(C)]`, begins with a `Head` and consists of whole words.
unsafe impl<S> Args for Subject<S> {}
// SAFETY: as above; `layouts_are_those_of_the_header` holds the sizes of all that are used.
unsafe impl<S, O: Copy> Args for Query<S, O> {}
macro_rules! args {
    ($($name:ident),*) => { $(
        // SAFETY: as above.
        unsafe impl Args for $name {}
    )* };
}
args!(Nothing, Attributes, ClientCreate, ClientCompile, TopologyCompile, TopologyCreate, Upload);
args!(Download, Execute, Cost, Memory, Serialize);
