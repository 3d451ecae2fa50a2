use super::layout::*;
use std::mem::{offset_of, size_of};

/// The figures that a C compiler gives for the header of API 0.81.
#[test]
fn layouts_are_those_of_the_header() {
    assert_eq!(size_of::<Subject<ErrorObject>>(), 24);
    assert_eq!(size_of::<Query<ErrorObject, Text>>(), 40);
    assert_eq!(size_of::<Query<ErrorObject, Int>>(), 32);
    assert_eq!(size_of::<Query<BufferObject, Flag>>(), 32);
    assert_eq!(size_of::<Query<BufferObject, usize>>(), 32);
    assert_eq!(size_of::<Query<BufferObject, Span<i64>>>(), 40);
    assert_eq!(size_of::<Nothing>(), 16);
    assert_eq!(size_of::<Attributes>(), 32);
    assert_eq!(size_of::<NamedValue>(), 56);
    assert_eq!(offset_of!(NamedValue, kind), 32);
    assert_eq!(offset_of!(NamedValue, value), 40);
    assert_eq!(offset_of!(NamedValue, len), 48);
    assert_eq!(size_of::<ClientCreate>(), 88);
    assert_eq!(offset_of!(ClientCreate, get), 32);
    assert_eq!(offset_of!(ClientCreate, client), 64);
    assert_eq!(offset_of!(ClientCreate, try_get_user), 80);
    assert_eq!(size_of::<KeyValueGet>(), 80);
    assert_eq!(offset_of!(KeyValueGet, error), 40);
    assert_eq!(offset_of!(KeyValueGet, given) + offset_of!(Given, deleter), 72);
    assert_eq!(size_of::<KeyValueTryGet>(), 72);
    assert_eq!(offset_of!(KeyValueTryGet, given) + offset_of!(Given, deleter), 64);
    assert_eq!(size_of::<KeyValuePut>(), 64);
    assert_eq!(offset_of!(KeyValuePut, user), 56);
    assert_eq!(size_of::<Program>(), 48);
    assert_eq!(offset_of!(Program, format) + offset_of!(Text, len), 40);
    assert_eq!(size_of::<ClientCompile>(), 56);
    assert_eq!(offset_of!(ClientCompile, executable), 48);
    assert_eq!(size_of::<TopologyCompile>(), 64);
    assert_eq!(offset_of!(TopologyCompile, client), 48);
    assert_eq!(offset_of!(TopologyCompile, executable), 56);
    assert_eq!(size_of::<TopologyCreate>(), 56);
    assert_eq!(offset_of!(TopologyCreate, topology), 48);
    assert_eq!(size_of::<Upload>(), 120);
    assert_eq!(offset_of!(Upload, dims), 40);
    assert_eq!(offset_of!(Upload, semantics), 72);
    assert_eq!(offset_of!(Upload, device), 80);
    assert_eq!(offset_of!(Upload, buffer), 112);
    assert_eq!(size_of::<MemoryLayout>(), 80);
    assert_eq!(offset_of!(MemoryLayout, tiled), 16);
    assert_eq!(offset_of!(MemoryLayout, kind), 72);
    assert_eq!(size_of::<Tiled>(), 56);
    assert_eq!(offset_of!(Tiled, tiles), 48);
    assert_eq!(size_of::<Download>(), 56);
    assert_eq!(offset_of!(Download, target_size), 40);
    assert_eq!(offset_of!(Download, event), 48);
    assert_eq!(size_of::<ExecuteOptions>(), 112);
    assert_eq!(offset_of!(ExecuteOptions, launch), 48);
    assert_eq!(offset_of!(ExecuteOptions, not_donated), 56);
    assert_eq!(offset_of!(ExecuteOptions, context), 72);
    assert_eq!(offset_of!(ExecuteOptions, call_location), 80);
    assert_eq!(size_of::<Execute>(), 80);
    assert_eq!(offset_of!(Execute, outputs), 56);
    assert_eq!(offset_of!(Execute, device), 72);
    assert_eq!(size_of::<Cost>(), 40);
    assert_eq!(offset_of!(Cost, start), 32);
    assert_eq!(size_of::<Memory>(), 112);
    assert_eq!(offset_of!(Memory, sizes) + 4 * size_of::<i64>(), 56);
    assert_eq!(offset_of!(Memory, peak), 104);
    assert_eq!(size_of::<Serialize>(), 56);
    assert_eq!(offset_of!(Serialize, deleter), 48);
}

#[test]
fn a_padded_structure_is_longer_by_the_spare_and_begins_alike() {
    assert_eq!(size_of::<Padded<Upload>>(), 120 + 64);
    assert_eq!(offset_of!(Padded<Upload>, args), 0);
    assert_eq!(offset_of!(super::TableHead, major), 32);
    assert_eq!(offset_of!(super::TableHead, minor), 36);
    assert_eq!(size_of::<super::TableHead>(), super::FIRST_FUNCTION);
}
