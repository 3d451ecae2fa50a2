//! The plugin, clients of it, and small programs.

use coda_pjrt::{Client, ClientOptions, CompileOptions, Executable, Plugin, PluginKind, discover};
use std::sync::OnceLock;

/// XLA's CPU plugin; a test without it fails, with the hint how to get it.
pub(crate) fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let path = discover(None, PluginKind::Cpu)
            .unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint().unwrap_or_default()));
        Plugin::load(path).expect("the plugin loads")
    })
}

/// A client with that many devices.
pub(crate) fn client(devices: i64) -> Client {
    let options = vec![("cpu_device_count".to_owned(), devices.into())];
    Client::new(plugin(), &ClientOptions { options, store: None }).expect("a client")
}

/// A program on one device.
pub(crate) fn compile(client: &Client, text: &str) -> Executable {
    client.compile(text, &CompileOptions::default()).expect("the program compiles")
}

/// `f(x) = x + x` for vectors of two.
pub(crate) const DOUBLE: &str = "module {
  func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
    %y = stablehlo.add %x, %x : tensor<2xf32>
    return %y : tensor<2xf32>
  }
}";

/// `f(x) = x + 1`, whose output takes over the memory of its input.
pub(crate) const DONATED: &str = "module {
  func.func public @main(%x: tensor<256xf32> {tf.aliasing_output = 0 : i32}) -> tensor<256xf32> {
    %one = stablehlo.constant dense<1.0> : tensor<256xf32>
    %y = stablehlo.add %x, %one : tensor<256xf32>
    return %y : tensor<256xf32>
  }
}";
