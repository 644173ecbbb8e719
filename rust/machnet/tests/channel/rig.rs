//! Both ends of a channel in the hands of a test.
use machnet::abi::*;
use machnet::*;
use machnet_shm::{
    EngineEnd, Established, Fd, FlowId, Fragment, Geometry, Origin, ServerAttach, ServerStep, Submission,
    Welcome,
};
use std::ffi::CStr;
use std::net::Ipv4Addr;
use std::ptr::null_mut;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub type Channel = *mut client::machnet_channel;

pub const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const GEOMETRY: Geometry = Geometry { units: 64, flows: 8, unit_size: 1424 };

/// Both ends of a channel.
pub struct Rig {
    pub ch: Channel,
    engine: Option<Box<EngineEnd>>,
    socket: Option<Fd>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // SAFETY: the channel is ours, and no call is under way.
        unsafe { machnet_detach(self.ch) };
    }
}

pub fn socketpair() -> (i32, i32) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) }, 0);
    (ends[0], ends[1])
}

impl Rig {
    pub fn new() -> Self {
        Self::of(GEOMETRY)
    }

    /// With a channel of these sizes.
    pub fn of(geometry: Geometry) -> Self {
        let (app, sidecar) = socketpair();
        let mut ch: Channel = null_mut();
        // SAFETY: `ch` is writable; the channel owns the socket.
        assert_eq!(unsafe { machnet_attach_fd(app, std::ptr::null(), &mut ch) }, 0);
        let mut server = ServerAttach::new(Fd::own(sidecar));
        let welcome = Welcome { geometry, engine: 3, ip: IP, mtu: 1500 };
        let engine = loop {
            // SAFETY: a live channel.
            let stepped = unsafe { machnet_attach_step(ch) };
            assert!(stepped == MACHNET_EAGAIN, "step gave {stepped}: {}", text(ch));
            match server.step().expect("the sidecar's side") {
                ServerStep::Hello(_) => server.welcome(&welcome).expect("welcome"),
                ServerStep::Attached(end) => break end,
                ServerStep::Wait => {}
            }
        };
        // SAFETY: a live channel.
        assert_eq!(unsafe { machnet_attach_step(ch) }, 0, "{}", text(ch));
        Self { ch, engine: Some(engine), socket: Some(server.into_socket()) }
    }

    pub fn engine(&mut self) -> &mut EngineEnd {
        self.engine.as_mut().expect("the sidecar lives")
    }

    /// A connection, announced and polled.
    pub fn connection(&mut self) -> (FlowId, machnet_conn) {
        let flow = self.engine().open_flow().expect("a flow");
        let made = Established { flow, origin: Origin::Accepted(9), local: (IP, 80), peer: (IP, 4000) };
        self.engine().established(&made);
        self.engine().flush();
        let events = self.events();
        let accepted: Vec<_> = events.iter().filter(|event| event.kind == MACHNET_EVENT_ACCEPTED).collect();
        assert_eq!(accepted.len(), 1, "{events:?}");
        (flow, accepted[0].conn)
    }

    pub fn deliver(&mut self, flow: FlowId, message: &[u8]) {
        let engine = self.engine();
        let mut at = 0;
        loop {
            let next = (at + 1424).min(message.len());
            let (begin, end) = (at == 0, next == message.len());
            assert_eq!(engine.grant(flow, 1), 1, "no room to deliver");
            let fragment = Fragment { begin, end, message_len: if begin { message.len() as u32 } else { 0 } };
            assert!(engine.deliver(flow, fragment, &message[at..next]));
            at = next;
            if end {
                break;
            }
        }
        engine.flush();
    }

    pub fn events(&mut self) -> Vec<machnet_event> {
        let mut out = [machnet_event::default(); 16];
        // SAFETY: a live channel and 16 writable events.
        let have = unsafe { machnet_poll(self.ch, out.as_mut_ptr(), 16) };
        assert!(have >= 0, "poll gave {have}");
        out[..have as usize].to_vec()
    }

    pub fn recv(&mut self, conn: machnet_conn, cap: usize, flags: u32) -> Result<Vec<u8>, i64> {
        let mut out = vec![0; cap];
        // SAFETY: a live channel and `cap` writable bytes.
        let n = unsafe { machnet_recv_some(self.ch, conn, out.as_mut_ptr().cast(), cap, flags, null_mut()) };
        if n < 0 {
            return Err(n);
        }
        out.truncate(n as usize);
        Ok(out)
    }

    pub fn send(&mut self, conn: machnet_conn, bytes: &[u8], flags: u32) -> i64 {
        // SAFETY: a live channel and readable bytes.
        unsafe { machnet_send_some(self.ch, conn, bytes.as_ptr().cast(), bytes.len(), flags) }
    }

    /// Takes what was submitted: the payloads of data units, and names of the rest; completes every unit if asked to.
    pub fn submitted(&mut self, complete: bool) -> (Vec<u8>, Vec<&'static str>) {
        let (mut bytes, mut order) = (Vec::new(), Vec::new());
        let engine = self.engine();
        while let Some(submission) = engine.submission().expect("an honest application") {
            let unit = match submission {
                Submission::Data { unit, fragment, .. } => {
                    let mut payload = vec![0; unit.len()];
                    engine.read_tx(&unit, 0, &mut payload);
                    bytes.extend(payload);
                    if fragment.end {
                        order.push("message");
                    }
                    Some(unit)
                }
                Submission::Abort { unit, .. } => {
                    order.push("abort");
                    Some(unit)
                }
                Submission::Fin { unit, .. } => {
                    order.push("fin");
                    Some(unit)
                }
                Submission::Close { .. } => {
                    order.push("close");
                    None
                }
                Submission::Reset { .. } => {
                    order.push("reset");
                    None
                }
            };
            if let (Some(unit), true) = (unit, complete) {
                engine.complete(unit);
            }
        }
        engine.flush();
        (bytes, order)
    }

    /// The sidecar dies.
    pub fn kill(&mut self) {
        self.engine = None;
        self.socket = None;
    }
}

/// What a thread gives, within five seconds.
pub fn joined<T>(thread: std::thread::JoinHandle<T>) -> T {
    let begun = Instant::now();
    while !thread.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(5), "a call does not return");
        sleep(Duration::from_millis(1));
    }
    thread.join().expect("the thread")
}

pub fn text(ch: Channel) -> String {
    let mut buf = [0_u8; MACHNET_ERROR_TEXT_MAX as usize];
    // SAFETY: a live channel and a writable buffer of this size.
    unsafe { machnet_error_text(ch, buf.as_mut_ptr().cast(), buf.len()) };
    CStr::from_bytes_until_nul(&buf).expect("a final zero").to_str().expect("UTF-8").to_string()
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}
