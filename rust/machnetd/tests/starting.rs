//! What a sidecar refuses to start with, what it says of that, and what it leaves in the file system.

mod common;

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Folder, Sidecar, connect, text};
use machnet_shm::{AttachError, Status};

#[test]
fn refusals_have_one_sentence_and_a_code() {
    let folder = Folder::new("refusals");
    for (flags, code, sentence) in [
        (&["--vdev", "net_nope0"][..], 3, "machnetd: create the virtual device net_nope0: "),
        (&["--vdev", "net_null0", "--cores", "1023"], 5, "machnetd: --cores 1023: core 1023 cannot be had: "),
        (
            &["--idle", "fast"],
            2,
            "machnetd: --idle fast: unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"",
        ),
        (&["--config", "/nowhere/m.toml"], 2, "machnetd: /nowhere/m.toml: cannot read the configuration: "),
        (
            &["--socket", "/proc/nope/ctl.sock"],
            4,
            "machnetd: --socket /proc/nope/ctl.sock: nothing can be made in /proc: ",
        ),
        (
            &["--vdev", "net_null0", "--metrics", "192.0.2.1:9464"],
            4,
            "machnetd: --metrics 192.0.2.1:9464: listen: Cannot assign requested address (os error 99); use an address",
        ),
        (
            &["--vdev", "net_null0", "--dpdk-arg", "--bogus"],
            3,
            "machnetd: NIC configuration: DPDK's own arguments [\"--bogus\"] (--dpdk-arg, dpdk.extra_args): ",
        ),
        (
            &["--vdev", "net_null0,sise=4"],
            3,
            "machnetd: --vdev net_null0,sise=4: NIC configuration: virtual device net_null0,sise=4: sise: the driver net_null has no such argument; it has size, copy, no-rx",
        ),
        (
            &["--memory", "16", "--engines", "4", "--mtu", "9001"],
            3,
            "machnetd: --memif server:/LINK: allocate packet buffers, about 10 MiB for each engine, of which there are 4: DPDK's memory is too small; give it at least 53 MiB",
        ),
    ] {
        let link = folder.0.join("link.sock").display().to_string();
        let checked = folder.run(&[flags, &["--check"]].concat());
        let refused = folder.run(&[flags, &["--log", "off"]].concat());
        let said = text(&refused.stderr).replace(&link, "/LINK");
        // Whether a driver exists DPDK alone knows, and what its arguments are.
        if !flags.contains(&"net_nope0") && !flags.contains(&"--dpdk-arg") {
            let checked = (checked.status.code(), text(&checked.stderr).replace(&link, "/LINK"));
            assert_eq!(checked, (Some(code), said.clone()), "--check of {flags:?}");
        }
        assert_eq!((refused.status.code(), said.lines().count()), (Some(code), 1), "{flags:?}: {said}");
        assert!(said.starts_with(sentence), "{flags:?}: {said}");
        assert_eq!(folder.names(), Vec::<String>::new(), "files left by {flags:?}");
    }
}

#[test]
fn check_starts_nothing() {
    let folder = Folder::new("check");
    let file = folder.0.join("machnetd.toml");
    fs::write(&file, "[engines]\nidle = \"yield\"\n").unwrap();
    let path = file.to_str().unwrap();
    let good = folder.run(&["--config", path, "--check"]);
    assert_eq!((good.status.code(), text(&good.stderr)), (Some(0), String::new()));
    let said = text(&good.stdout);
    let (drivers, verdict) = said.split_once('\n').expect("two lines");
    assert!(drivers.starts_with("machnetd: DPDK 2") && drivers.contains(" memif "), "{drivers}");
    assert_eq!(verdict, format!("machnetd: {path}: nothing wrong\n"));
    fs::write(&file, "[engines]\nidle = \"fast\"\n").unwrap();
    let bad = folder.run(&["--config", path, "--check"]);
    let expected = format!(
        "machnetd: {path}:2: engines.idle = \"fast\": unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"\n"
    );
    assert_eq!((bad.status.code(), text(&bad.stderr)), (Some(2), expected));
    assert_eq!(folder.names(), ["machnetd.toml"], "nothing was started");
}

#[test]
fn what_is_doubtful_is_told_once_by_check_and_by_a_start() {
    let folder = Folder::new("doubts");
    let many = ["--engines", "16", "--idle", "spin", "--memory", "65536"];
    let checked =
        folder.run(&[&["--check", "--ip", "10.0.0.255/24", "--gateway", "10.0.0.0"][..], &many].concat());
    let (said, verdict) = (text(&checked.stderr), text(&checked.stdout));
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(verdict.ends_with("can start, with the warnings above\n"), "{verdict}");
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut expected = vec![
        "machnetd: warning: --ip 10.0.0.255/24: the last address of its subnet is the broadcast address; ",
        "machnetd: warning: --gateway 10.0.0.0: the first address of its subnet names the subnet; ",
    ];
    if cores < 16 {
        expected.push("machnetd: warning: --idle spin: 16 engines that spin share ");
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains("--memory")).collect();
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start), "{line}");
    }

    let sidecar = Sidecar::start("doubt", &["--ip", "127.0.0.1/8"]);
    let doubt = "WARN  machnetd: --ip 127.0.0.1/8: a loopback address";
    assert_eq!(sidecar.log().matches(doubt).count(), 1, "{}", sidecar.log());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let folder = Folder::new("mistakes");
    let file = folder.0.join("machnetd.toml");
    fs::write(&file, "[engines]\nidle = \"fast\"\n[control]\nmode = 0660\n").unwrap();
    let path = file.to_str().unwrap();
    let bad = folder.run(&["--config", path, "--check", "--mtu", "1"]);
    let expected = format!(
        "machnetd: {path}:2: engines.idle = \"fast\": unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"\n\
         machnetd: {path}:4: mode = 0660: in TOML no number begins with 0; write mode = \"0660\"\n\
         machnetd: --mtu 1: out of range; use 576 to 9001\n"
    );
    assert_eq!((bad.status.code(), text(&bad.stderr)), (Some(2), expected));
}

#[test]
fn output_that_cannot_be_written_is_one_sentence_and_a_code() {
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").expect("/dev/full"));
    let folder = Folder::new("full");
    for flags in [&["--version"][..], &["--help"], &["--check"]] {
        let run = |out: Stdio| {
            folder.command(flags).stdout(out).stderr(Stdio::piped()).output().expect("machnetd runs")
        };
        let refused = run(full());
        let said = "machnetd: write to standard output: No space left on device (os error 28)\n";
        assert_eq!((refused.status.code(), text(&refused.stderr)), (Some(1), said.to_owned()), "{flags:?}");

        // Nobody reads: as other tools, without a word.
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors, each of which is owned once below.
        let writer = unsafe {
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
            drop(OwnedFd::from_raw_fd(ends[0]));
            OwnedFd::from_raw_fd(ends[1])
        };
        let closed = run(Stdio::from(writer));
        assert_eq!((closed.status.code(), text(&closed.stderr)), (Some(1), String::new()), "{flags:?}");
    }
    // A refusal that nobody can read keeps its code, and a log that nobody can read stops nothing.
    let refused = folder.command(&["--idle", "fast"]).stderr(full()).status().expect("machnetd runs");
    assert_eq!(refused.code(), Some(2));
    let child = folder.command(&["--log", "trace"]).stderr(full()).spawn().expect("machnetd starts");
    let mut sidecar = Sidecar::unheard(child, Folder::new("full-log"));
    std::mem::swap(&mut sidecar.folder.0, &mut { folder }.0);
    sidecar.until("it answers", |s| connect(&s.folder.socket()).is_ok());
    sidecar.attach(None).expect("served");
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.end(), Some(0));
}

#[test]
fn a_second_sidecar_at_one_socket_is_refused_and_disturbs_nothing() {
    let sidecar = Sidecar::start("second", &[]);
    let refused = sidecar.folder.run(&[]);
    let path = sidecar.folder.socket();
    let expected = format!(
        "machnetd: control socket {}: process {} serves it; end that one, or choose another path\n",
        path.display(),
        sidecar.child.id()
    );
    assert_eq!((refused.status.code(), text(&refused.stderr)), (Some(4), expected));
    sidecar.attach(None).expect("the first one serves on");
}

#[test]
fn a_dead_sidecars_files_are_replaced() {
    let mut first = Sidecar::start("dead", &[]);
    first.signal(libc::SIGKILL);
    assert_eq!(first.end(), None, "ended by a signal");
    assert!(first.folder.names().contains(&"ctl.sock".to_owned()), "left behind");
    let folder = Folder(std::mem::take(&mut first.folder.0));
    let second = Sidecar::start_in(folder, &[]);
    second.attach(None).expect("served");
}

#[test]
fn the_mode_is_the_configured_one_whatever_the_umask() {
    let folder = Folder::new("mode");
    let mut command = folder.command(&["--mode", "0666"]);
    use std::os::unix::process::CommandExt;
    // SAFETY: `umask` is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0o077);
            Ok(())
        })
    };
    let sidecar = Sidecar::of(command, folder);
    let mode = fs::symlink_metadata(sidecar.folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o666);
}

#[test]
fn a_priority_that_may_not_be_had_is_refused_by_check_and_by_a_start() {
    use std::os::unix::process::CommandExt;
    let folder = Folder::new("priority");
    for flags in [&["--check"][..], &["--log", "off"]] {
        let mut command = folder.command(&[&["--scheduler", "rr"][..], flags].concat());
        // SAFETY: `setrlimit` and `prctl` may be called between fork and exec; only root has, and loses, that capability.
        unsafe {
            command.pre_exec(|| {
                let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const limit);
                libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0);
                Ok(())
            })
        };
        let refused = command.output().expect("machnetd runs");
        let sentence = "machnetd: --scheduler rr: engines may have no real-time priority: Operation not permitted (os error 1); grant CAP_SYS_NICE or a limit (ulimit -r) of 1, or leave out engines.scheduler\n";
        assert_eq!((refused.status.code(), text(&refused.stderr).as_str()), (Some(5), sentence), "{flags:?}");
    }
}

/// Of `linux/capability.h`.
const CAP_SYS_NICE: libc::c_ulong = 23;

#[test]
fn the_limit_on_descriptors_is_raised_and_one_that_is_too_low_is_said() {
    use std::os::unix::process::CommandExt;
    let folder = Folder::new("descriptors");
    let mut command = folder.command(&["--max-channels", "2000"]);
    // SAFETY: `setrlimit` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 200, rlim_max: 3000 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            Ok(())
        })
    };
    let sidecar = Sidecar::of(command, folder);
    let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.child.id())).expect("its limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("that limit");
    assert_eq!(files.split_whitespace().nth(3), Some("3000"), "{files}");
    sidecar.until("it is said", |s| {
        s.log().contains(
            "2000 applications (control.max_channels) with a channel each need 14768 descriptors, and this process may have 3000",
        )
    });
}

#[test]
fn a_channel_for_which_the_descriptors_would_not_last_is_refused() {
    use std::os::unix::process::CommandExt;
    let folder = Folder::new("few");
    let mut command = folder.command(&["--units", "16", "--flows", "2"]);
    // SAFETY: `setrlimit` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            Ok(())
        })
    };
    let sidecar = Sidecar::of(command, folder);
    let mut attached = Vec::new();
    let refused = loop {
        match sidecar.attach_in(attached.len() as u32 % 3) {
            Ok(channel) => attached.push(channel),
            Err(AttachError::Refused(status, text)) => break (status, text.as_str().to_owned()),
            Err(other) => panic!("{other}"),
        }
    };
    let sentence =
        "machnetd may open 1024 files (LimitNOFILE, ulimit -n), enough for 36 channels; raise that";
    assert_eq!((attached.len(), refused), (36, (Status::NoResources, sentence.to_owned())));
    let open = fs::read_dir(format!("/proc/{}/fd", sidecar.child.id())).expect("its descriptors").count();
    assert!(open < 1024 - 512, "{open}, beside those of as many as may be attaching");
    assert!(!sidecar.log().contains("accept an application"), "{}", sidecar.log());
    attached.pop();
    sidecar.until("there is room again", |s| s.attach(None).is_ok());
}

#[test]
fn dpdk_leaves_no_folder_not_even_while_it_runs() {
    let folder = Folder::new("folder");
    let names = |folder: &Folder| fs::read_dir(folder.0.join("dpdk")).expect("EAL was there").count();
    let start = |flags: &[&str]| {
        let mut command = folder.command(flags);
        command.env("RUNTIME_DIRECTORY", &folder.0).stderr(Stdio::null()).spawn().expect("machnetd starts")
    };
    let mut refused = start(&["--vdev", "net_nope0"]);
    assert_eq!(refused.wait().expect("its end").code(), Some(3));
    assert_eq!(names(&folder), 0, "after a refusal");
    let sidecar = Sidecar::unheard(start(&[]), folder);
    sidecar.until("it answers", |s| connect(&s.folder.socket()).is_ok());
    assert_eq!(names(&sidecar.folder), 0, "while it runs");
}
