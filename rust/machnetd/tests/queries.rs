//! Questions at the control socket: every one of them, wrong ones, and askers who do not keep to anything.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::{PATIENCE, Sidecar, answer, connect, send, wait_readable_fd};
use machnet_shm::{AppEnd, Delivery, Fd, Origin, Request};
use serde_json::{Value, json};

/// Two applications of one sidecar with connections between them, through its loop.
struct Pair {
    sidecar: Sidecar,
    client: AppEnd,
    server: AppEnd,
    lives: [Fd; 2],
}

impl Pair {
    fn new(name: &str, connections: u32) -> Pair {
        let flows = (connections + 1).to_string();
        let sidecar = Sidecar::start(name, &["--flows", &flows, "--idle", "yield"]);
        let (mut server, welcome, server_life) = sidecar.attach(None).expect("attached");
        let (client, _, client_life) = sidecar.attach(None).expect("attached");
        assert!(server.tx.request(Request::Listen {
            id: 1,
            ip: welcome.ip,
            port: 80,
            backlog: 64,
            reuse_port: false,
            group: false
        }));
        server.tx.flush();
        wait(&mut server, "listening", |app| app.rx.reply().expect("sound replies").is_some());
        let mut pair = Pair { sidecar, client, server, lives: [client_life, server_life] };
        for id in 0..connections {
            let dial = Request::Connect { id, ip: welcome.ip, port: 80, local_port: 0, timeout_ms: 0 };
            assert!(pair.client.tx.request(dial));
            pair.client.tx.flush();
            wait(&mut pair.client, "connected", |app| {
                let delivered = app.rx.delivery().expect("sound deliveries");
                matches!(delivered, Some(Delivery::Established(e)) if e.origin == Origin::Dialled(id))
            });
            wait(&mut pair.server, "accepted", |app| match app.rx.delivery().expect("sound deliveries") {
                Some(Delivery::Established(e)) => {
                    app.rx.accepted(e.flow);
                    true
                }
                _ => false,
            });
        }
        pair
    }

    fn ask(&self, question: Value) -> Value {
        ask(&self.sidecar, question)
    }
}

fn wait(app: &mut AppEnd, what: &str, mut done: impl FnMut(&mut AppEnd) -> bool) {
    let begun = Instant::now();
    while !done(app) {
        assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?}, not so: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Asks, and checks what every answer has.
fn ask(sidecar: &Sidecar, question: Value) -> Value {
    let text = sidecar.ask(&question.to_string());
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&answer["version"], &answer["query"]), (&json!(1), &question["query"]), "{text}");
    answer
}

#[test]
fn every_question_has_its_answer() {
    let pair = Pair::new("q-all", 3);
    let pid = std::process::id();

    let stats = pair.ask(json!({"version": 1, "query": "stats"}));
    assert_eq!((&stats["ip"], &stats["machnetd"]), (&json!("10.0.0.1"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(stats["pid"], json!(pair.sidecar.child.id()));
    assert!(stats["uptime_s"].is_u64());
    let engine = &stats["engines"][0];
    let counters = &engine["counters"];
    assert_eq!(
        (&engine["engine"], &counters["connects"], &counters["flows"]),
        (&json!(0), &json!(3), &json!(6))
    );
    assert!(counters["flow_units_sent"].is_u64() && engine["queue"]["tx_frames"].is_u64());
    let port = &stats["port"];
    assert_eq!(port["driver"], json!("net_memif"));
    assert!(port["counters"]["link_downs"].is_u64());
    assert!(
        port["counters"].as_object().unwrap().values().any(Value::is_null),
        "what memif cannot count: {port}"
    );

    let channels = pair.ask(json!({"version": 1, "query": "channels"}));
    // SAFETY: no arguments.
    let uid = unsafe { libc::geteuid() };
    let row = |channel: u64, listeners: u64| {
        json!({"application": channel, "channel": channel, "engine": 0, "pid": pid, "uid": uid, "state": "attached", "connections": 3,
            "listeners": listeners, "units": {"total": 1024, "submitted": 0, "delivered": 0, "reserved": 0}})
    };
    let mut rows = channels["channels"].as_array().expect("rows").clone();
    rows.sort_by_key(|row| row["channel"].as_u64());
    for row in &mut rows {
        // What is promised to an idle peer lapses after a moment.
        row["units"]["reserved"] = json!(0);
    }
    assert_eq!(rows, [row(1, 1), row(2, 0)]);

    let connections = pair.ask(json!({"version": 1, "query": "connections"}));
    let all = connections["connections"].as_array().expect("rows");
    assert_eq!(all.len(), 6);
    let of_client = pair.ask(json!({"version": 1, "query": "connections", "channel": 2}));
    let of_client = of_client["connections"].as_array().expect("rows");
    assert_eq!(of_client.len(), 3);
    for row in of_client {
        let shown =
            ["channel", "engine", "origin", "peer", "state", "queued", "in_flight"].map(|name| &row[name]);
        let expected =
            [json!(2), json!(0), json!("dialled"), json!("10.0.0.1:80"), json!("open"), json!(0), json!(0)];
        assert!(shown.into_iter().eq(&expected), "{row}");
        assert!(row["local"].as_str().is_some_and(|local| local.starts_with("10.0.0.1:")));
    }
    let nobody = pair.ask(json!({"version": 1, "query": "connections", "channel": 77}));
    assert_eq!(nobody["connections"], json!([]));

    let name = &of_client[0]["connection"];
    let one = pair.ask(json!({"version": 1, "query": "connection", "engine": 0, "connection": name}));
    for (field, value) in of_client[0].as_object().expect("a row") {
        assert!(field == "rtt_ns" || one[field] == *value, "{field} of {one}");
    }
    assert_eq!(
        (&one["waits"], &one["next_hop"], &one["unit_size"]),
        (&Value::Null, &Value::Null, &json!(1424))
    );
    assert!(
        one["window"].is_u64() && one["timeout_ns"].is_u64() && one["counters"]["hellos_sent"] == json!(1)
    );
    let gone = pair.ask(json!({"version": 1, "query": "connection", "engine": 0, "connection": "999-0"}));
    assert_eq!(gone["error"], json!("engine 0 has no such connection; it may be over"));
    let gone = pair.ask(json!({"version": 1, "query": "connection", "engine": 9, "connection": "0-0"}));
    assert_eq!(gone["error"], json!("there is no engine 9; this sidecar has 0 to 0"));

    let peers = pair.ask(json!({"version": 1, "query": "peers"}));
    let [peer] = peers["peers"].as_array().expect("rows").as_slice() else { panic!("{peers}") };
    assert_eq!(
        (&peer["ip"], &peer["state"], &peer["connections"]),
        (&json!("10.0.0.1"), &json!("local"), &json!(6))
    );
    assert!(peer["heard_ns_ago"].is_u64() && peer["mac"].is_null());
}

/// The questions and answers of docs/control.md, in its order.
fn documented() -> Vec<(Value, Value)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/control.md");
    let page = std::fs::read_to_string(page).expect("docs/control.md");
    let blocks = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let documents = blocks.map(|block| {
        let lines =
            block.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        lines.collect::<Vec<Value>>()
    });
    documents.filter_map(|block| <[Value; 2]>::try_from(block).ok()).map(Into::into).collect()
}

/// Both have the same fields, of one kind each. A field of the example may be null in fact, and what is no list of fields but of counters has
/// more in fact.
fn assert_alike(path: &str, example: &Value, fact: &Value) {
    match (example, fact) {
        (Value::Object(example), Value::Object(fact)) => {
            let counters = path.ends_with(".counters") || path.ends_with(".queue");
            for (name, value) in example {
                let fact =
                    fact.get(name).unwrap_or_else(|| panic!("{path}.{name} is documented and not there"));
                assert_alike(&format!("{path}.{name}"), value, fact);
            }
            let more: Vec<_> = fact.keys().filter(|name| !counters && !example.contains_key(*name)).collect();
            assert!(more.is_empty(), "{path}: {more:?} are not documented");
        }
        (Value::Array(example), Value::Array(fact)) => {
            // No engine has a core of its own unless the settings say so.
            assert!(!fact.is_empty() || path == "about.settings.cores", "{path}: nothing to compare with");
            fact.iter().for_each(|fact| assert_alike(path, &example[0], fact));
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        (example, fact) => panic!("{path}: {example} is documented, {fact} is there"),
    }
}

#[test]
fn answers_have_the_fields_that_are_documented() {
    let pair = Pair::new("q-doc", 1);
    let documented = documented();
    let names: Vec<_> = documented.iter().filter_map(|(question, _)| question["query"].as_str()).collect();
    assert_eq!(
        names,
        [
            "stats",
            "health",
            "about",
            "channels",
            "listeners",
            "connections",
            "connection",
            "peers",
            "drain",
            "log"
        ]
    );
    for (mut question, example) in documented {
        if question["query"] == "connection" {
            let all = pair.ask(json!({"version": 1, "query": "connections"}));
            question["connection"] = all["connections"][0]["connection"].clone();
        }
        let fact = pair.ask(question.clone());
        assert_alike(question["query"].as_str().expect("a name"), &example, &fact);
    }
}

#[test]
fn fixed_neighbours_are_peers_without_connections() {
    let sidecar = Sidecar::start("q-peers", &["--neighbor", "10.0.0.9=02:00:00:00:00:09"]);
    let peers = ask(&sidecar, json!({"version": 1, "query": "peers"}));
    let row = json!({"ip": "10.0.0.9", "next_hop": "10.0.0.9", "mac": "02:00:00:00:00:09", "state": "fixed",
        "connections": 0, "heard_ns_ago": null});
    assert_eq!(peers["peers"], json!([row]));
}

#[test]
fn a_drained_channel_ends_and_its_application_learns_of_it() {
    let pair = Pair::new("q-drain", 1);
    assert_eq!(pair.ask(json!({"version": 1, "query": "drain", "channel": 2}))["channel"], json!(2));
    wait_readable_fd(pair.lives[0].raw());
    pair.sidecar.until("only the other is left", |s| s.channels().matches(r#""channel":"#).count() == 1);
    let log = pair.sidecar.log();
    assert!(log.contains(&format!("channel 2: to be drained, by process {}", std::process::id())), "{log}");
    let none = pair.ask(json!({"version": 1, "query": "drain", "channel": 2}));
    assert_eq!(none["error"], json!("there is no channel 2; \"channels\" lists those there are"));
}

#[test]
fn the_level_of_the_log_follows_an_order() {
    let sidecar = Sidecar::start("q-log", &[]);
    let answer = ask(&sidecar, json!({"version": 1, "query": "log", "level": "error"}));
    assert_eq!(answer["level"], json!("error"));
    sidecar.until("it is told", |s| s.log().contains("level error from now on"));
    sidecar.signal(libc::SIGUSR1);
    ask(&sidecar, json!({"version": 1, "query": "log", "level": "info"}));
    sidecar.until("it is told", |s| s.log().contains("level info from now on"));
    assert!(!sidecar.log().contains("stats: engine 0:"), "nothing of level info was logged in between");
    sidecar.signal(libc::SIGUSR1);
    sidecar.until("counters are logged again", |s| s.log().contains("stats: engine 0:"));
}

#[test]
fn wrong_questions_are_answered_with_a_sentence() {
    let sidecar = Sidecar::start("q-wrong", &[]);
    let long = format!("{{\"version\":1,\"query\":\"stats\",\"x\":\"{}\"}}", "x".repeat(20_000));
    for (question, query, sentence) in [
        ("{", Value::Null, "the question is no JSON object: "),
        ("{\"version\":1,\"query\":\"\u{fffd}\"", Value::Null, "the question is no JSON object: "),
        (&long, Value::Null, "the question has more than 4096 bytes"),
        (r#"{"version":1,"query":"status"}"#, json!("status"), "unknown query \"status\"; use \"stats\""),
        (r#"{"version":9,"query":"stats"}"#, json!("stats"), "version = 9: this machnetd speaks version 1"),
        (r#"{"version":1,"query":"stats","all":1}"#, json!("stats"), "unknown field \"all\"; stats takes"),
    ] {
        let text = sidecar.ask(question);
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!((&answer["version"], &answer["query"]), (&json!(1), &query), "{text}");
        let error = answer["error"].as_str().expect("an error");
        assert!(error.starts_with(sentence), "{question}: {error}");
    }
    sidecar.attach(None).expect("others are served");
}

/// An asker who reads nothing, with as little room at his end as there can be.
fn silent(sidecar: &Sidecar, question: &str) -> OwnedFd {
    let socket = connect(&sidecar.folder.socket()).expect("the control socket");
    send(&socket, question.as_bytes());
    socket
}

#[test]
fn who_does_not_read_holds_up_nobody_and_is_cut_off() {
    let pair = Pair::new("q-slow", 1000);
    let list = r#"{"version":1,"query":"connections"}"#;
    let whole = pair.sidecar.ask(list);
    assert!(whole.len() > 256 << 10, "more than a socket holds: {} bytes", whole.len());
    let begun = Instant::now();
    // More than may ask at once; those beyond are told so. All have asked before the sidecar looks, so it takes them in their order.
    pair.sidecar.signal(libc::SIGSTOP);
    let crowd: Vec<_> = (0..30).map(|_| silent(&pair.sidecar, list)).collect();
    pair.sidecar.signal(libc::SIGCONT);
    let mut refused = 0;
    for socket in &crowd[16..] {
        let text = answer(socket);
        refused += usize::from(text.contains("questions are being answered"));
    }
    assert_eq!(refused, 14, "all that came later");
    // Meanwhile applications attach.
    let (app, _, life) = pair.sidecar.attach(None).expect("attached");
    assert!(begun.elapsed() < Duration::from_secs(5), "the crowd was not cut off yet");
    drop((app, life));
    pair.sidecar.until("they are cut off", |s| s.log().contains("within 5s; cut off"));
    pair.sidecar.until("there is room again", |s| s.ask(list).matches(r#""connection":"#).count() == 2000);
    pair.sidecar.until("all of them are", |_| crowd[..16].iter().all(is_closed));
    for socket in &crowd[..16] {
        let mut byte = [0u8; 1];
        let most = whole.len() / 32_768 + 1;
        // SAFETY: `byte` is writable. What the socket holds is short of the whole, and then there is the end.
        let packets = (0..most)
            .take_while(|_| unsafe { libc::recv(socket.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) } > 0)
            .count();
        assert!(packets < most, "{packets} packets");
    }
}

/// Whether the other end has closed it.
fn is_closed(socket: &OwnedFd) -> bool {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    unsafe { libc::poll(&mut entry, 1, 0) == 1 && entry.revents & libc::POLLHUP != 0 }
}

#[test]
fn an_asker_that_is_gone_and_one_that_says_more_harm_nobody() {
    let pair = Pair::new("q-gone", 50);
    for _ in 0..200 {
        drop(silent(&pair.sidecar, r#"{"version":1,"query":"connections"}"#));
    }
    let twice = silent(&pair.sidecar, r#"{"version":1,"query":"stats"}"#);
    send_again(&twice);
    pair.sidecar.until("there is room for others", |s| {
        s.ask(r#"{"version":1,"query":"connections"}"#).matches(r#""connection":"#).count() == 100
    });
    assert!(!pair.sidecar.log().contains("fault"), "{}", pair.sidecar.log());
}

/// A second question, which nobody answers; the socket may be closed already.
fn send_again(socket: &OwnedFd) {
    // SAFETY: the packet is readable for its length.
    unsafe { libc::send(socket.as_raw_fd(), b"{}".as_ptr().cast(), 2, libc::MSG_NOSIGNAL) };
}

#[test]
fn orders_are_for_root_and_for_the_sidecars_own_user() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("left out: only root can ask as another user");
        return;
    }
    let sidecar = Sidecar::start("q-user", &["--mode", "0666"]);
    let path = sidecar.folder.socket();
    let as_nobody = |question: &str| {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                // This thread alone becomes nobody: the system call, not libc's function for all threads.
                // SAFETY: numbers only.
                let ret = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
                assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
                let socket = connect(&path).expect("everybody may connect");
                send(&socket, question.as_bytes());
                answer(&socket)
            });
            asked.join().expect("an answer")
        })
    };
    let refused = |query| {
        format!(
            r#"{{"version":1,"query":"{query}","error":"user 65534 may not order this; root and machnetd's own user (0) may"}}"#
        )
    };
    assert_eq!(as_nobody(r#"{"version":1,"query":"log","level":"off"}"#), refused("log"));
    assert_eq!(as_nobody(r#"{"version":1,"query":"drain","channel":1}"#), refused("drain"));
    assert!(as_nobody(r#"{"version":1,"query":"channels"}"#).ends_with(r#""channels":[]}"#));
}
