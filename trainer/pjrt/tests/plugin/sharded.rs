//! One program over several devices, partitioned by Shardy.

use crate::common::client;
use coda_pjrt::{Buffer, CompileOptions};

/// One step of gradient descent on the sum of squares of `x · w`; `w` is donated.
const STEP: &str = r#"module @step attributes {mhlo.num_partitions = N : i32, mhlo.num_replicas = 1 : i32} {
  sdy.mesh @mesh = <["fsdp"=F, "tensor"=T]>
  func.func public @main(
      %x: tensor<8x16xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"fsdp"}, {}]>},
      %w: tensor<16x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"fsdp"}, {"tensor"}]>,
                            tf.aliasing_output = 0 : i32})
      -> (tensor<16x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"fsdp"}, {"tensor"}]>},
          tensor<f32> {sdy.sharding = #sdy.sharding<@mesh, []>}) {
    %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
      : (tensor<8x16xf32>, tensor<16x4xf32>) -> tensor<8x4xf32>
    %zero = stablehlo.constant dense<0.0> : tensor<f32>
    %squares = stablehlo.multiply %y, %y : tensor<8x4xf32>
    %loss = stablehlo.reduce(%squares init: %zero) applies stablehlo.add across dimensions = [0, 1]
      : (tensor<8x4xf32>, tensor<f32>) -> tensor<f32>
    %half = stablehlo.dot_general %x, %y, contracting_dims = [0] x [0]
      : (tensor<8x16xf32>, tensor<8x4xf32>) -> tensor<16x4xf32>
    %rate = stablehlo.constant dense<0.02> : tensor<16x4xf32>
    %change = stablehlo.multiply %half, %rate : tensor<16x4xf32>
    %next = stablehlo.subtract %w, %change : tensor<16x4xf32>
    return %next, %loss : tensor<16x4xf32>, tensor<f32>
  }
}"#;

/// The rows and columns of a matrix that lie in one tile of a grid.
fn tile(matrix: &[f32], columns: usize, grid: (usize, usize), at: (usize, usize)) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let (height, width) = (rows / grid.0, columns / grid.1);
    (0..height * width)
        .map(|i| matrix[(at.0 * height + i / width) * columns + at.1 * width + i % width])
        .collect()
}

/// Three steps on a mesh: the losses, and the weights put together again.
fn train(fsdp: usize, tensor: usize) -> (Vec<f32>, Vec<f32>) {
    let devices = fsdp * tensor;
    let client = client(i64::try_from(devices).expect("few"));
    let text = STEP
        .replace("= N", &format!("= {devices}"))
        .replace("=F", &format!("={fsdp}"))
        .replace("=T", &format!("={tensor}"));
    let options = CompileOptions { partitions: devices, ..CompileOptions::default() };
    let executable = client.compile(&text, &options).expect("it compiles");
    assert_eq!(executable.addressable_devices().len(), devices);
    let x: Vec<f32> = (0_u8..128).map(|i| f32::from(i * 37 % 101) * 0.01 - 0.5).collect();
    let w: Vec<f32> = (0_u8..64).map(|i| f32::from(i * 3 % 97) * 0.02 - 0.5).collect();
    let upload = |matrix: &[f32], columns, grid: (usize, usize), at| -> Vec<Buffer> {
        let place = executable.addressable_devices().iter().enumerate();
        place
            .map(|(index, device)| {
                let part = tile(
                    matrix,
                    columns,
                    grid,
                    (index / tensor, if at { index % tensor } else { 0 }),
                );
                let dims = [matrix.len() / columns / grid.0, columns / grid.1];
                client.upload(device, &part, &dims).expect("uploaded")
            })
            .collect()
    };
    let bx = upload(&x, 16, (fsdp, 1), false);
    let mut bw = upload(&w, 4, (fsdp, tensor), true);
    let mut losses = Vec::new();
    for _ in 0..3 {
        let before: Vec<usize> = bw.iter().map(|b| b.unsafe_pointer().expect("address")).collect();
        let arguments: Vec<Vec<&Buffer>> = bx.iter().zip(&bw).map(|(x, w)| vec![x, w]).collect();
        let outputs = executable.execute(&arguments).expect("it runs");
        assert!(bw.iter().all(Buffer::is_deleted) && !bx.iter().any(Buffer::is_deleted));
        let mut next = Vec::new();
        let mut seen = Vec::new();
        for list in outputs {
            let [w, loss] = <[Buffer; 2]>::try_from(list).expect("two outputs");
            seen.push(loss.download::<f32>().expect("loss")[0]);
            next.push(w);
        }
        assert!(seen.iter().all(|loss| loss.to_bits() == seen[0].to_bits()), "{seen:?}");
        losses.push(seen[0]);
        let after: Vec<usize> = next.iter().map(|b| b.unsafe_pointer().expect("address")).collect();
        assert_eq!(before, after);
        bw = next;
    }
    let mut weights = vec![0.0; 64];
    let (height, width) = (16 / fsdp, 4 / tensor);
    for (index, buffer) in bw.iter().enumerate() {
        assert_eq!(buffer.device_id(), i64::try_from(index).expect("few"));
        for (i, value) in buffer.download::<f32>().expect("w").into_iter().enumerate() {
            let row = index / tensor * height + i / width;
            weights[row * 4 + index % tensor * width + i % width] = value;
        }
    }
    (losses, weights)
}

/// The same in plain loops and f64.
fn by_hand() -> (Vec<f64>, Vec<f64>) {
    let x: Vec<f64> = (0_u8..128).map(|i| f64::from(i * 37 % 101) * 0.01 - 0.5).collect();
    let mut w: Vec<f64> = (0_u8..64).map(|i| f64::from(i * 3 % 97) * 0.02 - 0.5).collect();
    let mut losses = Vec::new();
    for _ in 0..3 {
        let y: Vec<f64> =
            (0..32).map(|i| (0..16).map(|k| x[i / 4 * 16 + k] * w[k * 4 + i % 4]).sum()).collect();
        losses.push(y.iter().map(|y| y * y).sum());
        for (i, weight) in w.iter_mut().enumerate() {
            let half: f64 = (0..8).map(|r| x[r * 16 + i / 4] * y[r * 4 + i % 4]).sum();
            *weight -= 0.02 * half;
        }
    }
    (losses, w)
}

#[test]
fn one_two_and_four_devices_train_alike() {
    let (losses, weights) = by_hand();
    assert!(losses[2] < losses[0]);
    for (fsdp, tensor) in [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2)] {
        let (found, end) = train(fsdp, tensor);
        let close = |a: &[f32], b: &[f64]| {
            a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5 * b.abs().max(0.1))
        };
        assert!(close(&found, &losses), "{fsdp} x {tensor}: {found:?} {losses:?}");
        assert!(close(&end, &weights), "{fsdp} x {tensor}: {end:?} {weights:?}");
    }
}

#[test]
fn the_order_of_the_devices_is_that_of_the_ids() {
    let client = client(4);
    let text = r#"module attributes {mhlo.num_partitions = 2 : i32, mhlo.num_replicas = 1 : i32} {
  sdy.mesh @mesh = <["a"=2]>
  func.func public @main(%x: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"a"}]>})
      -> (tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"a"}]>}) {
    %iota = stablehlo.iota dim = 0 : tensor<4xf32>
    %y = stablehlo.add %x, %iota : tensor<4xf32>
    return %y : tensor<4xf32>
  }
}"#;
    let options =
        CompileOptions { partitions: 2, device_ids: vec![3, 1], ..CompileOptions::default() };
    let executable = client.compile(text, &options).expect("it compiles");
    let devices = executable.addressable_devices();
    let buffers: Vec<Buffer> = devices
        .iter()
        .map(|device| client.upload(device, &[0.0_f32; 2], &[2]).expect("uploaded"))
        .collect();
    let arguments: Vec<Vec<&Buffer>> = buffers.iter().map(|buffer| vec![buffer]).collect();
    let outputs = executable.execute(&arguments).expect("it runs");
    for (device, list) in devices.iter().zip(&outputs) {
        let expected = if device.id() == 3 { [0.0, 1.0] } else { [2.0, 3.0] };
        assert_eq!(list[0].download::<f32>().expect("y"), expected, "{device:?}");
    }
}
