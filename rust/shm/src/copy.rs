//! Copies between a buffer that the peer can write at any time and private memory.
//!
//! A plain `memcpy` there would be a data race, which the compiler may assume not to happen. Assembly may not be reasoned
//! about like that: it moves whatever bytes are there, some of them twice, and only the copy is looked at. Elsewhere words are moved by relaxed atomics.

use core::mem::MaybeUninit;

/// Copies `out.len()` bytes from shared memory.
///
/// # Safety
/// `from` is mapped for `out.len()` bytes.
#[inline]
pub unsafe fn from_shared(from: *const u8, out: &mut [u8]) {
    // SAFETY: the source by our caller's promise, the target as a slice; a private slice overlaps no shared mapping.
    unsafe { copy(from, out.as_mut_ptr(), out.len(), PeerWrites::Source) }
}

/// The same, to private memory that need not be initialised.
///
/// # Safety
/// As of [`from_shared`].
#[inline]
pub unsafe fn from_shared_into(from: *const u8, out: &mut [MaybeUninit<u8>]) {
    // SAFETY: as above; nothing reads what is in the target before.
    unsafe { copy(from, out.as_mut_ptr().cast(), out.len(), PeerWrites::Source) }
}

/// Copies `bytes` to shared memory.
///
/// # Safety
/// `to` is mapped and writable for `bytes.len()` bytes.
#[inline]
pub unsafe fn to_shared(to: *mut u8, bytes: &[u8]) {
    // SAFETY: the target by our caller's promise, the source as a slice; a private slice overlaps no shared mapping.
    unsafe { copy(bytes.as_ptr(), to, bytes.len(), PeerWrites::Target) }
}

/// Which of the two can be written by the peer.
#[derive(Clone, Copy)]
enum PeerWrites {
    Source,
    Target,
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize, _: PeerWrites) {
    if (8..16).contains(&len) {
        // Its first eight bytes and its last eight, which may overlap.
        // SAFETY: both are valid for `len` bytes (our caller), of which there are at least eight.
        unsafe {
            core::arch::asm!(
                "mov {a}, qword ptr [{from}]",
                "mov {b}, qword ptr [{from} + {n} - 8]",
                "mov qword ptr [{to}], {a}",
                "mov qword ptr [{to} + {n} - 8], {b}",
                n = in(reg) len,
                from = in(reg) from,
                to = in(reg) to,
                a = out(reg) _,
                b = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
        return;
    }
    if len < 8 {
        // SAFETY: both are valid for `len` bytes (our caller), the loop touches just these.
        unsafe {
            core::arch::asm!(
                "test {n}, {n}",
                "jz 3f",
                "2:",
                "mov {b}, byte ptr [{from} + {n} - 1]",
                "mov byte ptr [{to} + {n} - 1], {b}",
                "dec {n}",
                "jnz 2b",
                "3:",
                n = inout(reg) len => _,
                from = in(reg) from,
                to = in(reg) to,
                b = out(reg_byte) _,
                options(nostack),
            );
        }
        return;
    }
    // 64 bytes at a time, then 16, then the last 16 once more where they overlap what was done: at least 16 there are.
    // SAFETY: both are valid for `len` bytes (our caller); every access lies within, by the counting in the loop.
    unsafe {
        core::arch::asm!(
            "cmp {n}, 64",
            "jb 3f",
            "2:",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {n}, 64",
            "cmp {n}, 64",
            "jae 2b",
            "3:",
            "cmp {n}, 16",
            "jb 5f",
            "4:",
            "movups {a}, [{from}]",
            "movups [{to}], {a}",
            "add {from}, 16",
            "add {to}, 16",
            "sub {n}, 16",
            "cmp {n}, 16",
            "jae 4b",
            "5:",
            "test {n}, {n}",
            "jz 6f",
            "movups {a}, [{from} + {n} - 16]",
            "movups [{to} + {n} - 16], {a}",
            "6:",
            n = inout(reg) len => _,
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

#[cfg(any(not(target_arch = "x86_64"), miri, test))]
#[cfg_attr(test, allow(dead_code, reason = "compared with the assembly in a test"))]
unsafe fn by_words(from: *const u8, to: *mut u8, len: usize, shared: PeerWrites) {
    use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
    let mut at = 0;
    while at < len {
        // SAFETY: `at < len`, within both; the shared side is only touched by atomics, aligned where they are words.
        unsafe {
            let (from, to) = (from.add(at), to.add(at));
            let outside = match shared {
                PeerWrites::Source => from.cast_mut(),
                PeerWrites::Target => to,
            };
            if len - at >= 8 && (outside as usize).is_multiple_of(8) {
                let outside = AtomicU64::from_ptr(outside.cast());
                match shared {
                    PeerWrites::Source => to.cast::<u64>().write_unaligned(outside.load(Relaxed)),
                    PeerWrites::Target => outside.store(from.cast::<u64>().read_unaligned(), Relaxed),
                }
                at += 8;
            } else {
                let outside = AtomicU8::from_ptr(outside);
                match shared {
                    PeerWrites::Source => to.write(outside.load(Relaxed)),
                    PeerWrites::Target => outside.store(from.read(), Relaxed),
                }
                at += 1;
            }
        }
    }
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize, shared: PeerWrites) {
    // SAFETY: our caller's promises are those asked for.
    unsafe { by_words(from, to, len, shared) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length around the sizes that the loops work in, at every alignment, and nothing beside it.
    #[test]
    fn every_length_and_alignment_moves_just_its_bytes() {
        let pattern: std::vec::Vec<u8> = (0..400_u32).map(|i| (i * 7 + 1) as u8 | 1).collect();
        for copy in [copy, by_words] {
            for shared in [PeerWrites::Source, PeerWrites::Target] {
                for len in (0..200).chain([255, 256, 257]) {
                    for at in 0..9 {
                        let mut out = [0_u8; 300];
                        // SAFETY: 8 + 257 <= 400 and 16 + 257 <= 300.
                        unsafe { copy(pattern[at..].as_ptr(), out[16 - at..].as_mut_ptr(), len, shared) };
                        let start = 16 - at;
                        assert_eq!(out[start..start + len], pattern[at..at + len], "{len} bytes from {at}");
                        assert!(
                            out[..start].iter().chain(&out[start + len..]).all(|b| *b == 0),
                            "{len} from {at}"
                        );
                    }
                }
            }
        }
    }
}
