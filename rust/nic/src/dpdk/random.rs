//! Random keys and addresses, from the kernel's generator.

use machnet_wire::Mac;

/// A key for the Toeplitz hash.
pub(super) fn key() -> [u8; 40] {
    let mut key = [0u8; 40];
    fill(&mut key);
    key
}

/// A locally administered address that nobody else has.
pub(super) fn mac() -> Mac {
    let mut mac = [0u8; 6];
    fill(&mut mac);
    mac[0] = mac[0] & 0xfc | 2;
    Mac(mac)
}

/// A number that nobody can guess.
pub(super) fn number() -> u64 {
    let mut number = [0u8; 8];
    fill(&mut number);
    u64::from_ne_bytes(number)
}

fn fill(out: &mut [u8]) {
    // SAFETY: `out` is writable for its length; short requests are never interrupted once the generator is seeded.
    let got = unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
    assert_eq!(got, out.len() as isize, "the kernel's random generator does not answer");
}
