//! What the sidecar tells the service manager that started it (sd_notify(3)): that it is ready, that it reads its settings again, that it
//! ends, how it is, and, as long as all engines are alive, that it need not be restarted.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use machnet_wire::Nanos;

/// The way to the service manager; without one, nobody is told anything.
#[derive(Default)]
pub struct Notify {
    manager: Option<Manager>,
}

struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often it wants to hear that we are alive.
    watchdog: Option<Duration>,
    /// When to tell it next.
    due: Instant,
    status: String,
}

impl Notify {
    /// As the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` where that is for this process.
    pub fn from_environment() -> Notify {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Notify::default() };
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| ours && usec > 0).map(Duration::from_micros);
        match Manager::new(&name, watchdog) {
            Ok(manager) => Notify { manager: Some(manager) },
            Err(error) => {
                log::warn!("NOTIFY_SOCKET={}: {error}; the service manager is told nothing", name.display());
                Notify::default()
            }
        }
    }

    /// Applications can attach.
    pub fn ready(&mut self) {
        self.send("READY=1");
    }

    /// Settings are read again, since `now`; [`Notify::ready`] follows.
    pub fn reloading(&mut self, now: Nanos) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.0 / 1000));
    }

    /// The end begins.
    pub fn stopping(&mut self) {
        self.send("STOPPING=1");
    }

    /// When to call [`Notify::keep_time`].
    pub fn due(&self) -> Option<Instant> {
        self.manager.as_ref().map(|manager| manager.due)
    }

    /// Where it is time to, says how the sidecar is, and that it is alive if that is so. `health` tells both.
    pub fn keep_time(&mut self, now: Instant, health: impl FnOnce() -> (bool, String)) {
        let Some(manager) = self.manager.as_mut().filter(|manager| manager.due <= now) else { return };
        // Thrice within what the watchdog allows, so that one that was late kills nobody.
        manager.due = now + manager.watchdog.map_or(LOOK, |longest| (longest / 3).min(LOOK));
        let (alive, status) = health();
        let (news, watched) = (status != manager.status, manager.watchdog.is_some());
        manager.status.clone_from(&status);
        if news {
            self.send(&format!("STATUS={status}"));
        }
        if watched && alive {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some(Manager { socket, address, .. }) = &self.manager {
            // A manager that is away, or has no room, is no reason to wait: it learns of the next.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

impl Manager {
    fn new(name: &OsString, watchdog: Option<Duration>) -> std::io::Result<Manager> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Manager { socket, address, watchdog, due: Instant::now(), status: String::new() })
    }
}

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(1);
