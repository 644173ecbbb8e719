//! The committed C header is what cbindgen makes of the sources, in both places where it is kept.
use std::path::Path;

#[test]
fn header_is_current() {
    // The Go copies lie beside the packages that include them, where vendoring keeps them.
    current(".", &["include/machnet.h", "../../go/internal/core/machnet.h"]);
    current(
        "../machnet-core",
        &["../machnet-core/include/machnet_host.h", "../../go/machnettest/machnet_host.h"],
    );
}

/// Compares (or, with MACHNET_WRITE, writes) what cbindgen makes of a crate.
fn current(of: &str, kept_at: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = here.join(of);
    let config = cbindgen::Config::from_file(of.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut bytes = Vec::new();
    cbindgen::Builder::new()
        .with_crate(of)
        .with_config(config)
        .generate()
        .expect("cbindgen")
        .write(&mut bytes);
    let now = String::from_utf8(bytes).expect("a header in UTF-8");
    // What a program includes takes no name of its own but these.
    for line in now.lines() {
        let name = match line.strip_prefix("#define ") {
            Some(rest) => rest.split_whitespace().next(),
            None if line.starts_with(char::is_alphabetic) && line.contains('(') => {
                line.split('(').next().and_then(|head| head.rsplit([' ', '*']).next())
            }
            None => continue,
        };
        let name = name.unwrap_or_default();
        assert!(
            name.starts_with("machnet_") || name.starts_with("MACHNET_"),
            "the header has {name}: {line}"
        );
    }
    for path in kept_at.iter().map(|path| here.join(path)) {
        if std::env::var_os("MACHNET_WRITE").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder of the header");
            std::fs::write(&path, &now).expect("write the header");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == now, "{} is not what the sources say; run `make header`", path.display());
    }
}
