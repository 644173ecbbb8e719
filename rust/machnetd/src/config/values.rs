//! From what was written to what it means. Every function answers with the reason only; the caller puts the place, the
//! key and the value before it.

use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use log::LevelFilter;
use machnet_engine::idle::Policy;
use machnet_nic::MemifRole;
use machnet_nic::xdp::XdpMode;
use machnet_wire::Mac;
use toml::Value;

use crate::scheduling::Scheduler;

/// A value or the reason against it.
pub type Reasoned<T> = Result<T, String>;

/// A whole number within the range.
pub fn number(value: &Value, range: RangeInclusive<i64>) -> Reasoned<i64> {
    match value.as_integer() {
        Some(n) if range.contains(&n) => Ok(n),
        Some(_) => Err(format!("out of range; use {} to {}", range.start(), range.end())),
        None => Err(format!("not a whole number; use {} to {}", range.start(), range.end())),
    }
}

/// A power of two within the range.
pub fn power_of_two(value: &Value, range: RangeInclusive<i64>) -> Reasoned<i64> {
    let n = number(value, range.clone())?;
    if n.count_ones() == 1 {
        Ok(n)
    } else {
        Err(format!("not a power of two; use one from {} to {}", range.start(), range.end()))
    }
}

/// `true` or `false`.
pub fn switch(value: &Value) -> Reasoned<bool> {
    value.as_bool().ok_or_else(|| "not a truth value; use true or false".to_owned())
}

/// Text that is not empty.
pub fn text(value: &Value) -> Reasoned<String> {
    match value.as_str() {
        Some("") => Err("empty; use some text".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err("not a text; put it into quotes".to_owned()),
    }
}

/// An address of one host.
pub fn address(value: &Value) -> Reasoned<Ipv4Addr> {
    host_address(value.as_str().unwrap_or_default())
        .ok_or_else(|| "not the IPv4 address of a host; use a form such as \"10.0.0.1\"".to_owned())
}

/// An address of one host and the length of its subnet's prefix.
pub fn address_with_prefix(value: &Value) -> Reasoned<(Ipv4Addr, u8)> {
    let text = value.as_str().unwrap_or_default();
    let form = "use a form such as \"10.0.0.1/24\"";
    let Some((ip, prefix)) = text.split_once('/') else {
        return Err(match host_address(text) {
            Some(_) => format!("no prefix length; {form}"),
            None => format!("not an IPv4 address with a prefix length; {form}"),
        });
    };
    let ip = host_address(ip).ok_or_else(|| format!("not the IPv4 address of a host; {form}"))?;
    match prefix.parse::<u8>() {
        Ok(prefix @ 1..=32) => Ok((ip, prefix)),
        _ => Err("the prefix length is out of range; use 1 to 32".to_owned()),
    }
}

fn host_address(text: &str) -> Option<Ipv4Addr> {
    let ip: Ipv4Addr = text.parse().ok()?;
    (!ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()).then_some(ip)
}

/// The MAC address of one station.
pub fn mac(value: &Value) -> Reasoned<Mac> {
    let form = "use a form such as \"02:00:00:00:00:01\"";
    match value.as_str().and_then(|text| text.parse::<Mac>().ok()) {
        Some(mac) if mac.is_multicast() => Err(format!("the address of a group; {form}")),
        Some(mac) if mac.0 == [0; 6] => Err(format!("the address of no station; {form}")),
        Some(mac) => Ok(mac),
        None => Err(format!("not a MAC address; {form}")),
    }
}

/// Addresses with their MAC addresses.
pub fn neighbors(value: &Value) -> Reasoned<Vec<(Ipv4Addr, Mac)>> {
    let Some(table) = value.as_table() else {
        return Err("not a table; use a form such as { \"10.0.0.2\" = \"02:00:00:00:00:02\" }".to_owned());
    };
    let pair = |(ip, to): (&String, &Value)| {
        let ip = host_address(ip).ok_or_else(|| {
            format!("{ip:?} is not the IPv4 address of a host; use a form such as \"10.0.0.2\"")
        })?;
        Ok((ip, mac(to).map_err(|reason| format!("{ip}: {reason}"))?))
    };
    table.iter().map(pair).collect()
}

/// A PCI address, with or without its domain.
pub fn pci(value: &Value) -> Reasoned<String> {
    let text = value.as_str().unwrap_or_default();
    let full = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
    let digits =
        |part: &str, width: usize| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = full.split([':', '.']).collect();
    match parts[..] {
        [domain, bus, device, function]
            if digits(domain, 4)
                && digits(bus, 2)
                && digits(device, 2)
                && digits(function, 1)
                && full.as_bytes()[10] == b'.' =>
        {
            Ok(full.to_ascii_lowercase())
        }
        _ => Err("not a PCI address; use a form such as \"0000:00:05.0\"".to_owned()),
    }
}

/// `server:/path` or `client:/path`.
pub fn memif(value: &Value) -> Reasoned<(MemifRole, PathBuf)> {
    let form = "use \"server:/path/of/socket\" or \"client:/path/of/socket\"";
    let Some((role, path)) = value.as_str().and_then(|text| text.split_once(':')) else {
        return Err(format!("not a role and a socket; {form}"));
    };
    let role = match role {
        "server" => MemifRole::Server,
        "client" => MemifRole::Client,
        _ => return Err(format!("unknown role {role:?}; {form}")),
    };
    if path.is_empty() {
        return Err(format!("no socket; {form}"));
    }
    // An abstract name has no file and no limit but the same one.
    if path.len() > SOCKET_PATH {
        return Err(format!("the socket's path has {} bytes; use at most {SOCKET_PATH}", path.len()));
    }
    Ok((role, PathBuf::from(path)))
}

/// The path of the control socket.
pub fn socket(value: &Value) -> Reasoned<PathBuf> {
    let path = text(value)?;
    if path.len() > CONTROL_PATH {
        return Err(format!("the path has {} bytes; use at most {CONTROL_PATH}", path.len()));
    }
    if path.ends_with('/') {
        return Err("the path of a folder; use that of a socket".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// The cores of the engines.
pub fn cores(value: &Value) -> Reasoned<Vec<usize>> {
    let form = format!("use core numbers from 0 to {LAST_CORE}, such as [0, 1]");
    let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
        return Err(format!("not a list of cores; {form}"));
    };
    let mut cores = Vec::new();
    for core in list {
        match core.as_integer() {
            Some(n @ 0..=LAST_CORE) if cores.contains(&(n as usize)) => {
                return Err(format!("core {n} is named twice; each engine needs one of its own"));
            }
            Some(n @ 0..=LAST_CORE) => cores.push(n as usize),
            _ => return Err(format!("{core} is not a core; {form}")),
        }
    }
    Ok(cores)
}

/// How engines wait.
pub fn policy(value: &Value) -> Reasoned<Policy> {
    match value.as_str() {
        Some("spin") => Ok(Policy::Spin),
        Some("yield") => Ok(Policy::Yield),
        Some("adaptive") => Ok(Policy::Adaptive),
        Some("block") => Ok(Policy::Block),
        _ => Err("unknown policy; use \"spin\", \"yield\", \"adaptive\" or \"block\"".to_owned()),
    }
}

/// How the kernel schedules engines.
pub fn scheduler(value: &Value) -> Reasoned<Scheduler> {
    match value.as_str() {
        Some("normal") => Ok(Scheduler::Normal),
        Some("rr") => Ok(Scheduler::RoundRobin),
        _ => Err("unknown scheduler; use \"normal\" or \"rr\"".to_owned()),
    }
}

/// The name of a network device of the kernel's.
pub fn interface(value: &Value) -> Reasoned<String> {
    match value.as_str() {
        Some(name)
            if (1..16).contains(&name.len()) && !name.contains(|c: char| c == '/' || c.is_whitespace()) =>
        {
            Ok(name.to_owned())
        }
        _ => {
            Err("not the name of a network device, which has 1 to 15 bytes; `ip link` lists them".to_owned())
        }
    }
}

/// How AF_XDP is to reach its device.
pub fn xdp_mode(value: &Value) -> Reasoned<XdpMode> {
    match value.as_str() {
        Some("auto") => Ok(XdpMode::Auto),
        Some("zero-copy") => Ok(XdpMode::ZeroCopy),
        Some("copy") => Ok(XdpMode::Copy),
        _ => Err("unknown mode; use \"auto\", \"zero-copy\" or \"copy\"".to_owned()),
    }
}

/// A range of ports, `first-last`.
pub fn ports(value: &Value) -> Reasoned<RangeInclusive<u16>> {
    let form = "use a form such as \"31580-32603\"";
    let Some((first, last)) = value.as_str().and_then(|text| text.split_once('-')) else {
        return Err(format!("not a range of ports; {form}"));
    };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        return Err(format!("not two ports from 1 to 65535; {form}"));
    };
    if first > last {
        return Err(format!("the first port is above the last; {form}"));
    }
    let count = u32::from(last - first) + 1;
    if count < PORTS_MIN {
        return Err(format!(
            "only {count} ports, too few to reach every queue of a NIC; use {PORTS_MIN} or more"
        ));
    }
    Ok(first..=last)
}

/// Whether answers come on the mirrors of our pairs.
pub fn reverse(value: &Value) -> Reasoned<bool> {
    match value.as_str() {
        Some("own") => Ok(false),
        Some("mirrored") => Ok(true),
        _ => Err("unknown form; use \"own\" or \"mirrored\"".to_owned()),
    }
}

/// Where somebody listens.
pub fn listener(value: &Value) -> Reasoned<SocketAddr> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .filter(|address: &SocketAddr| address.port() > 0)
        .ok_or_else(|| {
            "not an address and a port; use a form such as \"127.0.0.1:9464\" or \"[::]:9464\"".to_owned()
        })
}

/// How much is logged.
pub fn level(value: &Value) -> Reasoned<LevelFilter> {
    match value.as_str() {
        Some("off") => Ok(LevelFilter::Off),
        Some("error") => Ok(LevelFilter::Error),
        Some("warn") => Ok(LevelFilter::Warn),
        Some("info") => Ok(LevelFilter::Info),
        Some("debug") => Ok(LevelFilter::Debug),
        Some("trace") => Ok(LevelFilter::Trace),
        _ => {
            Err("unknown level; use \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\""
                .to_owned())
        }
    }
}

/// Permissions in octal digits. Text only: in TOML `mode = 660` would be another number.
pub fn mode(value: &Value) -> Reasoned<u32> {
    let form = "use octal digits in quotes, \"0600\" to \"0777\"";
    let Some(text) = value.as_str() else {
        // The digits that were meant, or, of `0o660`, the number.
        let digits = value.as_integer().map(|n| [n.to_string(), format!("{n:o}")]).unwrap_or_default();
        let meant = digits
            .iter()
            .find(|digits| u32::from_str_radix(digits, 8).is_ok_and(|mode| (0o600..=0o777).contains(&mode)));
        return Err(match meant {
            Some(digits) => format!("not a text; write mode = \"0{digits}\""),
            None => format!("not a text; {form}"),
        });
    };
    match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
        Ok(mode @ 0o600..=0o777) => Ok(mode),
        Ok(_) => Err(format!("out of range; {form}")),
        Err(_) => Err(format!("not octal digits; {form}")),
    }
}

/// A file prefix as DPDK takes it.
pub fn file_prefix(value: &Value) -> Reasoned<String> {
    let prefix = text(value)?;
    if prefix.len() <= 64 && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        Ok(prefix)
    } else {
        Err("not a file prefix; use 1 to 64 letters, digits, '-', '_' or '.'".to_owned())
    }
}

/// A list of texts.
pub fn words(value: &Value) -> Reasoned<Vec<String>> {
    let bad = || "not a list of texts; use a form such as [\"--log-level=pmd:8\"]".to_owned();
    value.as_array().ok_or_else(bad)?.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(bad)).collect()
}

/// A user by name or number.
pub fn user(value: &Value) -> Reasoned<u32> {
    account(value, "user", |name| {
        let (mut entry, mut found) = (std::mem::MaybeUninit::uninit(), std::ptr::null_mut());
        let mut room = [0; ACCOUNT];
        // SAFETY: all four pointers are to live variables; `room` is as long as told.
        unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &mut found)
        };
        // SAFETY: when set, `found` points at `entry`, which the call has filled in.
        (!found.is_null()).then(|| unsafe { entry.assume_init().pw_uid })
    })
}

/// A group by name or number.
pub fn group(value: &Value) -> Reasoned<u32> {
    account(value, "group", |name| {
        let (mut entry, mut found) = (std::mem::MaybeUninit::uninit(), std::ptr::null_mut());
        let mut room = [0; ACCOUNT];
        // SAFETY: all four pointers are to live variables; `room` is as long as told.
        unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &mut found)
        };
        // SAFETY: when set, `found` points at `entry`, which the call has filled in.
        (!found.is_null()).then(|| unsafe { entry.assume_init().gr_gid })
    })
}

fn account(value: &Value, what: &str, find: impl Fn(CString) -> Option<u32>) -> Reasoned<u32> {
    let form = format!("use the name of a {what} of this machine, or a number");
    match value {
        Value::Integer(n) => u32::try_from(*n).map_err(|_| format!("out of range; {form}")),
        Value::String(name) => match name.parse() {
            Ok(id) => Ok(id),
            Err(_) => CString::new(name.as_str())
                .ok()
                .and_then(find)
                .ok_or_else(|| format!("unknown {what}; {form}")),
        },
        _ => Err(format!("not a {what}; {form}")),
    }
}

/// Pairs of so many ports reach every queue of a NIC: 256 of them for the 64 queues that there may be.
const PORTS_MIN: u32 = 16;
/// The longest path of a Unix socket, bytes (unix(7): 108 with the closing zero).
const SOCKET_PATH: usize = 107;
/// The control socket is made under a name of its own first, which must fit as well.
const CONTROL_PATH: usize = SOCKET_PATH - 12;
/// The last core that fits a CPU set.
const LAST_CORE: i64 = libc::CPU_SETSIZE as i64 - 1;
/// Room for an entry of the user or group table; a larger group is found by number.
const ACCOUNT: usize = 16 * 1024;
