//! cuDNN on our graphs of attention, for cards that are only described (`cards/`, from NVIDIA's data
//! sheets and programming guide). `cargo xtask judges` runs these: it has cuDNN in its environment, and
//! names the folder.
//!
//! What is shown: that cuDNN takes the graphs, has kernels for them, and how much memory they want.
//! Nothing is run on a card.

use coda_cuda::{AttentionPlan, AttentionSizes, CudaError, Pass, SumOrder, plan_attention};

const CARDS: [(&str, &str, &str); 4] = [
    ("A100", "sm80", include_str!("cards/a100.json")),
    ("H100", "sm90", include_str!("cards/h100.json")),
    ("H200", "sm90", include_str!("cards/h200.json")),
    ("B200", "sm100", include_str!("cards/b200.json")),
];
const ANY: Pass = Pass::Backward(SumOrder::Any);
const FIXED: Pass = Pass::Backward(SumOrder::Fixed);

/// The reference's shape, one row.
const fn reference(len: usize) -> AttentionSizes {
    AttentionSizes { rows: 1, len, heads: 16, kv_heads: 8, head: 128 }
}

fn plan(card: &str, sizes: &AttentionSizes, pass: Pass) -> Result<AttentionPlan, CudaError> {
    coda_cuda_emulator::load_planning_driver();
    plan_attention(card, sizes, pass)
}

fn planned(name: &str, card: &str, sizes: &AttentionSizes, pass: Pass) -> AttentionPlan {
    let plan =
        plan(card, sizes, pass).unwrap_or_else(|e| panic!("{name}, {sizes:?}, {pass:?}: {e}"));
    println!("{name} L {} {pass:?}: {:?}, {} bytes", sizes.len, plan.kernel, plan.workspace);
    plan
}

#[test]
#[ignore = "needs cuDNN: cargo xtask judges"]
fn every_card_has_kernels_for_both_passes() {
    for (name, generation, card) in CARDS {
        for (pass, part) in [(Pass::Forward, "fprop"), (ANY, "bprop")] {
            let kernel = planned(name, card, &reference(1024), pass).kernel.expect("a name");
            assert!(kernel.contains(generation) && kernel.contains(part), "{name}: {kernel}");
        }
    }
}

#[test]
#[ignore = "needs cuDNN: cargo xtask judges"]
fn hopper_has_kernels_for_every_length_at_the_memory_we_count_with() {
    let (name, _, card) = CARDS[2];
    for len in [1024, 2048, 4096, 8192] {
        let sizes = reference(len);
        let forward = planned(name, card, &sizes, Pass::Forward);
        assert!(forward.workspace < 1 << 20, "{forward:?}");
        // Sums of gq in f32 and their differences, and what the kernel adds.
        let own = len * 16 * 128 * 4 + len * 16 * 4;
        let backward = planned(name, card, &sizes, ANY).workspace;
        assert!((own..3 * own + (1 << 20)).contains(&backward), "{backward} bytes at {len}");
    }
}

#[test]
#[ignore = "needs cuDNN: cargo xtask judges"]
fn sums_in_a_fixed_order_cost_memory_that_grows_with_the_square() {
    let (name, _, card) = CARDS[1];
    for len in [1024, 4096] {
        let scores = len * len * 16 * 2;
        let workspace = planned(name, card, &reference(len), FIXED).workspace;
        assert!((scores..2 * scores).contains(&workspace), "{workspace} bytes at {len}");
    }
}

#[test]
#[ignore = "needs cuDNN: cargo xtask judges"]
fn narrow_heads_and_heads_that_share_nothing_have_kernels_too() {
    let (name, _, card) = CARDS[1];
    for (heads, kv_heads, head) in [(14, 2, 64), (12, 12, 64), (16, 16, 128)] {
        let sizes = AttentionSizes { rows: 4, len: 1000, heads, kv_heads, head };
        for pass in [Pass::Forward, ANY, FIXED] {
            planned(name, card, &sizes, pass);
        }
    }
}

#[test]
#[ignore = "needs cuDNN: cargo xtask judges"]
fn what_cudnn_cannot_read_is_an_error() {
    let error = plan("{}", &reference(1024), Pass::Forward).unwrap_err();
    assert!(matches!(error, CudaError::Library { .. }), "{error}");
    let odd = AttentionSizes { head: 96, ..reference(1024) };
    assert!(matches!(plan(CARDS[0].2, &odd, ANY), Err(CudaError::Shape(_))));
}
