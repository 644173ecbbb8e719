//! What the log says of a peer whose queues cannot be searched: what was seen, what it costs, and what to look at.

use core::fmt;
use core::net::Ipv4Addr;

/// A peer at which searches were given up.
#[derive(Debug)]
pub(crate) struct GivenUp<'a> {
    pub peer: Ipv4Addr,
    /// The receive queue that it wants, and how many it has.
    pub wanted: u16,
    pub queues: u16,
    /// The queues that probes reached, in their order.
    pub reached: &'a [u16],
    /// The same UDP ports led to one queue and then to another, again and again.
    pub wanders: bool,
}

impl fmt::Display for GivenUp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, wanted, queues, reached, wanders } = *self;
        match reached {
            _ if wanders => write!(
                f,
                "{peer}: the same UDP ports lead to one of its receive queues and then to another, so that none can be chosen: a bond, a virtual switch or its NIC spreads packets by something else"
            )?,
            [] => write!(
                f,
                "{peer}: no UDP ports were found that lead to its receive queue {wanted} of {queues}"
            )?,
            [one] => write!(
                f,
                "{peer}: whatever UDP ports our packets have, they come to its receive queue {one} of {queues}: its NIC seems to hash IP addresses only, or to use one queue"
            )?,
            // Of an ordinary connection such a pair would have been taken.
            many if many.contains(&wanted) => write!(
                f,
                "{peer}: no UDP ports were found that lead to its receive queue {wanted} of {queues} and, exchanged, back to the one that we want: where hashes are symmetric, rss.reverse = \"mirrored\" leaves some queues out"
            )?,
            many => {
                write!(
                    f,
                    "{peer}: no UDP ports were found that lead to its receive queue {wanted} of {queues}; our packets reached "
                )?;
                for (n, queue) in many.iter().enumerate() {
                    let before = if n == 0 {
                        ""
                    } else if n + 1 == many.len() {
                        " and "
                    } else {
                        ", "
                    };
                    write!(f, "{before}{queue}")?;
                }
                write!(f, ": its NIC seems to use fewer queues than there are engines")?;
            }
        }
        write!(
            f,
            "; connections work, and its engines hand their packets over to each other, which costs them some 300 ns each; there, have the NIC hash UDP ports (ethtool -n DEVICE rx-flow-hash udp4 shows it), or run fewer engines; see docs/rss.md"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_says_what_was_seen() {
        let given_up = |reached: &[u16], wanders| {
            let peer = Ipv4Addr::new(10, 0, 0, 2);
            let text = GivenUp { peer, wanted: 3, queues: 4, reached, wanders }.to_string();
            let (seen, advice) = text.split_once("; connections work").expect("what it costs");
            assert!(advice.contains("ethtool") && text.starts_with("10.0.0.2: "), "{text}");
            seen["10.0.0.2: ".len()..].to_owned()
        };
        assert_eq!(
            given_up(&[1], false),
            "whatever UDP ports our packets have, they come to its receive queue 1 of 4: its NIC seems to hash IP addresses only, or to use one queue"
        );
        assert_eq!(
            given_up(&[0, 1, 2], false),
            "no UDP ports were found that lead to its receive queue 3 of 4; our packets reached 0, 1 and 2: its NIC seems to use fewer queues than there are engines"
        );
        assert!(given_up(&[0, 3], false).contains("and, exchanged, back to the one that we want"));
        assert_eq!(given_up(&[], false), "no UDP ports were found that lead to its receive queue 3 of 4");
        assert!(
            given_up(&[1], true).starts_with("the same UDP ports lead to one of its receive queues and then")
        );
    }
}
