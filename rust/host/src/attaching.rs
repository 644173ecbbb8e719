//! An application on its way to a channel: its hello is answered, its memory made, and it says that it has mapped it.

use machnet_shm::{AttachError, EngineEnd, Fd, ServerAttach, ServerStep, Status, Text, Welcome};

use crate::channels::{Offer, Place};
use crate::host::Host;

/// An application that is attaching, over a socket that is its alone.
pub struct Attaching {
    server: ServerAttach,
    user: u32,
    /// From its hello on.
    place: Option<Place>,
}

/// What came of a step.
pub enum Step {
    /// It is for the application to go on: wait for input.
    Wait,
    /// It is to have a channel: go on with [`Attaching::make`].
    Welcome(Welcome),
    /// It has its channel: go on with [`Host::attach`].
    Ready(Place, Box<EngineEnd>),
}

impl Attaching {
    /// Over an accepted SOCK_SEQPACKET socket, which it owns from here on. `user`: whose process connected it, as the kernel says.
    pub fn new(socket: Fd, user: u32) -> Attaching {
        Attaching { server: ServerAttach::new(socket), user, place: None }
    }

    /// Goes on, when there is input.
    ///
    /// # Errors
    /// It gets no channel, and was told where it can be.
    pub fn step<Q>(&mut self, host: &mut Host<Q>) -> Result<Step, AttachError> {
        match self.server.step()? {
            ServerStep::Wait => Ok(Step::Wait),
            ServerStep::Hello(hello) => match host.offer(hello, self.user) {
                Ok(Offer { welcome, place }) => {
                    self.place = Some(place);
                    Ok(Step::Welcome(welcome))
                }
                Err((status, text)) => {
                    // One that is gone already needs no answer.
                    let _ = self.server.refuse(status, text);
                    Err(AttachError::Refused(status, text))
                }
            },
            ServerStep::Attached(end) => {
                self.place.take().map(|place| Step::Ready(place, end)).ok_or(AttachError::Closed)
            }
        }
    }

    /// Makes the channel's memory, and gives it to the application. It takes as long as thousands of messages do: in steps of some tens
    /// of microseconds, with `between` after each.
    ///
    /// # Errors
    /// There is no memory, as the application was told, or nobody to give it to.
    pub fn make(&mut self, welcome: &Welcome, between: &mut dyn FnMut()) -> Result<(), AttachError> {
        self.server.welcome_in_steps(welcome, between)
    }

    /// Turns it away, whatever it said.
    pub fn refuse(mut self, status: Status, text: Text) {
        let _ = self.server.refuse(status, text);
    }

    /// What it sent as a descriptor of its process, once its hello is there: whatever it likes, so far.
    pub fn take_process(&mut self) -> Option<Fd> {
        self.server.take_process()
    }

    /// The socket to poll for input.
    pub fn socket(&self) -> i32 {
        self.server.socket()
    }

    /// The socket, once the channel is attached: it becomes readable when the application is gone.
    pub fn into_socket(self) -> Fd {
        self.server.into_socket()
    }

    /// Gives its place up at once. What is left has the memory, which takes its time to be given back: [`ServerAttach::release`].
    pub fn give_up(self) -> ServerAttach {
        self.server
    }
}
