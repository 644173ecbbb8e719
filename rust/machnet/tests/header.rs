//! The committed C header is what cbindgen makes of the sources, in both places where it is kept.
use std::path::Path;

#[test]
fn header_is_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut bytes = Vec::new();
    cbindgen::Builder::new()
        .with_crate(here)
        .with_config(config)
        .generate()
        .expect("cbindgen")
        .write(&mut bytes);
    let now = String::from_utf8(bytes).expect("a header in UTF-8");
    // The Go copy lies beside the package that includes it, where vendoring keeps it.
    for path in [here.join("include/machnet.h"), here.join("../../go/internal/core/machnet.h")] {
        if std::env::var_os("MACHNET_WRITE").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder of the header");
            std::fs::write(&path, &now).expect("write the header");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == now, "{} is not what the sources say; run `make header`", path.display());
    }
}
