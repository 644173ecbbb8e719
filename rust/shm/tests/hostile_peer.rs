//! A peer that writes anything anywhere in the shared memory. The other end answers with a `PeerFault` or with nothing: it does not panic,
//! reads and writes nothing outside, keeps its books within their bounds, and comes to an end. Both directions. A
//! failure prints its seed.

use machnet_shm::sleep::{ROOM, TOKENS};
use machnet_shm::slot::kind;
use machnet_shm::{
    AppEnd, Delivery, EngineEnd, Established, FlowId, FlowStats, Fragment, Geometry, KeepAlive, Origin,
    PeerFault, Reason, Reply, Request, Returned, Rung, Submission, pair,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const GEOMETRY: Geometry = Geometry { units: 16, flows: 4, unit_size: 300 };
const SLOT: usize = 128;
const ENGINE_ARMED: usize = 256;

/// The shared memory as a scribbler sees it.
#[derive(Clone, Copy)]
struct Memory {
    base: usize,
}

/// Where the rings begin: docs/channel.md.
#[derive(Clone, Copy)]
enum Ring {
    Submit,
    Complete,
    Deliver,
    Return,
    Requests,
    Replies,
}

impl Memory {
    fn of(app: &AppEnd) -> Memory {
        let memory = Memory { base: 0 };
        Memory { base: app.rx.view().deliver.slots as usize - memory.place(Ring::Deliver) }
    }

    fn place(self, ring: Ring) -> usize {
        let data = GEOMETRY.ring_slots() as usize * SLOT;
        self.base
            + 4096
            + match ring {
                Ring::Submit => 0,
                Ring::Complete => data,
                Ring::Deliver => 2 * data,
                Ring::Return => 3 * data,
                Ring::Requests => 4 * data,
                Ring::Replies => 4 * data + 128 * SLOT,
            }
    }

    /// The word that tells a sender why its connection is over.
    fn end_of(self, flow: FlowId) -> usize {
        self.place(Ring::Replies) - self.base + 128 * SLOT + flow.index as usize * 4
    }

    /// Writes one aligned word.
    fn scribble(self, at: usize, value: u32) {
        assert!(at + 4 <= GEOMETRY.len());
        // SAFETY: inside the mapping, which both ends (alive in every test as long as this is used) keep; aligned; atomic.
        unsafe { AtomicU32::from_ptr((self.base + at) as *mut u32) }.store(value, Ordering::Release);
    }

    /// Writes a slot whose sequence word is the right one.
    fn push(self, ring: Ring, number: u32, words: &[u32]) {
        let slots = match ring {
            Ring::Requests | Ring::Replies => 128,
            _ => GEOMETRY.ring_slots(),
        };
        let at = self.place(ring) - self.base + (number % slots) as usize * SLOT;
        for (i, word) in words.iter().enumerate() {
            self.scribble(at + 4 + 4 * i, *word);
        }
        self.scribble(at, number.wrapping_add(1));
    }
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    /// A number that might be meant: small, at a bound, or wild.
    fn number(&mut self) -> u32 {
        let edges = [0, 1, 15, 16, 17, 96, 97, 300, 301, 8 << 20, (8 << 20) + 1, u32::MAX, 1 << 31];
        match self.below(4) {
            0 => self.below(6),
            1 | 2 => edges[self.below(edges.len() as u32) as usize],
            _ => self.next(),
        }
    }

    /// The 31 words of a slot after its sequence word, near enough to good ones to pass some checks.
    fn slot(&mut self, kinds: &[u8], flows: &[FlowId]) -> [u32; 31] {
        let mut words = [0; 31];
        let kind = if self.below(12) == 0 {
            self.next() as u8
        } else {
            kinds[self.below(kinds.len() as u32) as usize]
        };
        let flags = if self.below(6) == 0 { self.next() } else { self.below(4) } & 0xff;
        let len = if self.below(6) == 0 { self.number() } else { self.below(13) } & 0xffff;
        words[0] = u32::from(kind) | flags << 8 | len << 16;
        let flow = flows[self.below(flows.len() as u32) as usize];
        (words[1], words[2]) = (flow.index, flow.generation);
        match self.below(10) {
            0 => words[1] = self.number(),
            1 => words[2] = self.number(),
            _ => {}
        }
        let message = if self.below(4) == 0 { self.number() } else { len };
        let buffer = if self.below(2) == 0 { u32::MAX } else { self.number() };
        (words[3], words[4], words[5], words[6]) = (buffer, message, self.number(), self.number());
        for pair in words[7..].chunks_exact_mut(2) {
            // An entry: low word, high word.
            let buffer = self.below(2) == 0;
            pair[0] = if buffer { self.below(18) } else { self.below(4) };
            pair[1] = if buffer { 1 << 31 } else { self.below(5) };
            if self.below(20) == 0 {
                pair.fill_with(|| self.next());
            }
        }
        words
    }
}

fn for_seeds(seeds: u64, mut run: impl FnMut(u64) -> Option<PeerFault>) -> BTreeSet<String> {
    let mut faults = BTreeSet::new();
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        match outcome {
            Ok(fault) => faults.extend(fault.map(|f| {
                assert!(!f.to_string().is_empty());
                format!("{f:?}").split(' ').next().unwrap_or_default().to_owned()
            })),
            Err(cause) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    faults
}

/// One round of an engine with everything it has from its application.
fn engine_round(
    engine: &mut EngineEnd,
    random: &mut Random,
    flows: &[FlowId],
    taken: &mut [u32; 3],
) -> Result<(), PeerFault> {
    for _ in 0..4 {
        match engine.submission()? {
            None => break,
            Some(Submission::Data { unit, fragment, .. }) => {
                assert!(unit.len() <= 300 && fragment.message_len <= 8 << 20);
                let mut bytes = [0; 300];
                engine.read_tx(&unit, 0, &mut bytes[..unit.len()]);
                if random.below(3) > 0 {
                    engine.complete(unit);
                }
            }
            Some(Submission::Abort { unit, .. } | Submission::Fin { unit, .. }) => engine.complete(unit),
            Some(Submission::Close { .. } | Submission::Reset { .. }) => {}
        }
        taken[0] += 1;
    }
    let before = engine.usage().1;
    let mut returned = 0;
    let slots = engine.returns(|back| match back {
        Returned::Units(_, count) => returned += count,
        Returned::Place(flow) => assert!(flows.contains(&flow)),
    })?;
    taken[1] += slots.min(1) as u32;
    assert!(returned <= before, "{returned} units came back of {before}");
    if let Some(request) = engine.request()? {
        taken[2] += 1;
        match request {
            Request::Listen { id, .. } => engine.reply(Reply::Listening { id, port: 1 }),
            Request::Stats { id, flow } => {
                assert!(flow.index < GEOMETRY.flows && flow.generation != 0);
                engine.reply(Reply::Stats { id, stats: Some(FlowStats::NONE) });
            }
            Request::KeepAlive { flow, after } => {
                assert!(flow.index < GEOMETRY.flows && flow.generation != 0);
                if let KeepAlive::Millis(ms) = after {
                    assert!((10..=600_000).contains(&ms));
                }
            }
            _ => {}
        }
    }
    for flow in flows {
        let granted = engine.grant(*flow, random.below(4));
        let fragment = Fragment { begin: true, end: true, message_len: 100 };
        for _ in 0..granted {
            assert!(engine.deliver(*flow, fragment, &[7; 100][..random.below(101) as usize]));
        }
    }
    let (tx, rx, granted) = engine.usage();
    assert!(tx <= GEOMETRY.units && rx + granted <= GEOMETRY.units);
    engine.flush();
    if engine.arm() {
        engine.disarm();
    }
    assert_ne!(engine.drain_doorbell(), Rung::HungUp);
    Ok(())
}

#[test]
fn an_engine_answers_anything_that_an_application_writes_with_at_most_a_fault() {
    const KINDS: &[u8] =
        &[kind::DATA, kind::DATA, kind::DATA, kind::ABORT, kind::FIN, kind::CLOSE, kind::RESET];
    const REQUESTS: &[u8] =
        &[kind::LISTEN, kind::UNLISTEN, kind::CONNECT, kind::CANCEL, kind::STATS, kind::STATS, kind::OPTION];
    let faults = for_seeds(3000, |seed| {
        let mut random = Random::new(seed);
        let (app, mut engine) = pair(GEOMETRY).unwrap();
        let memory = Memory::of(&app);
        let flows = [engine.open_flow().unwrap(), engine.open_flow().unwrap()];
        for (flow, origin) in flows.into_iter().zip([Origin::Accepted(1), Origin::Dialled(2)]) {
            engine.established(&established(flow, origin));
        }
        let mut taken = [0; 3];
        for _ in 0..60 {
            match random.below(9) {
                0..=3 => memory.push(Ring::Submit, taken[0], &random.slot(KINDS, &flows)),
                4 | 5 => memory.push(
                    Ring::Return,
                    taken[1],
                    &random.slot(&[kind::ENTRIES, kind::ENTRIES, kind::ACCEPTED], &flows),
                ),
                6 => memory.push(Ring::Requests, taken[2], &random.slot(REQUESTS, &flows)),
                7 => memory.scribble(random.below(GEOMETRY.len() as u32 / 4) as usize * 4, random.number()),
                // The head page: sleep words, and what the application says that it has taken.
                _ => memory.scribble(random.below(1024) as usize * 4, random.number()),
            }
            if let Err(fault) = engine_round(&mut engine, &mut random, &flows, &mut taken) {
                return Some(fault);
            }
        }
        None
    });
    let every = ["Bound", "Buffer", "Flow", "Framing", "Kind", "Tokens"];
    assert_eq!(faults, every.map(str::to_owned).into(), "every kind of fault was met");
}

/// One round of an application with everything it has from its engine.
fn app_round(app: &mut AppEnd, flows: &[FlowId], taken: &mut [u32; 3]) -> Result<(), PeerFault> {
    for _ in 0..4 {
        let Some(delivery) = app.rx.delivery()? else { break };
        taken[0] += 1;
        match delivery {
            Delivery::Data(data) => {
                assert!(data.len <= 300 && data.flow.index < GEOMETRY.flows);
                let mut bytes = [0; 300];
                app.rx.read(data.token, 0, &mut bytes[..data.len.into()]);
                app.rx.read(data.token, usize::MAX, &mut bytes);
                app.rx.give_back(data.token);
            }
            Delivery::Aborted { token, .. } | Delivery::Fin { token, .. } => app.rx.give_back(token),
            Delivery::Established(_) | Delivery::Reset { .. } => {}
        }
    }
    let mut freed = 0;
    let came = app.tx.reclaim(|_| freed += 1)?;
    taken[1] += (freed > 0) as u32;
    assert!(came <= GEOMETRY.units);
    taken[2] += app.rx.reply()?.is_some() as u32;
    for flow in flows {
        let fragment = Fragment { begin: true, end: true, message_len: 200 };
        app.tx.ended(*flow)?;
        let free = app.tx.tokens(*flow);
        assert_eq!(
            app.tx.data(*flow, fragment, &[1; 200][..(free as usize * 50).min(200)]).is_ok(),
            free > 0
        );
    }
    app.tx.request(Request::Unlisten { id: 1 });
    app.tx.flush();
    if app.rx.arm(TOKENS | ROOM, || true) {
        app.rx.disarm();
    }
    assert!(app.rx.drain_doorbell());
    Ok(())
}

#[test]
fn an_application_answers_anything_that_an_engine_writes_with_at_most_a_fault() {
    const KINDS: &[u8] = &[kind::DATA, kind::ABORT, kind::FIN, kind::RESET, kind::ESTABLISHED];
    const REPLIES: &[u8] =
        &[kind::LISTEN, kind::LISTEN_FAILED, kind::UNLISTEN, kind::CANCEL, kind::STATS, kind::STATS];
    let faults = for_seeds(3000, |seed| {
        let mut random = Random::new(seed);
        let (mut app, mut engine) = pair(GEOMETRY).unwrap();
        let memory = Memory::of(&app);
        let flows = [engine.open_flow().unwrap(), engine.open_flow().unwrap()];
        let mut taken = [0; 3];
        for _ in 0..60 {
            match random.below(10) {
                0..=3 => memory.push(Ring::Deliver, taken[0], &random.slot(KINDS, &flows)),
                4 | 5 => memory.push(Ring::Complete, taken[1], &random.slot(&[kind::ENTRIES], &flows)),
                6 => memory.push(Ring::Replies, taken[2], &random.slot(REPLIES, &flows)),
                7 => memory.scribble(random.below(GEOMETRY.len() as u32 / 4) as usize * 4, random.number()),
                8 => memory.scribble(memory.end_of(flows[0]), random.below(16)),
                _ => memory.scribble(random.below(1024) as usize * 4, random.number()),
            }
            if let Err(fault) = app_round(&mut app, &flows, &mut taken) {
                return Some(fault);
            }
        }
        None
    });
    let every = ["Bound", "Buffer", "Flow", "Kind", "Tokens"];
    assert_eq!(faults, every.map(str::to_owned).into(), "every kind of fault was met");
}

/// The same with a scribbler that runs while the ends look: what was checked must be what is used.
#[test]
fn values_that_change_while_they_are_read_are_read_once() {
    let (mut app, mut engine) = pair(GEOMETRY).unwrap();
    let memory = Memory::of(&app);
    let flows = [engine.open_flow().unwrap(), engine.open_flow().unwrap()];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = Stop(&stop);
        scope.spawn(|| {
            let mut random = Random::new(1);
            let kinds: Vec<u8> = (1..=12).collect();
            let rings =
                [Ring::Submit, Ring::Return, Ring::Requests, Ring::Deliver, Ring::Complete, Ring::Replies];
            while !stop.load(Ordering::Relaxed) {
                let slot = random.slot(&kinds, &flows);
                memory.push(rings[random.below(6) as usize], random.below(64), &slot);
            }
        });
        let mut random = Random::new(2);
        for _ in 0..20_000 {
            // Its owner would drop the channel at the first fault; here it goes on, which has to be harmless, too.
            let _ = engine_round(&mut engine, &mut random, &[], &mut [0; 3]);
            let _ = app_round(&mut app, &[], &mut [0; 3]);
        }
    });
}

/// Ends the scribbler also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An application that rings without end does not keep the engine in its drain: what is left wakes it again.
#[test]
fn an_end_for_no_known_reason_is_a_fault() {
    let (app, mut engine) = pair(GEOMETRY).unwrap();
    let (flow, memory) = (engine.open_flow().unwrap(), Memory::of(&app));
    engine.reset(flow, Reason::Gone);
    assert_eq!(app.tx.ended(flow), Ok(Some(Reason::Gone)));
    memory.scribble(memory.end_of(flow), 77);
    assert!(matches!(app.tx.ended(flow), Err(PeerFault::Bound { what: "reason", value: 77, .. })));
    let beyond = FlowId { index: GEOMETRY.flows, ..flow };
    assert_eq!(app.tx.ended(beyond), Ok(None), "nothing is read beyond the words");
}

#[test]
fn a_doorbell_is_emptied_in_bounded_time() {
    let (app, engine) = pair(GEOMETRY).unwrap();
    let memory = Memory::of(&app);
    for _ in 0..4096 {
        memory.scribble(ENGINE_ARMED, 3);
        app.tx.flush();
    }
    assert_ne!(engine.drain_doorbell(), Rung::HungUp);
    let mut poll = libc::pollfd { fd: engine.doorbell(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one `pollfd`, as said.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1, "4096 bells were read at once");
}

/// Ringing an end that is gone must not kill the application that rings: a C program does not know of our pipe.
#[test]
fn ringing_a_sidecar_that_is_gone_raises_no_sigpipe() {
    let (app, engine) = pair(GEOMETRY).unwrap();
    assert!(engine.arm());
    drop(engine);
    // SAFETY: sets the default action, which would end this process; Rust's runtime had it ignored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    app.tx.flush();
    // SAFETY: as it was.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    assert!(!app.rx.drain_doorbell(), "the engine's end of the pipe is closed");
}

/// The channel ends at a fault; whoever holds the engine's end may still finish what it had begun.
#[test]
fn after_a_fault_the_books_still_balance() {
    let (mut app, mut engine) = pair(GEOMETRY).unwrap();
    let flow = engine.open_flow().unwrap();
    let fragment = Fragment { begin: true, end: true, message_len: 200 };
    app.tx.data(flow, fragment, &[1; 200]).unwrap();
    let Some(Submission::Data { unit, .. }) = engine.submission().unwrap() else {
        panic!("nothing was submitted")
    };
    Memory::of(&app).push(Ring::Submit, 1, &[0xff]);
    assert_eq!(engine.submission().unwrap_err().to_string(), "connection 0 of generation 0 is not there");
    engine.complete(unit);
    engine.reset(flow, Reason::Protocol);
    engine.flush();
    assert_eq!(engine.usage(), (0, 0, 0));
}

/// Slots that give nothing back could come without end, and keep the engine in its loop for ever.
#[test]
fn a_return_that_returns_nothing_is_a_fault() {
    let flow = |engine: &mut EngineEnd| {
        let flow = engine.open_flow().unwrap();
        assert_eq!(engine.grant(flow, 1), 1);
        assert!(engine.deliver(flow, Fragment { begin: true, end: true, message_len: 0 }, &[]));
    };
    let head = |entries: u32| u32::from(kind::ENTRIES) | entries << 16;
    let none_of_a_flow = [head(1), 0, 0, 0, 0, 0, 0, 0, 0];
    for (words, fault) in [
        (&[head(0)][..], PeerFault::Bound { what: "entries of a slot", value: 0, bound: 12 }),
        (&[head(13)], PeerFault::Bound { what: "entries of a slot", value: 13, bound: 12 }),
        (&none_of_a_flow, PeerFault::Tokens { index: 0, value: 0, bound: 1 }),
    ] {
        let (app, mut engine) = pair(GEOMETRY).unwrap();
        flow(&mut engine);
        Memory::of(&app).push(Ring::Return, 0, words);
        assert_eq!(engine.returns(|_| ()), Err(fault));
    }
}

fn established(flow: FlowId, origin: Origin) -> Established {
    let address = (core::net::Ipv4Addr::LOCALHOST, 1);
    Established { flow, origin, local: address, peer: address }
}

/// A place in a backlog is given back once, by whom it was given to; all else is a fault, so that these slots have an end.
#[test]
fn only_a_connection_that_was_offered_is_taken_and_only_once() {
    let offered = |late: bool| {
        let (mut app, mut engine) = pair(GEOMETRY).unwrap();
        let (flow, dialled) = (engine.open_flow().unwrap(), engine.open_flow().unwrap());
        engine.established(&established(flow, Origin::Accepted(7)));
        engine.established(&established(dialled, Origin::Dialled(8)));
        if late {
            app.tx.close(flow);
            assert!(matches!(engine.submission(), Ok(Some(Submission::Close { .. }))));
        }
        app.rx.accepted(flow);
        let mut places = Vec::new();
        engine.returns(|back| places.push(back)).unwrap();
        // Closed before the engine read that it was taken: that has freed the place already.
        assert_eq!(places, if late { vec![] } else { vec![Returned::Place(flow)] });
        (app, engine, flow, dialled)
    };
    type Lie = fn(FlowId, FlowId) -> FlowId;
    let lies: [(&str, Lie); 5] = [
        ("twice", |flow, _| flow),
        ("dialled", |_, dialled| dialled),
        ("of another generation", |flow, _| FlowId { generation: flow.generation + 1, ..flow }),
        ("of none", |flow, _| FlowId { generation: 0, ..flow }),
        ("beyond the last", |flow, _| FlowId { index: GEOMETRY.flows, ..flow }),
    ];
    for late in [false, true] {
        for (what, lie) in lies {
            let (mut app, mut engine, flow, dialled) = offered(late);
            let lie = lie(flow, dialled);
            app.rx.accepted(lie);
            let fault = PeerFault::Flow { index: lie.index, generation: lie.generation };
            assert_eq!(engine.returns(|back| panic!("{what}: {back:?}")), Err(fault), "{what}");
        }
    }
}

#[test]
fn requests_that_name_a_connection_are_bounded_and_one_that_is_over_is_none_of_the_faults() {
    let (app, mut engine) = pair(GEOMETRY).unwrap();
    let memory = Memory::of(&app);
    let flow = engine.open_flow().unwrap();
    engine.discard_flow(flow);
    // The same place again: the first is over.
    let live = engine.open_flow().unwrap();
    assert_eq!((live.index, live.generation), (flow.index, flow.generation + 1));
    let ask = |engine: &mut EngineEnd, number, kind: u8, (index, generation), a, b| {
        memory.push(Ring::Requests, number, &[kind.into(), index, generation, a, b, 0, 0]);
        engine.request().map(|request| request.expect("a request"))
    };
    let (here, gone) = ((live.index, live.generation), (flow.index, flow.generation));
    let mut number = 0;
    for id in [here, gone] {
        let asked = ask(&mut engine, number, kind::STATS, id, 7, 0);
        assert!(matches!(asked, Ok(Request::Stats { id: 7, .. })), "{asked:?}");
        for (word, after) in [
            (0, KeepAlive::Never),
            (u32::MAX, KeepAlive::Default),
            (10, KeepAlive::Millis(10)),
            (600_000, KeepAlive::Millis(600_000)),
        ] {
            number += 1;
            let flow = FlowId { index: id.0, generation: id.1 };
            let asked = ask(&mut engine, number, kind::OPTION, id, 1, word);
            assert_eq!(asked, Ok(Request::KeepAlive { flow, after }));
        }
        number += 1;
    }
    let never = [
        (GEOMETRY.flows, 1),
        (u32::MAX, live.generation),
        (live.index, 0),
        (live.index, live.generation + 1),
        (live.index + 1, 1),
    ];
    for id in never {
        for kind in [kind::STATS, kind::OPTION] {
            let (index, generation) = id;
            let asked = ask(&mut engine, number, kind, id, 1, 10);
            assert_eq!(asked, Err(PeerFault::Flow { index, generation }), "{id:?}");
            number += 1;
        }
    }
    for (option, value) in [(0, 10), (2, 10), (u32::MAX, 0), (1, 1), (1, 9), (1, 600_001), (1, u32::MAX - 1)]
    {
        let asked = ask(&mut engine, number, kind::OPTION, here, option, value);
        assert!(matches!(asked, Err(PeerFault::Bound { .. })), "{option}, {value}: {asked:?}");
        number += 1;
    }
}

/// It asks more and more and takes no answer: what it costs is a slot of the ring each, and one answer that waits.
#[test]
fn an_application_that_takes_no_answers_is_asked_nothing_more() {
    let (mut app, mut engine) = pair(GEOMETRY).unwrap();
    let flow = engine.open_flow().unwrap();
    let (mut asked, mut taken) = (0, 0);
    for id in 0..10_000 {
        asked += u32::from(app.tx.request(Request::Stats { id, flow }));
        if let Some(Request::Stats { id, .. }) = engine.request().unwrap() {
            taken += 1;
            engine.reply(Reply::Stats { id, stats: Some(FlowStats::NONE) });
        }
    }
    assert_eq!((asked, taken), (128 + 129, 129));
    let mut answers = Vec::new();
    for _ in 0..1000 {
        answers.extend(app.rx.reply().unwrap());
        if let Some(Request::Stats { id, .. }) = engine.request().unwrap() {
            engine.reply(Reply::Stats { id, stats: None });
        }
    }
    assert_eq!(answers.len(), 128 + 129, "and all of them once it takes them");
    for (number, answer) in answers.into_iter().enumerate() {
        let stats = (number < 129).then_some(FlowStats::NONE);
        assert_eq!(answer, Reply::Stats { id: number as u32, stats });
    }
}
