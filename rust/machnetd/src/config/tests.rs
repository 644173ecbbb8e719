use super::*;
use args::{Command, read};
use machnet_nic::Device;
use machnet_nic::xdp::{Xdp, XdpMode};
use settings::KEYS;

/// What a file and flags come to, or every mistake on a line of its own.
fn config(file: &str, flags: &str) -> Result<Config, String> {
    let source = Source::of("machnetd.toml", file);
    let (mut settings, mistakes) = source.parse();
    let mut words = flags.split_whitespace();
    while let Some(flag) = words.next() {
        settings.set(Settings::flag(flag).expect("a known flag"), words.next().expect("a value"));
    }
    Config::resolve(&settings, &source, mistakes).map_err(lines)
}

fn lines(mistakes: Vec<Mistake>) -> String {
    mistakes.into_iter().map(|mistake| mistake.text).collect::<Vec<_>>().join("\n")
}

fn read_words(line: &str) -> Result<Command, String> {
    read(line.split_whitespace().map(str::to_owned)).map_err(lines)
}

const MINIMAL: &str = "--ip 10.0.0.1/24 --memif server:/path/sock";

#[test]
fn an_address_and_a_link_are_enough() {
    let c = config("", MINIMAL).unwrap();
    assert_eq!((c.ip, c.prefix, c.engines, c.burst), (Ipv4Addr::new(10, 0, 0, 1), 24, 1, 8));
    assert_eq!(c.memory, Memory::NoHuge { mib: 64 });
    assert_eq!((c.socket.to_str(), c.mode), (Some(SOCKET), 0o660));
    assert_eq!((c.units, c.flows, c.log), (1024, 256, LevelFilter::Info));
    assert_eq!((c.dead_peer, c.stats_interval), (Nanos::secs(2), None));
    let engine = c.engine([1, 2, 3]);
    assert_eq!((engine.udp_ports, engine.rss), (31580..=32603, machnet_engine::RssConfig::default()));
}

#[test]
fn every_bad_configuration_has_one_exact_sentence() {
    // The link and the address of a good one, so that the mistake is the only one; it is on line 6.
    let file = |section: &str, line: &str| {
        format!("host.ip = \"10.0.0.1/24\"\n# comment\n\n\n[{section}]\n{line}\n")
    };
    for (section, line, sentence) in [
        (
            "engines",
            "idle = \"fast\"",
            "engines.idle = \"fast\": unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"",
        ),
        (
            "engines",
            "idle = 3",
            "engines.idle = 3: unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"",
        ),
        (
            "engines",
            "speed = 3",
            "engines.speed = 3: unknown key; [engines] has count, cores, idle, scheduler, exclusive, burst",
        ),
        ("engines", "count = 0", "engines.count = 0: out of range; use 1 to 64"),
        (
            "engines",
            "scheduler = \"fifo\"",
            "engines.scheduler = \"fifo\": unknown scheduler; use \"normal\" or \"rr\"",
        ),
        (
            "engines",
            "scheduler = \"rr\"\nidle = \"adaptive\"",
            "engines.scheduler = \"rr\": a real-time thread that stays ready keeps its core from everybody else; use idle = \"block\" with it",
        ),
        ("engines", "count = \"2\"", "engines.count = \"2\": not a whole number; use 1 to 64"),
        ("engines", "count = 1.5", "engines.count = 1.5: not a whole number; use 1 to 64"),
        ("engines", "burst = 33", "engines.burst = 33: out of range; use 1 to 32"),
        (
            "engines",
            "cores = []",
            "engines.cores = []: not a list of cores; use core numbers from 0 to 1023, such as [0, 1]",
        ),
        (
            "engines",
            "cores = [0, 0]",
            "engines.cores = [0, 0]: core 0 is named twice; each engine needs one of its own",
        ),
        (
            "engines",
            "cores = [1024]",
            "engines.cores = [1024]: 1024 is not a core; use core numbers from 0 to 1023, such as [0, 1]",
        ),
        (
            "engines",
            "cores = [0, 1]\ncount = 3",
            "engines.cores = [0, 1]: names 2 cores for 3 engines; name one per engine",
        ),
        (
            "engines",
            "exclusive = \"yes\"",
            "engines.exclusive = \"yes\": not a truth value; use true or false",
        ),
        ("nic", "mtu = 9002", "nic.mtu = 9002: out of range; use 576 to 9001"),
        ("nic", "pci = \"1:2\"", "nic.pci = \"1:2\": not a PCI address; use a form such as \"0000:00:05.0\""),
        (
            "nic",
            "mac = \"02:00\"",
            "nic.mac = \"02:00\": not a MAC address; use a form such as \"02:00:00:00:00:01\"",
        ),
        (
            "nic",
            "set_mac = \"01:00:00:00:00:01\"",
            "nic.set_mac = \"01:00:00:00:00:01\": the address of a group; use a form such as \"02:00:00:00:00:01\"",
        ),
        (
            "nic",
            "memif = \"/path/sock\"",
            "nic.memif = \"/path/sock\": not a role and a socket; use \"server:/path/of/socket\" or \"client:/path/of/socket\"",
        ),
        (
            "nic",
            "memif = \"master:/s\"",
            "nic.memif = \"master:/s\": unknown role \"master\"; use \"server:/path/of/socket\" or \"client:/path/of/socket\"",
        ),
        (
            "nic",
            "memif = \"server:\"",
            "nic.memif = \"server:\": no socket; use \"server:/path/of/socket\" or \"client:/path/of/socket\"",
        ),
        ("nic", "memif_peer_queues = 17", "nic.memif_peer_queues = 17: out of range; use 1 to 16"),
        ("nic", "descriptors = 300", "nic.descriptors = 300: not a power of two; use one from 64 to 4096"),
        (
            "nic",
            "vdev = \"net_null0\"\nmac = \"02:00:00:00:00:01\"",
            "nic.vdev = \"net_null0\": nic.mac chooses a NIC already; use one of memif, pci, mac, vdev and xdp",
        ),
        (
            "nic",
            "xdp_mode = \"fast\"\nxdp = \"eth0\"",
            "nic.xdp_mode = \"fast\": unknown mode; use \"auto\", \"zero-copy\" or \"copy\"",
        ),
        (
            "nic",
            "xdp = \"a/b\"",
            "nic.xdp = \"a/b\": not the name of a network device, which has 1 to 15 bytes; `ip link` lists them",
        ),
        (
            "host",
            "ip = \"10.0.0.1\"",
            "host.ip = \"10.0.0.1\": no prefix length; use a form such as \"10.0.0.1/24\"",
        ),
        (
            "host",
            "ip = \"10.0.0.1/33\"",
            "host.ip = \"10.0.0.1/33\": the prefix length is out of range; use 1 to 32",
        ),
        (
            "host",
            "ip = \"224.0.0.1/24\"",
            "host.ip = \"224.0.0.1/24\": not the IPv4 address of a host; use a form such as \"10.0.0.1/24\"",
        ),
        (
            "host",
            "ip = \"fe80::1\"",
            "host.ip = \"fe80::1\": not an IPv4 address with a prefix length; use a form such as \"10.0.0.1/24\"",
        ),
        (
            "host",
            "ip = \"10.0.0.1/24\"\ngateway = \"10.0.0.1\"",
            "host.gateway = \"10.0.0.1\": this host's own address; use another's",
        ),
        (
            "host",
            "ip = \"10.0.0.1/24\"\nneighbors = { \"10.0.0.1\" = \"02:00:00:00:00:02\" }",
            "host.neighbors = { \"10.0.0.1\" = \"02:00:00:00:00:02\" }: names this host's own address; leave it out",
        ),
        (
            "host",
            "ip = \"10.0.0.1/32\"",
            "host.ip = \"10.0.0.1/32\": with /32 nobody is on the link, and there is no gateway: nobody could be reached; give --gateway ADDRESS, or gateway in the section [host], or the prefix length of the subnet",
        ),
        (
            "host",
            "ip = \"10.0.0.1/24\"\ngateway = \"here\"",
            "host.gateway = \"here\": not the IPv4 address of a host; use a form such as \"10.0.0.1\"",
        ),
        (
            "host",
            "ip = \"10.0.0.1/24\"\nneighbors = { x = \"02:00:00:00:00:02\" }",
            "host.neighbors = { x = \"02:00:00:00:00:02\" }: \"x\" is not the IPv4 address of a host; use a form such as \"10.0.0.2\"",
        ),
        (
            "host",
            "ip = \"10.0.0.1/24\"\nneighbors = { \"10.0.0.2\" = 7 }",
            "host.neighbors = { \"10.0.0.2\" = 7 }: 10.0.0.2: not a MAC address; use a form such as \"02:00:00:00:00:01\"",
        ),
        (
            "rss",
            "udp_ports = 4000",
            "rss.udp_ports = 4000: not a range of ports; use a form such as \"31580-32603\"",
        ),
        (
            "rss",
            "udp_ports = \"0-100\"",
            "rss.udp_ports = \"0-100\": not two ports from 1 to 65535; use a form such as \"31580-32603\"",
        ),
        (
            "rss",
            "udp_ports = \"300-200\"",
            "rss.udp_ports = \"300-200\": the first port is above the last; use a form such as \"31580-32603\"",
        ),
        (
            "rss",
            "udp_ports = \"200-214\"",
            "rss.udp_ports = \"200-214\": only 15 ports, too few to reach every queue of a NIC; use 16 or more",
        ),
        ("rss", "retry_ms = 0", "rss.retry_ms = 0: out of range; use 1 to 10000"),
        ("rss", "reverse = \"both\"", "rss.reverse = \"both\": unknown form; use \"own\" or \"mirrored\""),
        (
            "rss",
            "paper = true\nreverse = \"mirrored\"",
            "rss.paper = true: the paper has no mirrored form; use reverse = \"own\" with it",
        ),
        ("dpdk", "memory_mib = 8", "dpdk.memory_mib = 8: out of range; use 16 to 65536"),
        (
            "dpdk",
            "file_prefix = \"a b\"",
            "dpdk.file_prefix = \"a b\": not a file prefix; use 1 to 64 letters, digits, '-', '_' or '.'",
        ),
        (
            "dpdk",
            "extra_args = \"-v\"",
            "dpdk.extra_args = \"-v\": not a list of texts; use a form such as [\"--log-level=pmd:8\"]",
        ),
        ("control", "mode = 660", "control.mode = 660: not a text; write mode = \"0660\""),
        ("control", "mode = 0o660", "control.mode = 0o660: not a text; write mode = \"0660\""),
        (
            "control",
            "mode = 99",
            "control.mode = 99: not a text; use octal digits in quotes, \"0600\" to \"0777\"",
        ),
        (
            "control",
            "mode = 0660 # rw-rw----",
            "mode = 0660: in TOML no number begins with 0; write mode = \"0660\"",
        ),
        ("nic", "mtu = 01500", "mtu = 01500: in TOML no number begins with 0; write mtu = 1500"),
        ("nic", "memif_id = 256", "nic.memif_id = 256: out of range; use 0 to 255"),
        (
            "channels",
            "units = 99999999999999999999",
            "channels.units = 99999999999999999999: not a whole number; use 16 to 65536",
        ),
        (
            "control",
            "mode = \"0888\"",
            "control.mode = \"0888\": not octal digits; use octal digits in quotes, \"0600\" to \"0777\"",
        ),
        (
            "control",
            "mode = \"1777\"",
            "control.mode = \"1777\": out of range; use octal digits in quotes, \"0600\" to \"0777\"",
        ),
        (
            "control",
            "owner = \"no such user\"",
            "control.owner = \"no such user\": unknown user; use the name of a user of this machine, or a number",
        ),
        (
            "control",
            "group = -1",
            "control.group = -1: out of range; use the name of a group of this machine, or a number",
        ),
        ("control", "socket = \"\"", "control.socket = \"\": empty; use some text"),
        ("control", "socket = 1", "control.socket = 1: not a text; put it into quotes"),
        ("channels", "units = 1000", "channels.units = 1000: not a power of two; use one from 16 to 65536"),
        ("timeouts", "no_progress_ms = 99", "timeouts.no_progress_ms = 99: out of range; use 100 to 600000"),
        ("timeouts", "dead_peer_ms = 1", "timeouts.dead_peer_ms = 1: out of range; use 10 to 600000"),
        (
            "log",
            "level = \"loud\"",
            "log.level = \"loud\": unknown level; use \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            "metrics",
            "listen = \"localhost:9464\"",
            "metrics.listen = \"localhost:9464\": not an address and a port; use a form such as \"127.0.0.1:9464\" or \"[::]:9464\"",
        ),
        (
            "metrics",
            "listen = \"127.0.0.1:0\"",
            "metrics.listen = \"127.0.0.1:0\": not an address and a port; use a form such as \"127.0.0.1:9464\" or \"[::]:9464\"",
        ),
        (
            "engine",
            "count = 1",
            "[engine]: unknown section; the sections are [host], [nic], [engines], [rss], [dpdk], [control], [channels], [timeouts], [log], [metrics]",
        ),
    ] {
        // A host section cannot be opened twice.
        let text = if section == "host" { format!("\n\n\n\n[host]\n{line}\n") } else { file(section, line) };
        let at = match () {
            () if section == "engine" => 5,
            () if section == "host" && line.contains('\n') => 7,
            () => 6,
        };
        let chooses = ["pci", "mac", "memif =", "vdev", "xdp"].iter().any(|key| line.starts_with(key));
        let link = if section == "nic" && chooses { "" } else { "--memif server:/path/sock" };
        assert_eq!(config(&text, link), Err(format!("machnetd.toml:{at}: {sentence}")), "{line}");
    }
}

#[test]
fn mistakes_outside_of_values_have_a_line_too() {
    for (text, sentence) in [
        (
            "\nengines = 3",
            "machnetd.toml:2: engines = 3: must be a section: a line [engines], then count, cores, idle, scheduler, exclusive, burst",
        ),
        (
            "x = 3",
            "machnetd.toml:1: x = 3: unknown key; the sections are [host], [nic], [engines], [rss], [dpdk], [control], [channels], [timeouts], [log], [metrics]",
        ),
        (
            "[host]\nip = ",
            "machnetd.toml:2: not valid TOML: string values must be quoted, expected literal string",
        ),
        (
            "[host]\nip = \"10.0.0.1/24\"\nip = \"10.0.0.2/24\"",
            "machnetd.toml:3: not valid TOML: duplicate key",
        ),
        ("", "host.ip is not set; give --ip ADDRESS/PREFIX, or ip in the section [host]"),
        (
            "host.ip = \"10.0.0.1/24\"",
            "no NIC is chosen; give one of --memif ROLE:SOCKET, --pci ADDRESS, --mac MAC, --vdev DEVICE or --xdp DEVICE, or its key in the section [nic]",
        ),
        (
            "[host]\nip = \"10.0.0.1/24\"\n[nic]\nvdev = \"net_null0\"\nmemif_id = 4",
            "machnetd.toml:5: nic.memif_id = 4: of use to a memif only, and the NIC is chosen by nic.vdev",
        ),
        (
            "[host]\nip = \"10.0.0.1/24\"\n[nic]\nvdev = \"net_null0\"\nxdp_mode = \"copy\"",
            "machnetd.toml:5: nic.xdp_mode = \"copy\": of use to AF_XDP only, and the NIC is chosen by nic.vdev",
        ),
        (
            "[host]\nip = \"10.0.0.1/24\"\n[nic]\nxdp = \"eth0\"\n[dpdk]\nhugepages = true",
            "machnetd.toml:6: dpdk.hugepages = true: of use to DPDK only, and the NIC is chosen by nic.xdp; leave it out",
        ),
        (
            "[engines]\ncores = [\n  0,\n  true,\n]\n[host]\nip = \"10.0.0.1/24\"",
            "machnetd.toml:2: engines.cores = [ 0, true, ]: true is not a core; use core numbers from 0 to 1023, such as [0, 1]",
        ),
    ] {
        let said = config(text, "").unwrap_err();
        // Most of them lack an address and a NIC as well.
        let lacks =
            |line: &&str| line.starts_with("host.ip is not set") || line.starts_with("no NIC is chosen");
        let said: Vec<&str> = said.lines().filter(|line| *line == sentence || !lacks(line)).collect();
        assert_eq!(said, [sentence], "{text:?}");
    }
    let long = format!("[host]\nip = \"{}\"", "x".repeat(100));
    assert!(config(&long, "").unwrap_err().contains("xxxxx...: not an IPv4"));
}

#[test]
fn all_mistakes_of_a_file_and_the_flags_are_told_in_the_order_of_the_file() {
    let file = "[engines]\nidle = \"fast\"\nspeed = 3\n[engin]\n[control]\nmode = 0660\nmax_channels = 0\n[nic]\nmtu = 1 2\nmemif_id = 999\nmemif = \"server:\"\n";
    assert_eq!(
        config(file, "--burst 99 --ip 10.0.0.1").unwrap_err().lines().collect::<Vec<_>>(),
        [
            "machnetd.toml:2: engines.idle = \"fast\": unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"",
            "machnetd.toml:3: engines.speed = 3: unknown key; [engines] has count, cores, idle, scheduler, exclusive, burst",
            "machnetd.toml:4: [engin]: unknown section; the sections are [host], [nic], [engines], [rss], [dpdk], [control], [channels], [timeouts], [log], [metrics]",
            "machnetd.toml:6: mode = 0660: in TOML no number begins with 0; write mode = \"0660\"",
            "machnetd.toml:7: control.max_channels = 0: out of range; use 1 to 65535",
            "machnetd.toml:9: not valid TOML: string values must be quoted, expected literal string",
            "machnetd.toml:10: nic.memif_id = 999: out of range; use 0 to 255",
            "machnetd.toml:11: nic.memif = \"server:\": no socket; use \"server:/path/of/socket\" or \"client:/path/of/socket\"",
            "--ip 10.0.0.1: no prefix length; use a form such as \"10.0.0.1/24\"",
            "--burst 99: out of range; use 1 to 32",
        ]
    );
    // With a line that is no TOML nobody knows what is missing.
    let said = config("[host]\nip\n", "").unwrap_err();
    assert!(said.starts_with("machnetd.toml:2: not valid TOML: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn flags_have_the_same_sentences_and_say_which_flag() {
    for (line, sentence) in [
        ("--idle fast", "--idle fast: unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\""),
        ("--engines two", "--engines two: not a whole number; use 1 to 64"),
        ("--cores 0,x", "--cores 0,x: \"x\" is not a core; use core numbers from 0 to 1023, such as [0, 1]"),
        ("--mode 0999", "--mode 0999: not octal digits; use octal digits in quotes, \"0600\" to \"0777\""),
        ("--exclusive yes", "--exclusive yes: not a truth value; use true or false"),
        (
            "--neighbor 10.0.0.2",
            "--neighbor 10.0.0.2: 10.0.0.2: not a MAC address; use a form such as \"02:00:00:00:00:01\"",
        ),
        ("--mtu", "--mtu: has no value; use --mtu BYTES"),
        ("--speed 3", "--speed: unknown flag; --help lists them"),
        ("--idel spin", "--idel: unknown flag; did you mean --idle? --help lists them"),
        ("--check=yes", "--check=yes: takes no value; use --check alone"),
        (
            "machnetd.toml",
            "machnetd.toml: unknown argument; a configuration file is given with --config machnetd.toml",
        ),
        (
            "--config /nowhere/x",
            "/nowhere/x: cannot read the configuration: No such file or directory (os error 2)",
        ),
        ("--ip 10.0.0.1", "--ip 10.0.0.1: no prefix length; use a form such as \"10.0.0.1/24\""),
    ] {
        let line = format!("{MINIMAL} {line}");
        assert_eq!(read_words(&line).unwrap_err(), sentence, "{line}");
    }
}

#[test]
fn flags_and_file_are_equal_and_flags_win() {
    let file = r#"
[host]
ip = "10.0.0.7/16"
gateway = "10.0.255.254"
neighbors = { "10.0.0.8" = "02:00:00:00:00:08", "10.0.0.9" = "02:00:00:00:00:09" }
[nic]
memif = "client:/path/link"
memif_id = 4
memif_peer_queues = 2
mtu = 9001
set_mac = "02:00:00:00:00:07"
descriptors = 512
checksum_offload = false
interrupts = false
[engines]
count = 2
cores = [3, 5]
idle = "block"
scheduler = "rr"
exclusive = false
burst = 4
[rss]
udp_ports = "40000-40999"
retry_ms = 25
reverse = "mirrored"
paper = false
[dpdk]
hugepages = true
memory_mib = 256
file_prefix = "seven"
extra_args = ["-v", "--log-level=8"]
[control]
socket = "/path/ctl"
owner = 7
group = 8
mode = "0600"
max_channels = 3
[channels]
units = 64
flows = 5
per_application = 6
[timeouts]
connect_ms = 100
dead_peer_ms = 300
no_progress_ms = 700
keepalive_ms = 0
linger_ms = 250
[log]
level = "trace"
stats_interval_s = 9
[metrics]
listen = "127.0.0.1:9464"
"#;
    let flags = "--ip 10.0.0.7/16 --gateway 10.0.255.254 --neighbor 10.0.0.8=02:00:00:00:00:08 \
        --neighbor 10.0.0.9=02:00:00:00:00:09 --memif client:/path/link --memif-id 4 --memif-peer-queues 2 --mtu 9001 \
        --set-mac 02:00:00:00:00:07 --descriptors 512 --checksum-offload false --interrupts false --engines 2 \
        --cores 3,5 --idle block --scheduler rr --exclusive false --burst 4 --udp-ports 40000-40999 \
        --rss-retry 25 --reverse mirrored --paper false --hugepages true --memory 256 --file-prefix seven \
        --dpdk-arg -v --dpdk-arg --log-level=8 --socket /path/ctl --owner 7 --group 8 --mode 0600 --max-channels 3 \
        --units 64 --flows 5 --channels-per-application 6 --connect-timeout 100 --dead-peer 300 --no-progress 700 --keepalive 0 --linger 250 --log trace --stats-interval 9 \
        --metrics 127.0.0.1:9464";
    let (from_file, from_flags) = (config(file, "").unwrap(), config("", flags).unwrap());
    assert_eq!(from_file, from_flags);
    assert_eq!(from_file.keepalive, None);
    let engine = from_file.engine([1, 2, 3]);
    assert_eq!((engine.udp_ports, engine.rss.search.retry), (40000..=40999, Nanos::millis(25)));
    assert_eq!(engine.flow.syn_retry, Nanos::millis(25), "silence is met after the same time");
    assert!(engine.rss.mirrored && !engine.rss.paper);
    assert!(config("", &format!("{MINIMAL} --paper true")).unwrap().engine([1, 2, 3]).rss.paper);
    for key in KEYS {
        let alternatives = ["pci", "mac", "vdev", "xdp", "xdp_mode"];
        assert!(
            alternatives.contains(&key.name) || flags.contains(key.flag),
            "{} is not in this test",
            key.flag
        );
    }
    assert_eq!(config(file, "--mtu 1400").unwrap().mtu, 1400);
    assert_eq!(config(file, "--neighbor 10.0.0.3=02:00:00:00:00:03").unwrap().neighbors.len(), 1);
}

#[test]
fn each_way_to_choose_a_nic_is_understood() {
    for (flag, device) in [
        ("--pci 3B:00.1", Device::Pci("0000:3b:00.1".into())),
        ("--mac 02:00:00:00:00:01", Device::Mac(Mac([2, 0, 0, 0, 0, 1]))),
        ("--vdev net_null0,copy=1", Device::Vdev("net_null0,copy=1".into())),
    ] {
        let c = config("", &format!("--ip 10.0.0.1/24 {flag}")).unwrap();
        assert_eq!(c.nic, ChosenNic::Dpdk(device));
        assert_eq!(matches!(c.memory, Memory::Huge { .. }), !flag.contains("vdev"), "{flag}");
    }
}

#[test]
fn a_device_of_the_kernels_is_used_in_the_way_that_is_asked_for() {
    for (flags, mode) in [
        ("--xdp eth0", XdpMode::Auto),
        ("--xdp eth0 --xdp-mode copy", XdpMode::Copy),
        ("--xdp eth0 --xdp-mode zero-copy", XdpMode::ZeroCopy),
    ] {
        let c = config("", &format!("--ip 10.0.0.1/24 {flags}")).unwrap();
        assert_eq!(c.nic, ChosenNic::Xdp(Xdp { interface: "eth0".into(), mode }));
    }
}

#[test]
fn cores_alone_say_how_many_engines() {
    let c = config("", &format!("{MINIMAL} --cores 1,2,3 --idle spin")).unwrap();
    assert_eq!((c.engines, c.exclusive, c.burst), (3, true, 16));
}

#[test]
fn engines_of_real_time_priority_block() {
    let waits = |flags| config("", &format!("{MINIMAL} {flags}")).map(|c| (c.idle, c.scheduler));
    assert_eq!(waits(""), Ok((Policy::Adaptive, Scheduler::Normal)));
    assert_eq!(waits("--scheduler rr"), Ok((Policy::Block, Scheduler::RoundRobin)));
    assert_eq!(waits("--scheduler rr --idle block"), waits("--scheduler rr"));
    assert_eq!(waits("--idle block"), Ok((Policy::Block, Scheduler::Normal)));
}

#[test]
fn help_names_every_setting_and_fits_a_page_width() {
    let Ok(Command::Print(help)) = read_words("--help") else { panic!("--help prints") };
    for key in KEYS {
        assert!(help.contains(&format!("  {} {}", key.flag, key.form)), "{}", key.flag);
        assert!(key.flag.len() + key.form.len() < 29, "{} runs into its help", key.flag);
    }
    for line in help.lines() {
        assert!(line.len() <= 110, "{line}");
    }
    assert!(
        matches!(read_words("--version"), Ok(Command::Print(v)) if v.starts_with("machnetd 0.") && v.contains(" (DPDK 2"))
    );
    assert!(matches!(read_words(&format!("{MINIMAL} --check")), Ok(Command::Check(_, None))));
}

#[test]
fn the_documentation_has_a_row_for_every_setting() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(page).expect("docs/configuration.md");
    let mut section = "";
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_start_matches("`[").trim_end_matches("]`");
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let name = row.split('`').next().unwrap_or_default();
        if section == "Reload" {
            continue; // a table of its own, see `reload`
        }
        assert!(
            KEYS.iter().any(|key| key.section == section && key.name == name),
            "the page has [{section}] {name}, the program has not"
        );
    }
    for key in KEYS {
        let row = format!("| `{}` | `{} {}` | {} |", key.name, key.flag, key.form, key.default);
        assert!(page.contains(&row), "the page lacks: {row}");
    }
}

#[test]
fn the_document_of_a_check_holds_what_the_settings_mean() {
    let args = ["--ip", "10.0.0.1/24", "--memif", "server:/run/l", "--engines", "2", "--check", "--json"];
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    assert!(args::wants_json(&args));
    let Ok(Command::Check(loaded, None)) = read(args) else { panic!("no check") };
    let document = crate::facts::checked(Some(&loaded.config), &[], &["a doubt".to_owned()]);
    let told: serde_json::Value = serde_json::from_str(&document).unwrap();
    let settings = &told["settings"];
    assert_eq!(settings["nic"], serde_json::json!(["memif", "/run/l"]));
    assert_eq!((&settings["engines"], &settings["memory_mib"]), (&2.into(), &96.into()));
    assert_eq!(settings["udp_ports"], serde_json::json!([31580, 32603]));
    assert_eq!(told["warnings"], serde_json::json!(["a doubt"]));
    let alone = read(["--json".to_owned()]).unwrap_err();
    assert_eq!(alone[0].text, "--json: of use with --check only; give both");
}
