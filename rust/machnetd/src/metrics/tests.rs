use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use machnet_engine::{EngineConfig, neighbor};
use machnet_nic::{PortCounters, PortState};

use super::*;

/// A NIC that counts how often it is asked.
#[derive(Default)]
struct Nic(AtomicU64);

impl Port for Nic {
    fn driver(&self) -> &str {
        "net_test"
    }
    fn counters(&self) -> PortCounters {
        PortCounters { link_ups: Some(self.0.fetch_add(1, Relaxed) + 1), ..PortCounters::default() }
    }

    fn state(&self) -> PortState {
        PortState::Up
    }
}

struct Served {
    metrics: Option<Metrics>,
    address: SocketAddr,
    shared: Arc<Shared>,
    nic: Arc<Nic>,
}

impl Served {
    fn new() -> Served {
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        let config = EngineConfig::new(neighbor::Config::new(ip, 24, None), 1, [2, 3]);
        let shared = Shared::new(config, 2).expect("bells");
        let nic = Arc::new(Nic::default());
        // A port that is free; somebody else may take it in between, so a few are tried.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = free.local_addr().expect("its address");
            drop(free);
            let subject = Subject { shared: Arc::clone(&shared), port: Arc::clone(&nic) as Arc<dyn Port> };
            if let Ok(metrics) = Metrics::start(address, subject) {
                return Served { metrics: Some(metrics), address, shared, nic };
            }
        }
        panic!("no port is free");
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
        socket
    }

    fn send(&self, request: &[u8]) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(request).expect("sent");
        socket
    }

    fn ask(&self, request: &[u8]) -> String {
        answer(self.send(request))
    }
}

fn answer(mut socket: TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer, and its end");
    answer
}

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_scrape_gets_the_page_and_other_requests_their_status() {
    let served = Served::new();
    served.shared.counters(1).expect("an engine").rx_frames.add(77);
    let page = served.ask(SCRAPE);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("\nmachnet_engine_rx_frames_total{engine=\"1\"} 77\n"), "{page}");
    assert!(page.contains("\nmachnet_port_link_ups_total 1\n") && page.contains("{driver=\"net_test\"}"));
    assert!(!page.contains("machnet_port_rx_missed"), "which this NIC does not count");
    let (head, body) = page.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    let asked = served.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(asked.starts_with("HTTP/1.1 200 OK\r\n") && asked.ends_with("\r\n\r\n"), "{asked}");
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"hello\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = served.ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    }
}

#[test]
fn counters_are_read_a_few_times_a_second_however_often_they_are_asked_for() {
    let served = Served::new();
    let begun = Instant::now();
    (0..200).for_each(|_| drop(served.ask(SCRAPE)));
    let most = begun.elapsed().as_millis() / KEPT.as_millis() + 1;
    assert!(u128::from(served.nic.0.load(Relaxed)) <= most);
    std::thread::sleep(KEPT);
    let before = served.nic.0.load(Relaxed);
    served.ask(SCRAPE);
    assert_eq!(served.nic.0.load(Relaxed), before + 1, "but they are not old");
}

#[test]
fn silent_and_slow_clients_hold_up_nobody() {
    let served = Served::new();
    let silent: Vec<_> = (0..3 * MOST).map(|_| served.connect()).collect();
    let half: Vec<_> = (0..MOST / 2).map(|_| served.send(b"GET /metrics HTTP/1.1\r\nX: ")).collect();
    assert!(served.ask(SCRAPE).contains("machnet_build_info"));
    // Whoever sends a byte at a time is served as well, if he is through in time.
    let mut slow = served.connect();
    for byte in SCRAPE {
        slow.write_all(&[*byte]).expect("sent");
    }
    assert!(answer(slow).contains("machnet_build_info"));
    // The oldest gave way: their connections are over.
    for mut socket in silent.into_iter().take(2 * MOST) {
        assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)));
    }
    drop(half);
}

#[test]
fn requests_without_end_are_cut_off() {
    let served = Served::new();
    let mut endless = served.send(b"GET /metrics HTTP/1.1\r\nX: ");
    // Until the other end is gone.
    while endless.write_all(&[b'x'; 4096]).is_ok() {}
    let mut body = served.send(b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n");
    while body.write_all(&[b'x'; 4096]).is_ok() {}
    assert!(served.ask(SCRAPE).contains("machnet_build_info"));
    // One that sends a little too much still learns what was wrong.
    let large = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 20_000], b"\r\n\r\n"].concat();
    assert!(served.ask(&large).starts_with("HTTP/1.1 431 "));
}

#[test]
fn an_address_that_is_taken_is_named_and_the_end_waits_for_nobody() {
    let mut served = Served::new();
    let subject =
        Subject { shared: Arc::clone(&served.shared), port: Arc::clone(&served.nic) as Arc<dyn Port> };
    let error = Metrics::start(served.address, subject).err().expect("it is taken");
    let sentence = format!("metrics.listen = \"{}\": listen: Address already in use", served.address);
    assert!(error.starts_with(&sentence), "{error}");
    let _silent = served.connect();
    drop(served.metrics.take());
    assert_eq!(Arc::strong_count(&served.nic), 1, "its thread is gone, and with it all that it held");
}
