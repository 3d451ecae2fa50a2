//! What programs compute, on one device.

use crate::common::{DONATED, DOUBLE, client, compile, plugin};
use coda_pjrt::{Element, ElementType, ErrorCode, PjrtError};
use half::bf16;
use proptest::prelude::*;

#[test]
fn the_plugin_and_its_client_tell_who_they_are() {
    let plugin = plugin();
    assert_eq!(plugin.api_version().0, 0);
    let attributes = plugin.attributes().expect("attributes");
    assert!(attributes.iter().any(|(name, _)| name == "xla_version"), "{attributes:?}");
    for count in [1, 2, 4] {
        let client = client(count);
        assert_eq!(client.platform_name(), "cpu");
        assert_eq!(client.process_index(), 0);
        let devices = client.devices();
        assert_eq!(devices, client.addressable_devices());
        let ids: Vec<i64> = devices.iter().map(coda_pjrt::Device::id).collect();
        assert_eq!(ids, (0..count).collect::<Vec<_>>());
        assert_eq!(devices[0].process_index(), 0);
        assert!(!devices[0].kind().is_empty());
    }
}

/// `x · w`, then one half added `n` times in a loop, whose count comes out too.
const MATMUL_AND_WHILE: &str = "module {
  func.func @main(%x: tensor<3x4xf32>, %w: tensor<4x2xf32>, %n: tensor<i32>)
      -> (tensor<3x2xf32>, tensor<i32>) {
    %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
      : (tensor<3x4xf32>, tensor<4x2xf32>) -> tensor<3x2xf32>
    %zero = stablehlo.constant dense<0> : tensor<i32>
    %one = stablehlo.constant dense<1> : tensor<i32>
    %half = stablehlo.constant dense<0.5> : tensor<3x2xf32>
    %z, %i = stablehlo.while(%a = %y, %k = %zero) : tensor<3x2xf32>, tensor<i32>
    cond {
      %more = stablehlo.compare LT, %k, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %more : tensor<i1>
    } do {
      %b = stablehlo.add %a, %half : tensor<3x2xf32>
      %l = stablehlo.add %k, %one : tensor<i32>
      stablehlo.return %b, %l : tensor<3x2xf32>, tensor<i32>
    }
    return %z, %i : tensor<3x2xf32>, tensor<i32>
  }
}";

#[test]
fn a_product_and_a_loop_are_what_they_are_by_hand() {
    let client = client(1);
    let executable = compile(&client, MATMUL_AND_WHILE);
    let device = &executable.addressable_devices()[0];
    let x: Vec<f32> = (0_u8..12).map(f32::from).collect();
    let w: Vec<f32> = (0_u8..8).map(|i| f32::from(i) - 4.0).collect();
    let bx = client.upload(device, &x, &[3, 4]).expect("x");
    let bw = client.upload(device, &w, &[4, 2]).expect("w");
    for n in [0_i32, 1, 7] {
        let bn = client.upload(device, &[n], &[]).expect("n");
        let outputs = executable.execute(&[vec![&bx, &bw, &bn]]).expect("it runs");
        let [y, count] = &outputs[0][..] else { panic!("two outputs") };
        assert_eq!((y.dims(), y.element()), (&[3, 2][..], ElementType::F32));
        assert_eq!((count.dims(), count.element()), (&[][..], ElementType::I32));
        let expected: Vec<f32> = (0..6)
            .map(|at| {
                let (row, column) = (at / 2, at % 2);
                let product: f32 = (0..4).map(|k| x[row * 4 + k] * w[k * 2 + column]).sum();
                product + 0.5 * f32::from(i16::try_from(n).expect("small"))
            })
            .collect();
        assert_eq!(y.download::<f32>().expect("y"), expected);
        assert_eq!(count.download::<i32>().expect("count"), [n]);
    }
}

/// An output whose layout on the device is column-major, as accelerators like to have it.
const TRANSPOSED: &str = "module {
  func.func @main(%x: tensor<2x3xf32>)
      -> (tensor<2x3xf32> {mhlo.layout_mode = \"{0,1}\"}) {
    return %x : tensor<2x3xf32>
  }
}";

#[test]
fn a_download_is_row_major_whatever_the_layout_on_the_device() {
    let client = client(1);
    let executable = compile(&client, TRANSPOSED);
    let x = [0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0];
    let bx = client.upload(&executable.addressable_devices()[0], &x, &[2, 3]).expect("x");
    let outputs = executable.execute(&[vec![&bx]]).expect("it runs");
    assert_eq!(outputs[0][0].download::<f32>().expect("y"), x);
}

fn comes_back<T: Element + PartialEq + std::fmt::Debug>(values: &[T]) {
    let client = one();
    let device = &client.addressable_devices()[0];
    let buffer = client.upload(device, values, &[values.len()]).expect("uploaded");
    assert_eq!(buffer.element(), T::TYPE);
    assert_eq!(buffer.download::<T>().expect("downloaded"), values);
}

#[test]
fn every_element_type_comes_back_as_it_went() {
    comes_back(&[1.5_f32, f32::MIN_POSITIVE, f32::INFINITY]);
    comes_back(&[1.5_f64, -0.25]);
    comes_back(&[i8::MIN, 3]);
    comes_back(&[i16::MIN, 3]);
    comes_back(&[i32::MIN, i32::MAX]);
    comes_back(&[i64::MIN, i64::MAX]);
    comes_back(&[u8::MAX, 0]);
    comes_back(&[u16::MAX, 0]);
    comes_back(&[u32::MAX, 0]);
    comes_back(&[u64::MAX, 0]);
    comes_back(&[bf16::from_f32(1.25), bf16::NEG_INFINITY]);
    comes_back(&[half::f16::from_f32(1.25), half::f16::MAX]);
    comes_back(&[true, false, true]);
}

#[test]
fn a_buffer_of_bf16_is_computed_in_bf16() {
    let client = client(1);
    let program = DOUBLE.replace("f32", "bf16");
    let executable = compile(&client, &program);
    let device = &executable.addressable_devices()[0];
    let x = [bf16::from_f32(1.003_906_2), bf16::from_f32(-3.0)];
    let bx = client.upload(device, &x, &[2]).expect("x");
    let outputs = executable.execute(&[vec![&bx]]).expect("it runs");
    assert_eq!(outputs[0][0].element(), ElementType::Bf16);
    let doubled: Vec<bf16> = outputs[0][0].download().expect("y");
    assert_eq!(doubled, x.map(|v| bf16::from_f32(v.to_f32() * 2.0)));
}

#[test]
fn a_donated_argument_is_deleted_and_its_memory_used_again() {
    let client = client(1);
    let executable = compile(&client, DONATED);
    let device = &executable.addressable_devices()[0];
    let mut value = client.upload(device, &[0.0_f32; 256], &[256]).expect("x");
    for step in 1_u8..=3 {
        let before = value.unsafe_pointer().expect("an address");
        let mut outputs = executable.execute(&[vec![&value]]).expect("it runs");
        assert!(value.is_deleted());
        let error = value.download::<f32>().expect_err("deleted");
        assert!(matches!(error, PjrtError::Deleted { .. }), "{error}");
        let error = executable.execute(&[vec![&value]]).expect_err("deleted");
        assert!(error.to_string().starts_with("argument 0 of device 0 was deleted"), "{error}");
        value = outputs.remove(0).remove(0);
        assert_eq!(value.unsafe_pointer().expect("an address"), before);
        assert_eq!(value.download::<f32>().expect("y"), vec![f32::from(step); 256]);
    }
    let memory = executable.memory().expect("memory statistics");
    assert_eq!((memory.arguments, memory.outputs, memory.aliased), (1024, 1024, 1024));
    assert!(memory.total() >= 1024);
}

#[test]
fn a_program_tells_cost_and_fingerprint_and_can_be_serialized() {
    let client = client(1);
    let executable = compile(&client, MATMUL_AND_WHILE);
    match executable.cost() {
        Ok(cost) => assert!(cost.iter().any(|(name, _)| name == "flops"), "{cost:?}"),
        // The CPU plugins from PJRT 0.106 on make none.
        Err(error) => {
            let unimplemented =
                matches!(error, PjrtError::Plugin { code: ErrorCode::Unimplemented, .. });
            assert!(unimplemented && error.hint().is_some(), "{error:?}");
        }
    }
    assert!(!executable.serialize().expect("bytes").is_empty());
    let same = compile(&client, MATMUL_AND_WHILE).fingerprint().expect("a fingerprint");
    assert_eq!(executable.fingerprint().expect("a fingerprint"), same);
    let other = compile(&client, DOUBLE).fingerprint().expect("a fingerprint");
    assert_ne!(same, other);
}

#[test]
fn buffers_and_programs_outlive_the_client_and_go_to_other_threads() {
    let client = client(1);
    let executable = compile(&client, DOUBLE);
    let x = client.upload(&executable.addressable_devices()[0], &[1.0_f32, 2.0], &[2]).expect("x");
    drop(client);
    let outputs = std::thread::spawn(move || executable.execute(&[vec![&x]]).expect("it runs"))
        .join()
        .expect("no panic");
    assert_eq!(outputs[0][0].download::<f32>().expect("y"), [2.0, 4.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_dimensions_come_back(dims in prop::collection::vec(0_usize..5, 0..5), seed: u32) {
        let client = one();
        let len: usize = dims.iter().product();
        let values: Vec<u32> = (0..len).map(|i| seed.wrapping_add(u32::try_from(i).expect("few"))).collect();
        let buffer = client.upload(&client.addressable_devices()[0], &values, &dims).expect("up");
        prop_assert_eq!(buffer.dims(), &dims[..]);
        prop_assert_eq!(buffer.download::<u32>().expect("down"), values);
    }

    #[test]
    fn a_wrong_number_of_elements_is_refused(dims in prop::collection::vec(0_usize..5, 0..5), more in 1_usize..9) {
        let client = one();
        let len = dims.iter().product::<usize>() + more;
        let error = client.upload(&client.addressable_devices()[0], &vec![0_u8; len], &dims);
        prop_assert!(matches!(error, Err(PjrtError::Size { .. })), "{:?}", error);
    }
}

fn one() -> &'static coda_pjrt::Client {
    static CLIENT: std::sync::OnceLock<coda_pjrt::Client> = std::sync::OnceLock::new();
    CLIENT.get_or_init(|| client(1))
}
