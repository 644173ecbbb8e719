//! Two hosts, whole stack.

mod common;

use common::{Out, World, pattern};
use machnet_nic::sim::Link;
use machnet_wire::Nanos;

#[test]
fn an_echo_goes_there_and_back() {
    let mut w = World::seeded(1);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.apps[server].echoes = true;
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, _) = w.connect(client, server, ip, 8000);
    for (i, len) in [0, 1, 64, 96, 97, 1424, 1425, 100_000].into_iter().enumerate() {
        w.apps[client].send(near, pattern(len, i as u64));
        w.run("echo", |w| !w.apps[client].conn(near).received.is_empty());
        assert_eq!(w.apps[client].conn(near).received.pop_front(), Some(pattern(len, i as u64)), "{len} bytes");
    }
    w.assert_nothing_is_lost();
}
