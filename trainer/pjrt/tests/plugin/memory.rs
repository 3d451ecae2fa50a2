//! Nothing leaks.

use crate::common::{client, compile};
use std::fs;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_thousand_buffers_of_a_megabyte_do_not_stay() {
    let client = client(1);
    let text = "module { func.func @main(%x: tensor<262144xf32>) -> tensor<262144xf32> {
    %y = stablehlo.add %x, %x : tensor<262144xf32>
    return %y : tensor<262144xf32> } }";
    let executable = compile(&client, text);
    let device = &executable.addressable_devices()[0];
    let data = vec![1.0_f32; 262_144];
    let step = || {
        let x = client.upload(device, &data, &[262_144]).expect("uploaded");
        executable.execute(&[vec![&x]]).expect("it runs");
    };
    (0..20).for_each(|_| step());
    let before = resident();
    (0..1000).for_each(|_| step());
    let grown = resident().saturating_sub(before);
    // Two buffers a step would be 2 GiB; other tests of this process compile meanwhile.
    assert!(grown < 512 << 20, "{} MiB more", grown >> 20);
}
