//! Compiles the stand-ins for NVIDIA's libraries.

use std::{env, path::Path, process::Command};

/// Source, file, and the name by which cudarc looks for the library first.
const LIBRARIES: [(&str, &str, &str); 5] = [
    ("cuda.cpp", "libcuda.so.1", "libcuda.so"),
    ("nvrtc.cpp", "libnvrtc.so.13", "libnvrtc.so"),
    ("cublaslt.cpp", "libcublasLt.so.13", "libcublasLt.so"),
    ("nccl.cpp", "libnccl.so.2", "libnccl.so"),
    // cuDNN looks for it by this name; it lies apart from the first.
    ("planning.cpp", "planning/libcuda.so.1", "libcuda.so.1"),
];

fn main() {
    println!("cargo::rerun-if-changed=src");
    let out = env::var("OUT_DIR").expect("cargo names the folder");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo names the package");
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    std::fs::create_dir_all(Path::new(&out).join("planning")).expect("the folder is ours");
    for (source, file, name) in LIBRARIES {
        let source = Path::new(&root).join("src").join(source);
        let status = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"])
            .arg(format!("-Wl,-soname,{name}"))
            .arg("-DCODA_KERNEL_HEADER=\"".to_owned() + &root + "/src/kernel.h\"")
            .arg("-DCODA_COMPILER=\"".to_owned() + &compiler + "\"")
            .arg("-o")
            .arg(Path::new(&out).join(file))
            .arg(&source)
            .arg("-ldl")
            .status()
            .expect("a C++ compiler runs");
        assert!(status.success(), "{} does not compile", source.display());
    }
}
