//! Programs and arguments that are refused, each with a clear error.

use crate::common::{DONATED, DOUBLE, client, compile, plugin};
use coda_pjrt::{
    Client, ClientOptions, CompileOptions, ElementType, ErrorCode, PjrtError, Topology,
};

#[test]
fn bad_text_is_an_error_of_the_plugin_that_names_it_and_the_place() {
    let client = client(1);
    let text = DOUBLE.replace("return %y", "return %z");
    let error = client.compile(&text, &CompileOptions::default()).expect_err("no %z");
    let PjrtError::Plugin { plugin: name, function, code, message } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((name.path.as_path(), name.version), (plugin().path(), plugin().api_version()));
    assert_eq!((*function, *code), ("PJRT_Client_Compile", ErrorCode::Unknown));
    assert!(message.contains("undeclared SSA value"), "{message}");
    assert!(client.compile("", &CompileOptions::default()).is_err());
    assert!(client.compile("\0\u{1}ML\u{ef}R", &CompileOptions::default()).is_err());
}

#[test]
fn more_partitions_than_devices_are_refused() {
    let client = client(2);
    let options = CompileOptions { partitions: 64, ..CompileOptions::default() };
    let error = client.compile(DOUBLE, &options).expect_err("64 of 2");
    assert!(matches!(error, PjrtError::Plugin { .. }), "{error:?}");
    let options = CompileOptions { device_ids: vec![7], ..CompileOptions::default() };
    assert!(client.compile(DOUBLE, &options).is_err());
}

#[test]
fn a_setting_that_xla_does_not_know_is_refused() {
    let overrides = vec![("xla_no_such_flag".to_owned(), true.into())];
    let options = CompileOptions { overrides, ..CompileOptions::default() };
    let error = client(1).compile(DOUBLE, &options).expect_err("unknown");
    assert!(error.to_string().contains("xla_no_such_flag"), "{error}");
}

#[test]
fn overrides_of_xla_reach_the_compiler() {
    let overrides = vec![
        ("xla_cpu_enable_fast_math".to_owned(), false.into()),
        ("xla_backend_optimization_level".to_owned(), 0_i64.into()),
    ];
    let options = CompileOptions { overrides, ..CompileOptions::default() };
    client(1).compile(DOUBLE, &options).expect("known settings");
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_or_by_the_plugin() {
    let client = client(2);
    let executable = compile(&client, DOUBLE);
    let devices = client.addressable_devices();
    let x = client.upload(&devices[0], &[1.0_f32, 2.0], &[2]).expect("x");
    let elsewhere = client.upload(&devices[1], &[1.0_f32, 2.0], &[2]).expect("x");
    let long = client.upload(&devices[0], &[1.0_f32; 3], &[3]).expect("x");
    let message = |result: Result<_, PjrtError>| result.expect_err("refused").to_string();
    let text = message(executable.execute(&[]));
    assert_eq!(text, "0 lists of arguments for a program on 1 devices");
    assert!(message(executable.execute(&[vec![&x], vec![&x]])).starts_with("2 lists"));
    let text = message(executable.execute(&[vec![&elsewhere]]));
    assert!(text.starts_with("argument 0 of device 0 lies on device 1"), "{text}");
    for wrong in [vec![], vec![&x, &x], vec![&long]] {
        let error = executable.execute(&[wrong]).expect_err("refused");
        assert!(matches!(error, PjrtError::Plugin { .. }), "{error:?}");
    }
    executable.execute(&[vec![&x]]).expect("the right ones still run");
}

#[test]
fn buffers_and_devices_of_another_client_are_refused() {
    let (one, other) = (client(1), client(1));
    let executable = compile(&one, DOUBLE);
    let foreign = other.addressable_devices();
    let x = other.upload(&foreign[0], &[1.0_f32, 2.0], &[2]).expect("x");
    assert!(matches!(executable.execute(&[vec![&x]]), Err(PjrtError::Arguments { .. })));
    let error = one.upload(&foreign[0], &[1.0_f32], &[1]).expect_err("refused");
    assert!(error.to_string().ends_with("cannot be used by this client"), "{error}");
}

#[test]
fn another_element_type_is_not_reinterpreted() {
    let client = client(1);
    let x = client.upload(&client.addressable_devices()[0], &[1_i32], &[1]).expect("x");
    let error = x.download::<f32>().expect_err("i32");
    assert_eq!(error.to_string(), "the buffer holds i32, not f32");
    let PjrtError::Element { wanted, found } = error else { panic!("{error:?}") };
    assert_eq!((wanted, found), (ElementType::F32, ElementType::I32));
}

#[test]
fn one_buffer_cannot_be_donated_twice_in_a_call() {
    let client = client(1);
    let text = "module {
  func.func public @main(%x: tensor<4xf32> {tf.aliasing_output = 0 : i32},
                         %y: tensor<4xf32> {tf.aliasing_output = 1 : i32})
      -> (tensor<4xf32>, tensor<4xf32>) {
    %z = stablehlo.add %x, %y : tensor<4xf32>
    %w = stablehlo.multiply %x, %y : tensor<4xf32>
    return %z, %w : tensor<4xf32>, tensor<4xf32>
  }
}";
    let executable = compile(&client, text);
    let x = client.upload(&executable.addressable_devices()[0], &[1.0_f32; 4], &[4]).expect("x");
    assert!(matches!(executable.execute(&[vec![&x, &x]]), Err(PjrtError::Plugin { .. })));
}

#[test]
fn a_topology_that_the_plugin_does_not_know_is_refused() {
    let error = Topology::new(plugin(), "v5e:2x2", &[]).expect_err("a CPU");
    assert!(matches!(error, PjrtError::Plugin { .. }), "{error:?}");
}

#[test]
fn a_donated_argument_of_the_wrong_size_is_refused_and_kept() {
    let client = client(1);
    let executable = compile(&client, DONATED);
    let short = client.upload(&executable.addressable_devices()[0], &[0.0_f32], &[1]).expect("x");
    assert!(executable.execute(&[vec![&short]]).is_err());
}

/// What `docs/xla.md` says about several processes on the CPU; should it change, then so must that.
#[test]
fn the_cpu_plugin_numbers_processes_but_runs_no_program_over_two() {
    let options = vec![
        ("cpu_device_count".to_owned(), 2_i64.into()),
        ("process_id".to_owned(), 1_i64.into()),
    ];
    let client = Client::new(plugin(), &ClientOptions { options, store: None }).expect("a client");
    assert_eq!(client.process_index(), 1);
    let devices = client.devices();
    let ids: Vec<i64> = devices.iter().map(coda_pjrt::Device::id).collect();
    assert_eq!(ids, [2048, 2049]);
    assert!(devices.iter().all(|device| device.process_index() == 1 && device.is_addressable()));
    let over =
        |partitions, device_ids| CompileOptions { partitions, device_ids, overrides: vec![] };
    let error = client.compile(DOUBLE, &over(2, vec![0, 2048])).expect_err("two processes");
    assert!(error.to_string().contains("Multiprocess computations aren't implemented"), "{error}");
    client.compile(DOUBLE, &over(2, ids)).expect("its own devices");
    for name in ["num_nodes", "node_id"] {
        let options = vec![(name.to_owned(), 2_i64.into())];
        let error = Client::new(plugin(), &ClientOptions { options, store: None });
        let error = error.expect_err("unknown").to_string();
        assert!(error.contains("Unexpected option name") && error.contains(name), "{error}");
    }
}
