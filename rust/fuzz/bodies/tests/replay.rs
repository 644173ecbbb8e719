//! The kept inputs of every target, on stable Rust. `MACHNET_FUZZ_FILE=path` runs that one instead, whichever test is asked
//! for: `make fuzz-replay TARGET=frame FILE=rust/fuzz/artifacts/frame/crash-...`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use machnet_fuzz_bodies::body;

/// Says which input it was that failed.
struct Named<'a>(&'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input: {}", self.0.display());
        }
    }
}

/// Runs what there is, each twice. Together they must reach `reached`, or the seeds are no test any more.
fn replay(target: &str, reached: &[&str]) {
    let body = body(target).expect("a target");
    let mut sums = BTreeMap::new();
    let mut run = |path: &Path| {
        let _named = Named(path);
        let data = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let trail = body(&data);
        assert_eq!(trail, body(&data), "one input, two different runs");
        trail.iter().for_each(|(name, n)| *sums.entry(name.clone()).or_insert(0) += n);
    };
    if let Some(path) = std::env::var_os("MACHNET_FUZZ_FILE") {
        return run(Path::new(&path));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(target);
    let mut seeds: Vec<PathBuf> =
        fs::read_dir(&folder).expect("seeds").map(|entry| entry.expect("readable").path()).collect();
    seeds.sort();
    seeds.iter().for_each(|path| run(path));
    let missing: Vec<_> = reached.iter().filter(|name| sums.get(**name).is_none_or(|n| *n == 0)).collect();
    assert!(missing.is_empty(), "{} seeds reach no {missing:?}: {sums:?}", seeds.len());
}

#[test]
fn frame() {
    replay(
        "frame",
        &[
            "arp_replies",
            "connects_refused",
            "control_dropped",
            "flow_credit_lapsed",
            "flow_out_of_order",
            "flow_refused",
            "flow_stale_tags",
            "flow_timeouts",
            "handover_in",
            "icmp_replies",
            "resets_received",
            "rst_sent",
            "rx_bad_checksum",
            "rx_bad_ip",
            "rx_bad_machnet",
            "rx_bad_tag",
            "rx_bad_transport",
            "rx_broke_protocol",
            "rx_no_flow",
            "rx_over",
            "rx_short",
        ],
    );
}

#[test]
fn flow_ops() {
    replay("flow_ops", &["rst", "ping", "dropped", "aborted", "messages"]);
}

#[test]
fn packet() {
    replay("packet", &["taken", "broken", "messages", "aborted", "rst", "ping"]);
}

#[test]
fn wire() {
    replay("wire", &["formats", "report", "hit", "ranges", "sealed", "part", "hello", "lane"]);
}
