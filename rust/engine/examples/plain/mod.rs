//! A NIC without a driver: queues whose wires are rings of frames, so that what an engine costs is seen alone.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use machnet_engine::{Engine, EngineConfig, Shared, neighbor};
use machnet_nic::{Full, Info, Mac, Offload, Queue, QueueCounters, RxChecksum};
use machnet_wire::Nanos;

/// A queue: what it sends goes into one ring, and what it receives comes out of another.
pub struct Plain {
    info: Info,
    to: Arc<Mutex<Frames>>,
    from: Arc<Mutex<Frames>>,
}

/// A wire in one direction.
#[derive(Default)]
pub struct Frames {
    slots: Vec<(usize, Box<[u8; 2048]>)>,
    head: usize,
    tail: usize,
}

impl Frames {
    pub fn new() -> Arc<Mutex<Self>> {
        let slots = (0..256).map(|_| (0, Box::new([0; 2048]))).collect();
        Arc::new(Mutex::new(Self { slots, head: 0, tail: 0 }))
    }
}

impl Queue for Plain {
    fn info(&self) -> &Info {
        &self.info
    }

    fn receive(&mut self, budget: usize, each: &mut impl FnMut(&[u8], RxChecksum)) -> usize {
        let mut from = self.from.lock().expect("one thread");
        let count = budget.min(from.tail - from.head);
        for _ in 0..count {
            let (len, bytes) = &from.slots[from.head % 256];
            each(&bytes[..*len], RxChecksum::Good);
            from.head += 1;
        }
        count
    }

    fn transmit(&mut self, len: usize, _: Offload, fill: impl FnOnce(&mut [u8])) -> Result<(), Full> {
        let mut to = self.to.lock().expect("one thread");
        if to.tail - to.head == 256 {
            return Err(Full);
        }
        let at = to.tail % 256;
        to.slots[at].0 = len;
        fill(&mut to.slots[at].1[..len]);
        to.tail += 1;
        Ok(())
    }

    fn flush(&mut self) {}

    fn backlog(&mut self) -> u16 {
        0
    }

    fn counters(&self) -> QueueCounters {
        QueueCounters::default()
    }

    fn arm_interrupt(&mut self) -> Option<i32> {
        None
    }

    fn disarm_interrupt(&mut self) {}
}

/// The engines of host 10.0.0.`n`, one for each queue; a queue is the ring that it sends to and the one that it receives from.
pub fn engines(n: u8, queues: &[[&Arc<Mutex<Frames>>; 2]]) -> (Arc<Shared>, Vec<Engine<Plain>>) {
    let mut config =
        EngineConfig::new(neighbor::Config::new(Ipv4Addr::new(10, 0, 0, n), 24, None), 1, [1, n.into()]);
    config.burst = 16;
    let count = queues.len() as u16;
    let shared = Shared::new(config, count).expect("sockets");
    let engine = |(index, [to, from]): (u16, &[&Arc<Mutex<Frames>>; 2])| {
        let info = Info {
            mac: Mac([2, 0, 0, 0, 0, n]),
            mtu: 1500,
            queues: count,
            index,
            descriptors: 256,
            tx_checksum: true,
            rx_checksum: true,
            interrupts: false,
        };
        let nic = Plain { info, to: Arc::clone(to), from: Arc::clone(from) };
        Engine::new(&shared, index, nic, Nanos::ZERO).expect("in range")
    };
    let engines = (0..).zip(queues).map(engine).collect();
    (shared, engines)
}
