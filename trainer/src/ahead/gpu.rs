//! NVIDIA cards as XLA's plugin for them wants them described, to compile for them where none is.

use super::Target;
use coda_pjrt::OptionValue;
use std::path::{Path, PathBuf};

/// A card, by its maker's data sheet and programming guide.
struct Card {
    name: &'static str,
    /// What a driver calls it.
    device: &'static str,
    capability: (u32, u32),
    multiprocessors: u32,
    /// Bytes of memory.
    memory: u64,
    /// Bytes a second.
    bandwidth: u64,
    /// Bytes of cache that all multiprocessors share.
    l2: u64,
    clock_ghz: f32,
    /// Bytes of shared memory of a multiprocessor; a block may have all but 1 KiB.
    shared: u64,
}

const CARDS: [Card; 4] = [
    Card {
        name: "a100",
        device: "NVIDIA A100-SXM4-80GB",
        capability: (8, 0),
        multiprocessors: 108,
        memory: 80_000_000_000,
        bandwidth: 2_039_000_000_000,
        l2: 40 << 20,
        clock_ghz: 1.41,
        shared: 164 << 10,
    },
    Card {
        name: "h100",
        device: "NVIDIA H100 80GB HBM3",
        capability: (9, 0),
        multiprocessors: 132,
        memory: 80_000_000_000,
        bandwidth: 3_350_000_000_000,
        l2: 50 << 20,
        clock_ghz: 1.98,
        shared: 228 << 10,
    },
    Card {
        name: "h200",
        device: "NVIDIA H200",
        capability: (9, 0),
        multiprocessors: 132,
        memory: 141_000_000_000,
        bandwidth: 4_800_000_000_000,
        l2: 60 << 20,
        clock_ghz: 1.98,
        shared: 228 << 10,
    },
    Card {
        name: "b200",
        device: "NVIDIA B200",
        capability: (10, 0),
        multiprocessors: 148,
        memory: 180_000_000_000,
        bandwidth: 8_000_000_000_000,
        l2: 126 << 20,
        clock_ghz: 1.965,
        shared: 228 << 10,
    },
];

/// The cards of `h200:8`, a node of eight; nothing if the name is no card's.
#[must_use]
pub fn node(topology: &str) -> Option<Target> {
    let (name, count) = topology.split_once(':')?;
    let card = CARDS.iter().find(|card| card.name == name)?;
    let cards: u32 = count.parse().ok().filter(|count| *count > 0)?;
    Some(Target::Gpu { description: card.description(), cards, memory: card.memory })
}

impl Card {
    /// XLA's `GpuTargetConfigProto` as text.
    fn description(&self) -> String {
        let Self { device, capability: (major, minor), multiprocessors, .. } = *self;
        let Self { memory, bandwidth, l2, clock_ghz, shared, .. } = *self;
        let of_block = shared - (1 << 10);
        format!(
            "gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 \
             shared_memory_per_block: 49152 shared_memory_per_core: {shared} \
             threads_per_core_limit: 2048 core_count: {multiprocessors} fpus_per_core: 128 \
             block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 \
             memory_bandwidth: {bandwidth} l2_cache_size: {l2} clock_rate_ghz: {clock_ghz} \
             device_memory_size: {memory} shared_memory_per_block_optin: {of_block} \
             cuda_compute_capability {{ major: {major} minor: {minor} }} \
             registers_per_core_limit: 65536 registers_per_block_limit: 65536 }} \
             platform_name: \"CUDA\" \
             dnn_version_info {{ major: 9 minor: 19 patch: 0 }} \
             device_description_str: \"{device}\""
        )
    }
}

/// What the plugin is told to leave out where no card is: trying kernels out, and what it chooses by that.
pub(super) fn overrides() -> Vec<(String, OptionValue)> {
    vec![
        ("xla_gpu_autotune_level".to_owned(), OptionValue::Int(0)),
        ("xla_gpu_enable_triton_gemm".to_owned(), OptionValue::Bool(false)),
        ("xla_gpu_enable_cublaslt".to_owned(), OptionValue::Bool(false)),
    ]
}

/// Where CUDA's assembler lies beside a plugin that pip installed: `nvidia/cu13` of the same environment.
pub(super) fn toolkit(plugin: &Path) -> Option<PathBuf> {
    let packages = plugin.ancestors().nth(3)?;
    let folders = ["nvidia/cu13", "nvidia/cuda_nvcc"].map(|folder| packages.join(folder));
    folders.into_iter().find(|folder| folder.join("bin").join("ptxas").is_file())
}

#[cfg(test)]
mod tests {
    use super::{Target, node, toolkit};

    #[test]
    fn nodes_are_known_cards_and_their_number() {
        let Some(Target::Gpu { description, cards, memory }) = node("h200:8") else {
            panic!("a node of eight");
        };
        assert_eq!((cards, memory), (8, 141_000_000_000));
        assert!(description.contains("core_count: 132") && description.contains("major: 9"));
        assert_eq!(description.matches('{').count(), description.matches('}').count());
        for other in ["v5p:2x2x1", "h200", "h200:0", "h200:2x2", "rtx4090:1"] {
            assert!(node(other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_assembler_is_looked_for_beside_the_plugin() {
        let root = tempfile::tempdir().unwrap();
        let plugin = root.path().join("jax_plugins/xla_cuda13/xla_cuda_plugin.so");
        assert_eq!(toolkit(&plugin), None);
        let folder = root.path().join("nvidia/cu13");
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        coda_shards::commit::write_atomic(&folder.join("bin/ptxas"), |out| out.write_all(b""))
            .unwrap();
        assert_eq!(toolkit(&plugin), Some(folder));
    }
}
