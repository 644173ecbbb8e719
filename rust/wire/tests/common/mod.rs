//! Golden vectors: files of tests/vectors, hexadecimal bytes with `#` before a comment.
#![allow(dead_code, reason = "each test uses a part")]

pub mod take_apart;

use std::path::PathBuf;

/// Where they are.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// The frame of one vector.
pub fn read(name: &str) -> Vec<u8> {
    let path = directory().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|e| panic!("{name}: {byte}: {e}")))
        .collect()
}

/// All vectors: name and frame.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .expect("tests/vectors is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("a plain name"))
        .filter_map(|name| name.strip_suffix(".txt").map(str::to_owned))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no vectors");
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}
