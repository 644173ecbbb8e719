//! The thread that watches a device: the kernel tells of every change, and this thread looks what has become of ours.

use super::error::XdpError;
use super::examine;
use super::port::{Device, Handed, Lost, Shared, UP};
use super::sys;
use crate::kernel;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Starts it. It ends when the other end of `stopped` is closed.
pub(super) fn start(shared: Arc<Shared>, stopped: PipeReader) -> io::Result<JoinHandle<()>> {
    let events = sys::link_events()?;
    std::thread::Builder::new().name("xdp".to_owned()).spawn(move || {
        let mut watch = Watch { shared, bells: Vec::new(), refused: String::new() };
        loop {
            // What came before the socket was there is seen by the first look. A device that is back is tried again without news, too:
            // who sets it up may do that in steps.
            watch.look();
            let patience = if watch.bells.is_empty() { -1 } else { 1000 };
            let [news, stop] = sys::wait([events.as_fd(), stopped.as_fd()], patience);
            if stop {
                break;
            }
            if news {
                sys::drain(&events);
            }
        }
    })
}

struct Watch {
    shared: Arc<Shared>,
    /// While the device is gone: closed, they wake the queues.
    bells: Vec<PipeWriter>,
    /// Why the device that is back was not taken, so that it is said once.
    refused: String,
}

impl Watch {
    fn look(&mut self) {
        let name = self.shared.asked.interface.clone();
        let found = kernel::look(&name).ok();
        let on = self.shared.device().on.as_ref().map(|(index, _)| *index);
        match (found, on) {
            (Some(device), Some(on)) if device.index == on => self.link(&name, device.running),
            (_, Some(_)) => {
                self.gone(&name);
                if found.is_some() {
                    self.back(&name);
                }
            }
            (Some(_), None) => self.back(&name),
            (None, None) => {}
        }
    }

    fn link(&self, name: &str, up: bool) {
        let shared = &self.shared;
        if (shared.word.load(Ordering::Relaxed) & UP != 0) == up {
            return;
        }
        log::warn!("{name}: the link is {}", if up { "up" } else { "down; what is to be sent is dropped" });
        add(if up { &shared.ups } else { &shared.downs });
        // This thread alone writes the word.
        shared.word.fetch_xor(UP, Ordering::Release);
    }

    fn gone(&mut self, name: &str) {
        let shared = &self.shared;
        add(&shared.removals);
        if shared.word.load(Ordering::Relaxed) & UP != 0 {
            add(&shared.downs);
        }
        log::warn!("{name}: the device is gone; connections wait for it to come back, as long as they live");
        let Device { on, sockets, past } = &mut *shared.device();
        *on = None;
        *past = past.and(Lost::of(sockets));
        sockets.clear();
        let pipes = shared.lanes.iter().map(|_| io::pipe()).collect::<io::Result<Vec<_>>>();
        match pipes {
            Ok(pipes) => {
                let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
                self.bells = writers;
                shared.hand(readers.into_iter().map(Handed::Gone), false);
            }
            Err(error) => log::error!("{name}: tell its queues: {error}"),
        }
    }

    fn back(&mut self, name: &str) {
        let shared = Arc::clone(&self.shared);
        let size = (shared.config.queues, shared.config.descriptors);
        let attached = examine::fits(&shared.asked, &shared.config).and_then(|device| {
            if device.mac != shared.mac {
                return Err(XdpError::Config(format!(
                    "its MAC address is {} and was {}, by which peers know this host; give it that (ip link set dev {name} address {}), or start machnetd again",
                    device.mac, shared.mac, shared.mac
                )));
            }
            Ok((device, shared.filter.attach(name, &device, size, shared.asked.mode)?))
        });
        let (device, attached) = match attached {
            Ok(both) => both,
            Err(error) => {
                let said = error.to_string();
                if self.refused != said {
                    log::warn!("{name}: it is back, and cannot be used yet: {said}");
                    self.refused = said;
                }
                return;
            }
        };
        self.refused.clear();
        attached.tell(name);
        shared.set_way(attached.way);
        {
            let mut known = shared.device();
            known.sockets = attached.sockets.iter().map(|socket| Arc::clone(socket.fd())).collect();
            known.on = Some((device.index, attached.link));
        }
        add(&shared.returns);
        if device.running {
            add(&shared.ups);
        }
        log::warn!("{name}: the device is back");
        let sockets = attached.sockets.into_iter().map(|socket| Handed::Socket(Box::new(socket)));
        shared.hand(sockets, device.running);
        self.bells.clear();
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
