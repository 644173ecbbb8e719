//! memif with several queues on either side.
//!
//! A memif ring has one writer and one reader, and transmit ring `i` of one side is receive ring `i` of the other.
//! Engine `i` of N therefore owns M transmit rings, one per queue of the peer, and reads M rings, one per engine of
//! the peer:
//!
//! ```text
//! transmit: engine i, peer's queue j  ->  ring i*M + j        (seen by the peer: its engine j reads ring i*M + j)
//! receive:  engine i, peer's engine j <-  ring j*N + i
//! ```

use super::error::DpdkError;
use crate::{Memif, MemifRole};
use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// How N local queues and M queues of the peer share rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matrix {
    /// Our queues, N.
    pub ours: u16,
    /// The peer's queues, M.
    pub theirs: u16,
}

impl Matrix {
    /// Ring pairs of a link at most; memif itself stops at 255.
    pub(super) const MOST_RINGS: u16 = 128;

    pub(super) fn new(ours: u16, theirs: u16) -> Result<Matrix, DpdkError> {
        if !(1..=MAX_QUEUES).contains(&ours)
            || !(1..=MAX_QUEUES).contains(&theirs)
            || ours * theirs > Self::MOST_RINGS
        {
            return Err(DpdkError::Config(format!(
                "memif with {ours} queues here and {theirs} at the peer: each side takes 1 to {MAX_QUEUES}, both together at most {} ring pairs",
                Self::MOST_RINGS
            )));
        }
        Ok(Matrix { ours, theirs })
    }

    /// Ring pairs of the link.
    pub(super) fn rings(&self) -> u16 {
        self.ours * self.theirs
    }

    /// Engine `i`'s transmit rings, the one to the peer's queue 0 first.
    pub(super) fn transmit(&self, i: u16) -> impl Iterator<Item = u16> + use<> {
        let theirs = self.theirs;
        (0..theirs).map(move |j| i * theirs + j)
    }

    /// The rings whose union is engine `i`'s receive queue.
    pub(super) fn receive(&self, i: u16) -> impl Iterator<Item = u16> + use<> {
        let (ours, theirs) = (self.ours, self.theirs);
        (0..theirs).map(move |j| j * ours + i)
    }

    /// Binary logarithm of the slots per ring, so that no queue of either side has more than `descriptors` in all.
    pub(super) fn log2_ring(&self, descriptors: u16) -> u32 {
        let share = descriptors / self.ours.max(self.theirs);
        share.max(2).ilog2().min(14)
    }
}

/// Where the driver of our end listens, or connects: behind a socket of ours, see [`relay`](super::relay).
pub(super) fn driver_socket(link: &Memif) -> PathBuf {
    match link.role {
        MemifRole::Server => behind(&link.socket),
        // An abstract name, which leaves nothing behind; a random one, since network namespaces are shared by processes of equal numbers.
        MemifRole::Client => format!("@machnetd-memif-{:016x}", super::random::number()).into(),
    }
}

/// Where the driver listens for a server known as `public`.
pub(super) fn behind(public: &Path) -> PathBuf {
    let mut path = public.as_os_str().to_owned();
    path.push(".pmd");
    path.into()
}

/// The name and arguments under which EAL creates our end of the link, whose driver listens at or connects to `socket`. `buffer` is the size of a ring slot's buffer, bytes.
pub(super) fn devargs(
    name: &str,
    (link, socket): (&Memif, &Path),
    matrix: Matrix,
    descriptors: u16,
    buffer: u16,
    mac: &str,
) -> Result<String, DpdkError> {
    let public = link.socket.to_str().unwrap_or_default();
    let path = socket.to_str().unwrap_or_default();
    let (path, is_abstract) = match path.strip_prefix('@') {
        Some(rest) => (rest, "yes"),
        None => (path, "no"),
    };
    let unfit =
        |path: &str| path.is_empty() || path.len() + 1 >= SOCKET_MAX || path.contains([',', '=', ' ', '\n']);
    if unfit(public.strip_prefix('@').unwrap_or(public)) || unfit(path) {
        return Err(DpdkError::Config(format!(
            "memif socket {:?}: needs 1 to {} bytes of UTF-8 without comma, equals sign or space",
            link.socket,
            SOCKET_MAX - 5
        )));
    }
    if link.id > Memif::LARGEST_ID {
        return Err(DpdkError::Config(format!(
            "memif id {}: must be at most {}",
            link.id,
            Memif::LARGEST_ID
        )));
    }
    let role = match link.role {
        MemifRole::Server => "server",
        MemifRole::Client => "client",
    };
    Ok(format!(
        "{name},role={role},id={},socket={path},socket-abstract={is_abstract},rsize={},bsize={buffer},mac={mac}",
        InterfaceId::of(link, matrix, buffer).0,
        matrix.log2_ring(descriptors),
    ))
}

/// What both sides must agree on, in the number that the server compares: with other queue counts frames would reach
/// the wrong engine, and with larger buffers memif would write past ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InterfaceId(pub u32);

impl InterfaceId {
    pub(super) fn of(link: &Memif, matrix: Matrix, buffer: u16) -> InterfaceId {
        let (server, client) = match link.role {
            MemifRole::Server => (matrix.ours, matrix.theirs),
            MemifRole::Client => (matrix.theirs, matrix.ours),
        };
        let queues = u32::from(server) << 8 | u32::from(client) << 13;
        InterfaceId(link.id | queues | u32::from(buffer / BUFFER_STEP) << 18)
    }
}

/// The number and what it is made of: people configure the parts, and find the number in the logs of other programs.
impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InterfaceId(n) = *self;
        let (id, server, client, buffer) =
            (n & 0xff, n >> 8 & 0x1f, n >> 13 & 0x1f, (n >> 18) * u32::from(BUFFER_STEP));
        write!(f, "{n} (id {id}, {server} x {client} queues of server x client, buffers of {buffer} bytes)")
    }
}

/// Size of a slot's buffer for this MTU, bytes: one slot per frame, whatever is on it.
pub(super) fn buffer_size(mtu: u16) -> u16 {
    (mtu + ETHERNET).next_multiple_of(BUFFER_STEP).max(2048)
}

/// Refuses a socket whose folder is not there, or not open to us: the driver wants to write to it, as a client too, and
/// its error names neither folder nor cause.
pub(super) fn check_folder(link: &Memif) -> Result<(), DpdkError> {
    let shown = link.socket.display();
    if link.socket.to_string_lossy().starts_with('@') {
        return Ok(());
    }
    let folder = match link.socket.parent() {
        Some(folder) if link.socket.is_absolute() => folder,
        _ => return Err(DpdkError::Config(format!("memif socket {shown}: must be an absolute path"))),
    };
    if !folder.is_dir() {
        return Err(DpdkError::Config(format!(
            "memif socket {shown}: the folder {} does not exist; create it",
            folder.display()
        )));
    }
    let name = CString::new(folder.as_os_str().as_bytes()).unwrap_or_default();
    let asked = libc::R_OK | libc::W_OK | libc::X_OK;
    // SAFETY: a C string that lives through the call.
    if unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), asked, libc::AT_EACCESS) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(DpdkError::Config(format!(
            "memif socket {shown}: the folder {} cannot be read and written by this user: {error}; open it to this user (chown, chmod), or choose another",
            folder.display()
        )));
    }
    Ok(())
}

/// Prepares the path of the socket: the folder must exist, and a file left by a server that was killed is removed.
pub(super) fn prepare_socket(link: &Memif) -> Result<(), DpdkError> {
    check_folder(link)?;
    if link.role == MemifRole::Server && !link.socket.to_string_lossy().starts_with('@') {
        remove_stale(&link.socket)?;
        remove_stale(&behind(&link.socket))?;
    }
    Ok(())
}

/// Removes a socket nobody listens on. memif's sockets are SOCK_SEQPACKET, so a live one answers a stream connection
/// with EPROTOTYPE, and is not disturbed by it.
fn remove_stale(path: &Path) -> Result<(), DpdkError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(DpdkError::Config(format!(
            "memif socket {}: a file of another kind is there",
            path.display()
        )));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|e| DpdkError::NoPermission(format!("remove the stale socket {}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(DpdkError::NoPermission(format!("memif socket {}: {e}", path.display())))
        }
        _ => Err(DpdkError::Config(format!(
            "memif socket {}: another process listens there; one server per socket",
            path.display()
        ))),
    }
}

/// More engines than this per side make little sense on one machine.
const MAX_QUEUES: u16 = 16;
/// Room for a path in the driver, with its closing zero.
const SOCKET_MAX: usize = 108;
/// Granularity of buffer sizes, bytes; part of [`InterfaceId`].
const BUFFER_STEP: u16 = 64;
/// Ethernet header, bytes.
const ETHERNET: u16 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_reaches_every_queue_over_a_ring_of_its_own() {
        for (n, m) in [(1, 1), (2, 1), (1, 3), (4, 4), (3, 5)] {
            let (here, there) = (Matrix::new(n, m).unwrap(), Matrix::new(m, n).unwrap());
            let mut used = vec![false; here.rings() as usize];
            for i in 0..n {
                for (j, ring) in here.transmit(i).enumerate() {
                    assert!(
                        !std::mem::replace(&mut used[ring as usize], true),
                        "ring {ring} has two writers"
                    );
                    let readers: Vec<u16> = (0..m).filter(|&q| there.receive(q).any(|r| r == ring)).collect();
                    assert_eq!(readers, [j as u16], "{n}x{m}: engine {i}, queue {j}, ring {ring}");
                }
            }
            assert!(used.iter().all(|&u| u));
        }
    }

    #[test]
    fn no_queue_has_more_than_its_descriptors() {
        assert_eq!(Matrix::new(1, 1).unwrap().log2_ring(256), 8);
        assert_eq!(Matrix::new(2, 1).unwrap().log2_ring(256), 7);
        assert_eq!(Matrix::new(1, 3).unwrap().log2_ring(256), 6);
        assert!(Matrix::new(16, 16).is_err());
        assert!(Matrix::new(0, 1).is_err());
    }

    #[test]
    fn both_sides_of_a_link_name_the_same_interface_and_a_mismatch_another() {
        let side = |role, n, m, mtu| {
            InterfaceId::of(&Memif::new("/x", role), Matrix::new(n, m).unwrap(), buffer_size(mtu))
        };
        assert_eq!(side(MemifRole::Server, 2, 3, 1500), side(MemifRole::Client, 3, 2, 1500));
        assert_ne!(side(MemifRole::Server, 2, 3, 1500), side(MemifRole::Client, 2, 3, 1500));
        assert_ne!(side(MemifRole::Server, 2, 2, 1500), side(MemifRole::Client, 2, 2, 9000));
        // The number of docs/configuration.md.
        assert_eq!(
            side(MemifRole::Server, 1, 1, 1500).to_string(),
            "8397056 (id 0, 1 x 1 queues of server x client, buffers of 2048 bytes)"
        );
    }

    #[test]
    fn a_socket_without_a_listener_is_removed_and_a_live_one_is_not() {
        let folder = std::env::temp_dir().join(format!("machnet-memif-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let link = Memif::new(folder.join("a.sock"), MemifRole::Server);
        let listener = std::os::unix::net::UnixListener::bind(&link.socket).unwrap();
        assert!(matches!(prepare_socket(&link), Err(DpdkError::Config(_))), "a live socket");
        drop(listener);
        prepare_socket(&link).unwrap();
        assert!(!link.socket.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
