//! Those who ask something at the control socket instead of attaching: one question each, one JSON document for an answer (docs/control.md).
//!
//! The control thread waits for none of them. What engines know comes in parts; what the socket has no room for waits until it has, and who
//! does not read is cut off.

mod document;
mod request;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use log::LevelFilter;
use machnet_host::{Host, Part};
use serde::Serialize;

pub use request::LONGEST;

use crate::config::Config;
use crate::facts::About;
use crate::socket::Credentials;
use crate::stats::Stats;
use document::{Document, whole};
use request::Request;

/// All who have asked and not been answered in full.
#[derive(Default)]
pub struct Queries {
    /// By their descriptors, which are unique while they are open.
    askers: HashMap<RawFd, Asker>,
}

/// What answers are made of, and what orders change.
pub struct Reach<'a, Q> {
    /// Engines and channels.
    pub host: &'a mut Host<Q>,
    /// Counters.
    pub stats: &'a Stats,
    /// Settings, of which an order may change how much is logged.
    pub config: &'a mut Config,
}

struct Asker {
    socket: OwnedFd,
    who: Credentials,
    /// Since when the present step takes.
    since: Instant,
    step: Step,
}

/// How far an answer is.
enum Step {
    /// Engines are at work on the question with this number.
    Asked(u64, Document),
    /// It is whole; so many of its bytes are sent.
    Sending(Vec<u8>, usize),
}

/// An answer, or the number of the question to the engines whose answer is to be awaited.
enum Answered {
    Now(Vec<u8>),
    Later(u64, Document),
}

impl Queries {
    /// Answers a question, or begins to.
    pub fn ask<Q>(&mut self, socket: OwnedFd, who: Credentials, packet: &[u8], reach: Reach<'_, Q>) {
        let step = match self.admit(who).and_then(|()| Request::read(packet)) {
            Ok(request) => match answer(request, who, reach) {
                Ok(Answered::Now(bytes)) => Step::Sending(bytes, 0),
                Ok(Answered::Later(number, document)) => Step::Asked(number, document),
                Err(error) => Step::Sending(document::failure(request.name(), error), 0),
            },
            Err(refusal) => Step::Sending(document::refusal(&refusal), 0),
        };
        self.go_on(Asker { socket, who, since: Instant::now(), step });
    }

    /// Whether one more may ask. A place is always left for those who run the machine.
    fn admit(&self, who: Credentials) -> Result<(), request::Refusal> {
        let of_user = self.askers.values().filter(|asker| asker.who.uid == who.uid).count();
        let (all, user) = if may_order(who) { (MOST, MOST) } else { (MOST_OF_OTHERS, MOST_OF_USER) };
        if self.askers.len() < all && of_user < user {
            return Ok(());
        }
        let error =
            format!("{} questions are being answered, {of_user} of this user; ask again", self.askers.len());
        Err(request::Refusal { query: None, error })
    }

    /// Engines have answered a part.
    pub fn take(&mut self, part: &Part) {
        let asked = |asker: &Asker| matches!(asker.step, Step::Asked(number, _) if number == part.question);
        let Some(fd) = self.askers.iter().find_map(|(fd, asker)| asked(asker).then_some(*fd)) else { return };
        let Some(mut asker) = self.askers.remove(&fd) else { return };
        if let Step::Asked(_, document) = &mut asker.step {
            document.add(&part.rows);
        }
        if part.last
            && let Step::Asked(_, document) = asker.step
        {
            asker.step = Step::Sending(document.end(), 0);
            asker.since = Instant::now();
        }
        self.go_on(asker);
    }

    /// Those to be polled for room to send.
    pub fn sending(&self) -> impl Iterator<Item = RawFd> {
        self.askers
            .values()
            .filter(|asker| matches!(asker.step, Step::Sending(..)))
            .map(|a| a.socket.as_raw_fd())
    }

    /// There is room to send.
    pub fn look_at(&mut self, fd: RawFd) {
        if let Some(asker) = self.askers.remove(&fd) {
            self.go_on(asker);
        }
    }

    /// When to call [`Queries::keep_time`].
    pub fn due(&self) -> Option<Instant> {
        self.askers.values().map(|asker| asker.since + PATIENCE).min()
    }

    /// Cuts off those who take too long.
    pub fn keep_time(&mut self, now: Instant) {
        let late: Vec<_> = self.askers.extract_if(|_, asker| asker.since + PATIENCE <= now).collect();
        for (_, mut asker) in late {
            match &asker.step {
                Step::Asked(_, document) => {
                    let error = format!("the engines did not answer within {PATIENCE:?}; see the log");
                    asker.step = Step::Sending(document::failure(document.query(), error), 0);
                    asker.since = now;
                    self.go_on(asker);
                }
                Step::Sending(bytes, sent) => log::warn!(
                    "process {} (user {}): read {sent} of the {} bytes of an answer within {PATIENCE:?}; cut off",
                    asker.who.pid,
                    asker.who.uid,
                    bytes.len()
                ),
            }
        }
    }

    /// Sends what there is and the socket takes; keeps who is not done.
    fn go_on(&mut self, mut asker: Asker) {
        let fd = asker.socket.as_raw_fd();
        if let Step::Sending(bytes, sent) = &mut asker.step {
            while *sent < bytes.len() {
                let packet = &bytes[*sent..bytes.len().min(*sent + PACKET)];
                match send(fd, packet) {
                    Ok(()) => *sent += packet.len(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // It is gone, and nobody misses the answer.
                    Err(_) => return,
                }
            }
            if *sent == bytes.len() {
                return;
            }
        }
        self.askers.insert(fd, asker);
    }
}

fn answer<Q>(request: Request, who: Credentials, reach: Reach<'_, Q>) -> Result<Answered, String> {
    let Reach { host, stats, config } = reach;
    if request.is_order() && !may_order(who) {
        return Err(format!(
            "user {} may not order this; root and machnetd's own user ({}) may",
            who.uid,
            own_user()
        ));
    }
    let name = request.name();
    let done = match request {
        Request::Stats => document::stats(stats),
        Request::About => whole(name, About::new(config, stats.port.driver(), host.nic())),
        Request::Health => document::health(stats),
        Request::Ask(question) => {
            let number = host.ask(question).map_err(|refused| refused.to_string())?;
            return Ok(Answered::Later(number, Document::new(name)));
        }
        Request::Drain(channel) => {
            if !host.drain(channel) {
                return Err(format!("there is no channel {channel}; \"channels\" lists those there are"));
            }
            log::info!("channel {channel}: to be drained, by process {} (user {})", who.pid, who.uid);
            whole(name, Drained { channel })
        }
        Request::Log(new) => {
            // Told at the more talkative level of the two.
            log::set_max_level(new.max(config.log));
            log::info!("level {} from now on, by process {} (user {})", lower(new), who.pid, who.uid);
            log::set_max_level(new);
            config.log = new;
            whole(name, Logged { level: lower(new) })
        }
    };
    Ok(Answered::Now(done))
}

#[derive(Serialize)]
struct Drained {
    channel: u64,
}

#[derive(Serialize)]
struct Logged {
    level: String,
}

fn lower(level: LevelFilter) -> String {
    level.as_str().to_ascii_lowercase()
}

/// Whether somebody may change what the sidecar does for others.
fn may_order(who: Credentials) -> bool {
    who.uid == 0 || who.uid == own_user()
}

fn own_user() -> u32 {
    // SAFETY: no arguments, and it cannot fail.
    unsafe { libc::geteuid() }
}

/// Sends one packet whole, or not at all.
fn send(fd: RawFd, packet: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `packet` is readable for its length.
    match unsafe { libc::send(fd, packet.as_ptr().cast(), packet.len(), flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Bytes of an answer in one packet.
const PACKET: usize = 32 << 10;
/// Questions at once, those of others than root and machnetd's user, and those of one such user.
const MOST: usize = 16;
const MOST_OF_OTHERS: usize = 12;
const MOST_OF_USER: usize = 4;
/// For engines to answer, and then for the reader to read.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn user(uid: u32) -> Credentials {
        Credentials { pid: 1, uid, gid: uid }
    }

    #[test]
    fn users_share_the_places_and_one_is_left_for_those_who_run_the_machine() {
        let mut queries = Queries::default();
        let mut far = Vec::new();
        let mut ask = |queries: &mut Queries, uid| {
            let admitted = queries.admit(user(uid));
            if admitted.is_ok() {
                let (near, other) = UnixStream::pair().expect("a pair");
                far.push(other);
                let step = Step::Asked(0, Document::new("channels"));
                let asker = Asker { socket: near.into(), who: user(uid), since: Instant::now(), step };
                queries.askers.insert(asker.socket.as_raw_fd(), asker);
            }
            admitted.map_err(|refusal| refusal.error)
        };
        let others = [own_user() + 1, own_user() + 2, own_user() + 3, own_user() + 4];
        for uid in &others[..3] {
            (0..MOST_OF_USER).for_each(|_| ask(&mut queries, *uid).expect("room"));
            let refused = ask(&mut queries, *uid).unwrap_err();
            assert!(refused.contains(", 4 of this user; ask again"), "{refused}");
        }
        let refused = ask(&mut queries, others[3]).unwrap_err();
        assert_eq!(refused, "12 questions are being answered, 0 of this user; ask again");
        (0..MOST - MOST_OF_OTHERS).for_each(|_| ask(&mut queries, own_user()).expect("room"));
        assert!(ask(&mut queries, own_user()).is_err());
    }
}
