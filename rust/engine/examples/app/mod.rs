//! The application at one end of an echo of messages that are short enough to ride in a slot.

use machnet_shm::{AppEnd, Delivery, FlowId, Origin};

/// Takes what came, and sends it back if it is to `echo`; gives how many messages. `dialled` becomes the connection that was dialled, if it
/// has been established; others are accepted.
pub fn poll(app: &mut AppEnd, echo: bool, dialled: &mut Option<FlowId>) -> usize {
    let AppEnd { tx, rx, .. } = app;
    if tx.ready() {
        tx.reclaim(|_| {}).expect("sound");
    }
    let mut got = 0;
    while let Some(delivery) = rx.delivery().expect("sound") {
        match delivery {
            Delivery::Established(e) => match e.origin {
                Origin::Dialled(_) => *dialled = Some(e.flow),
                Origin::Accepted(_) => rx.accepted(e.flow),
            },
            Delivery::Data(data) => {
                got += 1;
                if echo {
                    tx.data(data.flow, data.fragment, &data.inline[..data.len.into()]).expect("tokens");
                }
                rx.give_back(data.token);
            }
            other => panic!("{other:?}"),
        }
    }
    got
}
