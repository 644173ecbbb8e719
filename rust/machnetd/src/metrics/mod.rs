//! `/metrics` for Prometheus: a listener with a thread of its own, which reads what engines have counted and asks nobody. Whoever connects
//! may be slow, silent, many or send without end: each costs a bounded buffer for a bounded time, and the oldest gives way to the next.

#[cfg(test)]
mod documentation;
mod http;
mod text;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use machnet_engine::Shared;
use machnet_nic::Port;

use http::Request;

/// The listener and its thread, which end when this is dropped.
pub struct Metrics {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// Whether this machine lets us listen there. One who listens there already may be this sidecar, about to be reloaded.
pub fn try_listen(address: SocketAddr) -> Result<(), String> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => Err(format!(
            "listen: {error}; use an address and a port that this machine has for us, or leave it out"
        )),
        _ => Ok(()),
    }
}

/// What is shown.
pub struct Subject {
    /// Counters of engines.
    pub shared: Arc<Shared>,
    /// Counters of the NIC.
    pub port: Arc<dyn Port>,
}

impl Metrics {
    /// Listens, and serves from a thread of its own, which runs on the cores of the caller's.
    ///
    /// # Errors
    /// The address cannot be had, or there is no thread.
    pub fn start(address: SocketAddr, subject: Subject) -> Result<Metrics, String> {
        let failed = |step: &'static str| {
            move |error: io::Error| {
                format!(
                    "metrics.listen = \"{address}\": {step}: {error}; choose another address, or leave it out"
                )
            }
        };
        let listener = TcpListener::bind(address).map_err(failed("listen"))?;
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        let (stop, stopped) = UnixStream::pair().map_err(failed("make a pair of sockets"))?;
        let address = listener.local_addr().map_err(failed("listen"))?;
        let begun =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let page = Page { subject, begun, text: String::new(), made: None };
        let server = Server { listener, stopped, clients: Vec::new(), page };
        let body = move || server.run();
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(body)
            .map_err(failed("start its thread"))?;
        log::info!("metrics: http://{address}/metrics");
        Ok(Metrics { stop, thread: Some(thread) })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        let _ = self.stop.write(&[1]);
        if let Some(thread) = self.thread.take() {
            // It waits for nobody, so it ends at once; a panic would have ended the process.
            let _ = thread.join();
        }
    }
}

struct Server {
    listener: TcpListener,
    /// Readable when the thread is to end.
    stopped: UnixStream,
    /// Oldest first.
    clients: Vec<Client>,
    page: Page,
}

/// The page, kept for a moment: however often it is asked for, engines' counters are read ten times a second at most.
struct Page {
    subject: Subject,
    begun: f64,
    text: String,
    made: Option<Instant>,
}

struct Client {
    socket: TcpStream,
    since: Instant,
    stage: Stage,
}

/// How far a client is.
enum Stage {
    /// What it has sent of its request.
    Reading(Vec<u8>),
    /// The answer, and how much of it is sent.
    Writing(Vec<u8>, usize),
    /// It has its answer; what it still sends is thrown away, for a socket that closes over unread bytes takes back what it has sent.
    Ending {
        /// How many more such bytes are taken.
        left: usize,
    },
}

impl Server {
    fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            self.wait(&mut ready);
            let [stop, accept] =
                [self.stopped.as_raw_fd(), self.listener.as_raw_fd()].map(|fd| ready.contains(&fd));
            if stop {
                return;
            }
            let now = Instant::now();
            let page = &mut self.page;
            self.clients.retain_mut(|client| {
                let spoke = ready.contains(&client.socket.as_raw_fd());
                client.since + PATIENCE > now && (!spoke || client.go_on(page, now))
            });
            if accept {
                self.accept();
            }
        }
    }

    /// Sleeps until something happens; tells which descriptors are ready.
    fn wait(&self, ready: &mut Vec<RawFd>) {
        let own = [&self.stopped as &dyn AsRawFd, &self.listener].map(|fd| (fd.as_raw_fd(), libc::POLLIN));
        let clients = self.clients.iter().map(|client| {
            let events =
                if matches!(client.stage, Stage::Writing(..)) { libc::POLLOUT } else { libc::POLLIN };
            (client.socket.as_raw_fd(), events)
        });
        let entry = |(fd, events)| libc::pollfd { fd, events, revents: 0 };
        let mut fds: Vec<_> = own.into_iter().chain(clients).map(entry).collect();
        let first = self
            .clients
            .first()
            .map(|client| (client.since + PATIENCE).saturating_duration_since(Instant::now()));
        let millis = first.map_or(-1, |wait| wait.as_millis() as libc::c_int + 1);
        // SAFETY: `fds` holds as many entries as told. After an error, a signal's, nothing is ready.
        let answer = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        ready.clear();
        if answer > 0 {
            ready.extend(fds.iter().filter(|entry| entry.revents != 0).map(|entry| entry.fd));
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if socket.set_nonblocking(true).is_err() {
                        continue;
                    }
                    if self.clients.len() >= MOST {
                        self.clients.remove(0);
                    }
                    self.clients.push(Client {
                        socket,
                        since: Instant::now(),
                        stage: Stage::Reading(Vec::new()),
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    // Of descriptors there are none left, most likely: those of the oldest clients come back first.
                    log::warn!("metrics: accept a client: {error}");
                    self.clients.drain(..self.clients.len().min(ACCEPTS));
                    std::thread::sleep(PAUSE);
                    return;
                }
            }
        }
    }
}

impl Client {
    /// Reads or writes what there is; false: it is done, or gone.
    fn go_on(&mut self, page: &mut Page, now: Instant) -> bool {
        if matches!(self.stage, Stage::Reading(_)) && !self.read(page, now) {
            return false;
        }
        match &mut self.stage {
            Stage::Reading(_) => true,
            Stage::Writing(bytes, sent) => {
                match self.socket.write(&bytes[*sent..]) {
                    Ok(n) => *sent += n,
                    Err(error) => return is_patient(&error),
                }
                if *sent < bytes.len() {
                    return true;
                }
                self.stage = Stage::Ending { left: THROWN_AWAY };
                self.socket.shutdown(Shutdown::Write).is_ok()
            }
            Stage::Ending { left } => {
                let mut sink = [0; 4096];
                match self.socket.read(&mut sink) {
                    Ok(n) => {
                        *left = left.saturating_sub(n);
                        n > 0 && *left > 0
                    }
                    Err(error) => is_patient(&error),
                }
            }
        }
    }

    fn read(&mut self, page: &mut Page, now: Instant) -> bool {
        let Stage::Reading(bytes) = &mut self.stage else { return true };
        let mut more = [0; http::LONGEST];
        let room = http::LONGEST - bytes.len();
        match self.socket.read(&mut more[..room]) {
            Ok(0) => return false,
            Ok(n) => bytes.extend_from_slice(&more[..n]),
            Err(error) => return is_patient(&error),
        }
        match http::read(bytes) {
            Request::Unfinished => {}
            Request::Page(extent) => self.stage = Stage::Writing(http::found(page.at(now), extent), 0),
            Request::Refused(status, extent) => self.stage = Stage::Writing(http::refused(status, extent), 0),
        }
        true
    }
}

fn is_patient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Page {
    fn at(&mut self, now: Instant) -> &str {
        if self.made.is_none_or(|made| made + KEPT <= now) {
            let Subject { shared, port } = &self.subject;
            self.text = text::page(&text::Snapshot {
                engines: (0..shared.engines()).filter_map(|engine| shared.samples(engine)).collect(),
                port: port.counters().samples().to_vec(),
                driver: port.driver(),
                state: port.state(),
                begun: self.begun,
            });
            self.made = Some(now);
        }
        &self.text
    }
}

/// Clients at once; the oldest gives way to one more.
const MOST: usize = 64;
/// For a client to send its request, and to take the answer, together.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a page is kept.
const KEPT: Duration = Duration::from_millis(100);
/// Bytes beyond its request that a client may have sent and still gets its answer.
const THROWN_AWAY: usize = 64 << 10;
/// Clients accepted at a time.
const ACCEPTS: usize = 16;
/// After a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
