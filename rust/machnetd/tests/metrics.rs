//! `/metrics` of a real sidecar.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Folder, Sidecar, text};

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port")
}

fn scrape(address: SocketAddr) -> String {
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("a page, and its end");
    page
}

/// The value of the one sample that has this name and these labels.
fn value(page: &str, sample: &str) -> f64 {
    let found: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(&format!("{sample} "))).collect();
    assert_eq!(found.len(), 1, "{sample} in\n{page}");
    found[0].parse().expect("a number")
}

#[test]
fn prometheus_sees_what_the_engines_count() {
    let address = free();
    let listen = address.to_string();
    let mut sidecar = Sidecar::start("metrics", &["--engines", "2", "--metrics", &listen, "--idle", "yield"]);
    let _attached = sidecar.attach(Some(1)).expect("attached");
    sidecar.until("the channel is counted", |_| {
        value(&scrape(address), "machnet_engine_channels_attached_total{engine=\"1\"}") == 1.0
    });
    let page = scrape(address);
    assert_eq!(value(&page, "machnet_engine_channels_attached_total{engine=\"0\"}"), 0.0);
    assert!(value(&page, "machnet_engine_rounds_total{engine=\"0\"}") > 0.0);
    assert_eq!(value(&page, "machnet_port_info{driver=\"net_memif\"}"), 1.0);
    assert_eq!(value(&page, "machnet_flow_lost_total{engine=\"1\"}"), 0.0);
    // A client that never asks does not hold up the end.
    let _silent = TcpStream::connect(address).expect("connected");
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.end(), Some(0));
}

#[test]
fn nobody_listens_unless_told_to_and_an_address_that_is_taken_is_named() {
    let address = free();
    let sidecar = Sidecar::start("no-metrics", &[]);
    assert!(TcpStream::connect(address).is_err());
    assert!(!sidecar.log().contains("/metrics"), "{}", sidecar.log());

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = Folder::new("taken-metrics").run(&["--metrics", &address]);
    assert_eq!(output.status.code(), Some(4));
    let sentence = format!("metrics.listen = \"{address}\": listen: Address already in use");
    assert!(text(&output.stderr).contains(&sentence), "{}", text(&output.stderr));
}
