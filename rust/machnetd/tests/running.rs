//! A sidecar that runs: signals, its share of the processor, its cores, and the memif link's other ends.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, Sidecar, connect, send, wait_readable, wait_readable_fd};
use machnet_shm::AttachError;

#[test]
fn each_ending_signal_ends_it_in_order() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut sidecar = Sidecar::start(&format!("signal{signal}"), &[]);
        let (_app, _, life) = sidecar.attach(None).expect("attached");
        let begun = Instant::now();
        sidecar.signal(signal);
        wait_readable_fd(life.raw()); // the application learns of it by its socket
        assert_eq!(sidecar.end(), Some(0), "signal {signal}; log:\n{}", sidecar.log());
        assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
        assert_eq!(sidecar.folder.names(), Vec::<String>::new(), "files left after signal {signal}");
    }
}

#[test]
fn sigusr1_logs_the_counters() {
    let sidecar = Sidecar::start("usr1", &[]);
    sidecar.signal(libc::SIGUSR1);
    sidecar.until("the counters are in the log", |s| s.log().contains("machnetd: stats: engine 0:"));
}

#[test]
fn the_channels_of_a_group_are_one_application_and_bounded() {
    let folder = Folder::new("group");
    let file = folder.0.join("machnetd.toml");
    let write = |each: u32| {
        let text = format!("[control]\nmax_channels = 1\n[channels]\nper_application = {each}\n");
        fs::write(&file, text).unwrap();
    };
    write(2);
    let path = file.to_str().unwrap().to_owned();
    let sidecar = Sidecar::start_in(folder, &["--config", &path]);
    let refused = |result: Result<_, AttachError>| match result {
        Err(AttachError::Refused(_, text)) => text.as_str().to_owned(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("attached"),
    };
    let first = sidecar.attach_in(7).expect("the first");
    let second = sidecar.attach_in(7).expect("its second");
    assert_eq!(sidecar.channels().matches("\"application\":1,").count(), 2, "{}", sidecar.channels());
    let full = "this application has 2 channels, the most (channels.per_application); close some or raise it";
    assert_eq!(refused(sidecar.attach_in(7)), full);
    let other = "1 applications have channels, the most (control.max_channels); try later or raise it";
    assert_eq!([refused(sidecar.attach_in(8)), refused(sidecar.attach(None))], [other, other]);
    write(3);
    sidecar.signal(libc::SIGHUP);
    sidecar.until("it is in force", |s| s.log().contains("in force now: channels.per_application\n"));
    let third = sidecar.attach_in(7).expect("its third");
    drop((first, second, third));
    sidecar.until("another application has its place", |s| s.attach_in(8).is_ok());
}

#[test]
fn sighup_takes_what_can_change_and_names_the_rest() {
    let folder = Folder::new("reload");
    let file = folder.0.join("machnetd.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[control]\nmax_channels = 1\n[log]\nlevel = \"info\"\n");
    let path = file.to_str().unwrap().to_owned();
    let mut sidecar = Sidecar::start_in(folder, &["--config", &path]);
    let _first = sidecar.attach(None).expect("the first");
    assert!(sidecar.attach(None).is_err(), "one is the limit");

    write("[control]\nmax_channels = 2\nmode = \"0666\"\n[nic]\nmtu = 1400\n[channels]\nunits = 64\n");
    sidecar.signal(libc::SIGHUP);
    sidecar.until("the log says what changed", |s| {
        s.log().contains("reload: in force now: control.mode, control.max_channels, channels.units\n")
            && s.log().contains("reload: changed, and in force at the next start only: nic.mtu\n")
    });
    let (_second, welcome, _life) = sidecar.attach(None).expect("the second");
    assert_eq!((welcome.geometry.units, welcome.mtu), (64, 1500));
    assert_eq!(fs::symlink_metadata(sidecar.folder.socket()).unwrap().permissions().mode() & 0o7777, 0o666);

    // With a mistake nothing changes, not even what is right.
    write("[control]\nmax_channels = 3\nmode = 0600\n[engines]\nidle = \"fast\"\n");
    sidecar.signal(libc::SIGHUP);
    sidecar.until("the log has the mistakes", |s| s.log().contains("reload: nothing was changed"));
    assert!(sidecar.log().contains(&format!("reload: {path}:3: mode = 0600: ")), "{}", sidecar.log());
    assert!(
        sidecar.log().contains(&format!("reload: {path}:5: engines.idle = \"fast\": ")),
        "{}",
        sidecar.log()
    );
    assert!(sidecar.attach(None).is_err(), "two is the limit still");

    write("[control]\nmax_channels = 2\nmode = \"0666\"\n[channels]\nunits = 64\n[log]\nlevel = \"warn\"\n");
    sidecar.signal(libc::SIGHUP);
    sidecar.until("the level is in force", |s| s.log().contains("reload: in force now: log.level\n"));
    let before = sidecar.log().matches("stats:").count();
    sidecar.signal(libc::SIGUSR1);
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.end(), Some(0));
    assert_eq!(sidecar.log().matches("stats:").count(), before, "they are of level info");
}

#[test]
fn an_idle_sidecar_uses_little() {
    let sidecar = Sidecar::start("idle", &[]);
    let keep = sidecar.attach(None).expect("attached");
    std::thread::sleep(Duration::from_millis(300));
    let (before, begun) = (sidecar.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = (sidecar.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    // 1.5 % is the aim, measured in release on a quiet machine; this is a debug build beside other tests.
    assert!(share < 0.08, "{:.1} % of a core", share * 100.0);
    drop(keep);
}

#[test]
fn a_doorbell_rung_without_end_does_not_wake_an_idle_engine_as_often() {
    let sidecar = Sidecar::start("doorbell", &[]);
    let (app, _, life) = sidecar.attach(None).expect("attached");
    sidecar.until("it is not listened to", |s| {
        (0..1000).for_each(|_| app.tx.ring());
        s.counter("bells_unheard") > 0
    });
    let sleeps = sidecar.counter("sleeps");
    let begun = Instant::now();
    let mut rings = 0_u64;
    while begun.elapsed() < Duration::from_secs(1) {
        app.tx.ring();
        rings += 1;
    }
    // Naps are 50 us at first and up to 10 ms; each ring would end one of them at once.
    let slept = sidecar.counter("sleeps") - sleeps;
    assert!(slept < rings / 10, "{slept} sleeps in {rings} rings");
    sidecar.attach(None).expect("others are served");
    drop((app, life));
}

#[test]
fn a_pinned_engine_that_lost_its_core_gets_it_back() {
    let [core, other, ..] = cores()[..] else { return }; // one core: nothing can be taken
    let sidecar = Sidecar::start("pinned", &["--cores", &core.to_string()]);
    let task = format!("/proc/{}/task", sidecar.child.id());
    let engine = || {
        let tasks = fs::read_dir(&task).expect("its threads").flatten();
        let named = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|n| n.trim() == "engine0");
        let path = tasks.map(|t| t.path()).find(|path| named(path)).expect("the engine's thread");
        let status = fs::read_to_string(path.join("status")).expect("its state");
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        (path, cores.expect("its cores").to_owned())
    };
    let (path, cores) = engine();
    assert_eq!(cores, core.to_string());
    let thread = path.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("its number");
    assert!(set_core(thread, other));
    sidecar.until("it is back", |_| engine().1 == core.to_string());
    sidecar.until("it was counted", |s| s.counter("pins_lost") == 1);
    let said = format!("engine 0: somebody let it run on core {other}; bound to core {core} again");
    sidecar.until("the log says so", |s| s.log().contains(&said));
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    // SAFETY: all bits zero is an empty set, and the call fills it.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpus` is writable and as large as told.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cpus) }, 0);
    // SAFETY: below the size of a set.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &cpus) }).collect()
}

/// Binds a thread to a core; whether that is possible.
fn set_core(thread: i32, core: usize) -> bool {
    // SAFETY: all bits zero is an empty set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below the size of a set, which is whole.
    unsafe {
        libc::CPU_SET(core, &mut cpus);
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &cpus) == 0
    }
}

#[test]
fn a_memif_client_with_another_id_and_a_second_one_are_named() {
    let server = Sidecar::start("refuses", &[]);
    server.until("it says its number", |s| s.log().contains("interface 8397056 (id 0, 1 x 1 queues"));
    let link = format!("client:{}", server.folder.0.join("link.sock").display());
    let client = |name: &str, flags: &[&str]| {
        let folder = Folder::new(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_machnetd"));
        command.args(["--ip", "10.0.0.2/24", "--memif", &link, "--socket"]).arg(folder.socket());
        let child = command.args(flags).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        Sidecar::unheard(child, folder)
    };
    let first = client("refuses-first", &[]);
    server.until("the link is up", |s| s.log().contains(": link up"));
    let foreign = client("refuses-foreign", &["--memif-id", "7"]);
    let named = format!("turned process {} away: it asks for interface 8397063 (id 7, ", foreign.child.id());
    server.until("the one with another id is named", |s| s.log().contains(&named));
    drop(foreign);
    let second = client("refuses-second", &[]);
    let named =
        format!("turned process {} away: process {} has the link", second.child.id(), first.child.id());
    server.until("the second one is named", |s| s.log().contains(&named));

    // Whoever knocks without pause is counted each time, and told of once a second.
    let mut wish = [0; 128];
    wish[0] = 3; // of a client that names an interface: number 0 here
    let (link, begun) = (server.folder.0.join("link.sock"), Instant::now());
    let lines = |s: &Sidecar| s.log().matches(": turned process ").count() as u64;
    let before = lines(&server);
    for _ in 0..50 {
        let client = connect(&link).expect("the door");
        wait_readable(&client); // the greeting
        send(&client, &wish);
        let mut bytes = [0u8; 256];
        // SAFETY: `bytes` is writable for its length.
        while unsafe { libc::recv(client.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) } > 0 {}
    }
    let stats = server.stats();
    let counted =
        stats.split(r#""link_refused":"#).nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap();
    assert!(counted.parse::<u32>().unwrap() >= 50, "{stats}");
    let (told, most) = (lines(&server) - before, begun.elapsed().as_secs() + 2);
    assert!(told <= most, "{told} lines, {most} at most; log:\n{}", server.log());
}
