//! The XDP program that picks our frames out of the kernel's: IPv4 to our address, and ARP that asks for or answers to it, go to
//! the socket of their receive queue; all else goes on to the kernel, also where a queue has no socket. It is so short that it is
//! assembled here: no compiler, no object file, no library is needed for it.

use std::net::Ipv4Addr;

/// One instruction of BPF; RFC 9669 §3.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Instruction {
    operation: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The program for a host with this address and a map from receive queues to sockets with this descriptor.
pub(super) fn assemble(ip: Ipv4Addr, map: i32) -> Vec<Instruction> {
    let address = i32::from_ne_bytes(ip.octets());
    let ethertype = |kind: u16| i32::from(kind.to_be());
    let mut p = Program::default();
    p.add(move_register(R6, R1)); // the context, which calls do not keep
    p.add(load(WORD, FRAME, R6, CONTEXT_DATA));
    p.add(load(WORD, END, R6, CONTEXT_DATA_END));
    p.needs(IP_HEADER + 20);
    p.add(load(HALF, VALUE, FRAME, ETHERTYPE));
    p.if_not(VALUE, ethertype(0x0800), Label::NotIp);
    p.add(load(WORD, VALUE, FRAME, IP_HEADER + 16));
    p.go(Label::Compare);
    p.place(Label::NotIp);
    p.if_not(VALUE, ethertype(0x0806), Label::Pass);
    p.needs(ARP_HEADER + 28);
    p.add(load(WORD, VALUE, FRAME, ARP_HEADER + 2)); // of IPv4 over Ethernet
    p.if_not(VALUE, i32::from_ne_bytes([0x08, 0x00, 6, 4]), Label::Pass);
    p.add(load(WORD, VALUE, FRAME, ARP_HEADER + 24));
    p.place(Label::Compare);
    p.if_not(VALUE, address, Label::Pass);
    let [first, second] = load_map(R1, map);
    p.add(first);
    p.add(second);
    p.add(load(WORD, R2, R6, CONTEXT_QUEUE));
    p.add(move_immediate(R3, XDP_PASS)); // if the map has no such socket
    p.add(call(REDIRECT_MAP));
    p.add(EXIT);
    p.place(Label::Pass);
    p.add(move_immediate(R0, XDP_PASS));
    p.add(EXIT);
    p.finish()
}

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    NotIp,
    Compare,
    Pass,
}

#[derive(Default)]
struct Program {
    code: Vec<Instruction>,
    /// Jumps whose distance is not known yet.
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

impl Program {
    fn add(&mut self, instruction: Instruction) {
        self.code.push(instruction);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.code.len()));
    }

    fn jump(&mut self, instruction: Instruction, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.code.push(instruction);
    }

    fn go(&mut self, to: Label) {
        self.jump(Instruction { operation: JUMP, registers: 0, offset: 0, immediate: 0 }, to);
    }

    /// Jumps unless the lower 32 bits of a register are this.
    fn if_not(&mut self, register: u8, value: i32, to: Label) {
        self.jump(
            Instruction { operation: JUMP32_UNEQUAL, registers: register, offset: 0, immediate: value },
            to,
        );
    }

    /// Passes frames that are shorter: the kernel lets no program read behind the end.
    fn needs(&mut self, bytes: i16) {
        self.add(move_register(R5, FRAME));
        self.add(Instruction { operation: ADD_IMMEDIATE, registers: R5, offset: 0, immediate: bytes.into() });
        let greater =
            Instruction { operation: JUMP_GREATER, registers: R5 | END << 4, offset: 0, immediate: 0 };
        self.jump(greater, Label::Pass);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.places.iter().find(|(placed, _)| *placed == label).map_or(at, |(_, to)| *to);
            self.code[at].offset = to as i16 - at as i16 - 1;
        }
        self.code
    }
}

fn load(size: u8, to: u8, from: u8, offset: i16) -> Instruction {
    Instruction { operation: LOAD | size, registers: to | from << 4, offset, immediate: 0 }
}

fn move_register(to: u8, from: u8) -> Instruction {
    Instruction { operation: MOVE_REGISTER, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn move_immediate(to: u8, value: i32) -> Instruction {
    Instruction { operation: MOVE_IMMEDIATE, registers: to, offset: 0, immediate: value }
}

/// A map's address takes two instructions; the kernel puts it in where the descriptor stands.
fn load_map(to: u8, map: i32) -> [Instruction; 2] {
    let half = |operation, registers, immediate| Instruction { operation, registers, offset: 0, immediate };
    [half(LOAD_WIDE, to | MAP_BY_DESCRIPTOR << 4, map), half(0, 0, 0)]
}

fn call(helper: i32) -> Instruction {
    Instruction { operation: CALL, registers: 0, offset: 0, immediate: helper }
}

const EXIT: Instruction = Instruction { operation: 0x95, registers: 0, offset: 0, immediate: 0 };

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R5: u8 = 5;
const R6: u8 = 6;
/// Where the frame begins.
const FRAME: u8 = 2;
/// Where it ends.
const END: u8 = 3;
const VALUE: u8 = 4;

const LOAD: u8 = 0x61;
const WORD: u8 = 0x00;
const HALF: u8 = 0x08;
const LOAD_WIDE: u8 = 0x18;
const MAP_BY_DESCRIPTOR: u8 = 1;
const ADD_IMMEDIATE: u8 = 0x07;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const JUMP: u8 = 0x05;
const JUMP_GREATER: u8 = 0x2d;
const JUMP32_UNEQUAL: u8 = 0x56;
const CALL: u8 = 0x85;

/// The helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;
/// The frame goes on to the kernel.
const XDP_PASS: i32 = 2;

/// linux/bpf.h, `struct xdp_md`.
const CONTEXT_DATA: i16 = 0;
const CONTEXT_DATA_END: i16 = 4;
const CONTEXT_QUEUE: i16 = 16;
/// In an Ethernet frame without a VLAN tag.
const ETHERTYPE: i16 = 12;
const IP_HEADER: i16 = 14;
const ARP_HEADER: i16 = 14;
