//! Compiles the shim against the installed libdpdk and makes bindings from `shim.h`.
//!
//! The flags come from the `pkg-config` program as they are: `-include rte_config.h` and `-march=...` must reach the
//! compiler, and the pkg-config crate drops both.

use std::path::PathBuf;
use std::process::{Command, exit};

fn main() {
    for changed in ["shim.h", "shim.c", "events.h", "events.c"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    for changed in ["PKG_CONFIG", "PKG_CONFIG_PATH", "LIBCLANG_PATH"] {
        println!("cargo:rerun-if-env-changed={changed}");
    }

    let mut shim = cc::Build::new();
    // The interrupt handle functions were marked experimental until DPDK 23.
    // Optimised in debug builds too: what is inlined here is the data path.
    shim.files(["shim.c", "events.c"])
        .define("ALLOW_EXPERIMENTAL_API", None)
        .opt_level(3)
        .warnings(true)
        .std("gnu11");
    for flag in pkg_config("--cflags") {
        // DPDK's headers are not free of warnings; as system headers they stay quiet.
        match flag.strip_prefix("-I") {
            Some(dir) => shim.flag("-isystem").flag(dir),
            None => shim.flag(&flag),
        };
    }
    shim.compile("machnet_dpdk_shim");

    for flag in pkg_config("--libs") {
        if let Some(dir) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={dir}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }

    // pkg-config names no bus; rte_vdev_init is in this one.
    println!("cargo:rustc-link-lib=dylib=rte_bus_vdev");

    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    // bindgen panics, and says little, where it finds no libclang: one sentence of ours instead.
    std::panic::set_hook(Box::new(|_| {}));
    let generated = std::panic::catch_unwind(|| {
        bindgen::Builder::default()
            .header("shim.h")
            .allowlist_item("(mdpdk|MDPDK)_.*")
            .prepend_enum_name(false)
            .derive_default(true)
            .generate()
    });
    let _ = std::panic::take_hook();
    let bindings = match generated {
        Ok(Ok(bindings)) => bindings,
        Ok(Err(error)) => fail(&format!("bindgen cannot read shim.h: {error}")),
        Err(_) => fail(
            "bindgen found no libclang; install it (Debian, Ubuntu: apt-get install libclang-dev) or point LIBCLANG_PATH at it",
        ),
    };
    if let Err(error) = bindings.write_to_file(&out) {
        fail(&format!("write {}: {error}", out.display()));
    }
}

/// What `pkg-config <what> libdpdk` prints, in words.
fn pkg_config(what: &str) -> Vec<String> {
    let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = match Command::new(&program).args([what, "libdpdk"]).output() {
        Ok(output) => output,
        Err(error) => {
            fail(&format!("run {program}: {error}; install it (Debian, Ubuntu: apt-get install pkg-config)"))
        }
    };
    if !output.status.success() {
        fail(&format!(
            "{program} does not know libdpdk: {}; install DPDK 22.11 or newer with its headers (Debian, Ubuntu: apt-get install libdpdk-dev)",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")
        ));
    }
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn fail(why: &str) -> ! {
    println!("cargo::error=dpdk-sys: {why}");
    exit(1)
}
