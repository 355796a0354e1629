//! A client and its target: two sockets and a flow in each direction.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{setsockopt, sockopt};

use super::flow::{Fault, Flow, Means, Progress};
use super::options::ProxyProtocol;

/// A socket, and what epoll has said of it that is still true.
pub(super) struct Side {
    pub socket: OwnedFd,
    readable: bool,
    writable: bool,
}

impl Side {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, readable: true, writable: true }
    }

    /// The next close is a reset, so that the peer knows that something was lost.
    fn reset(&self) {
        let _ = setsockopt(&self.socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }
}

/// How far a link has come.
pub(super) enum State {
    /// The target has not answered yet; those in `tried` did not.
    Connecting {
        since: Instant,
        tried: Vec<usize>,
    },
    Joined,
}

/// Why a link is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both directions have ended.
    Complete,
    /// One side was reset or failed.
    Failed,
}

pub(super) struct Link {
    pub client: Side,
    pub peer: Option<SocketAddr>,
    /// The target's side; absent when the client gets back what it sends, or while there is none.
    pub target: Option<Side>,
    pub target_index: Option<usize>,
    pub state: State,
    /// To the target, and from it.
    pub flows: [Flow; 2],
    echo: bool,
    pub queued: bool,
    pub progressed: Instant,
    pub deadline: Option<Instant>,
    pub timer: Option<Instant>,
}

impl Link {
    pub fn new(client: OwnedFd, peer: Option<SocketAddr>, echo: bool, now: Instant) -> Self {
        let state = if echo { State::Joined } else { State::Connecting { since: now, tried: Vec::new() } };
        Self {
            client: Side::new(client),
            peer,
            target: None,
            target_index: None,
            state,
            flows: [Flow::default(), Flow::default()],
            echo,
            queued: false,
            progressed: now,
            deadline: None,
            timer: None,
        }
    }

    /// Takes note of what epoll says of one side. True: a failure, the link is over.
    pub fn note(&mut self, is_target: bool, events: EpollFlags) -> bool {
        let side = if is_target { self.target.as_mut() } else { Some(&mut self.client) };
        let Some(side) = side else { return false };
        side.readable |= events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP);
        side.writable |= events.contains(EpollFlags::EPOLLOUT);
        events.contains(EpollFlags::EPOLLERR)
    }

    /// Moves what can be moved in both directions. `Ok(true)`: there is more to do at once.
    pub fn pump(&mut self, means: &mut Means<'_>) -> Result<bool, End> {
        let before = self.flows[0].bytes + self.flows[1].bytes;
        let [up, down] = &mut self.flows;
        let Side { socket: client, readable, writable } = &mut self.client;
        let outcomes = match &mut self.target {
            None if self.echo => {
                let outcome = up.pump(client.as_fd(), readable, client.as_fd(), writable, means);
                [outcome, Ok(Progress::Done)]
            }
            None => return Ok(false),
            Some(target) => [
                up.pump(client.as_fd(), readable, target.socket.as_fd(), &mut target.writable, means),
                down.pump(target.socket.as_fd(), &mut target.readable, client.as_fd(), writable, means),
            ],
        };
        let moved = self.flows[0].bytes + self.flows[1].bytes > before;
        match outcomes {
            [Err(_), _] | [_, Err(_)] => {
                self.fail(outcomes);
                Err(End::Failed)
            }
            [Ok(Progress::Done), Ok(Progress::Done)] => Err(End::Complete),
            [Ok(up), Ok(down)] => {
                if moved {
                    self.progressed = Instant::now();
                }
                Ok(up == Progress::Yield || down == Progress::Yield)
            }
        }
    }

    /// The sockets that have refused bytes, and whether each is the target's.
    pub fn refusing(&self) -> impl Iterator<Item = (&OwnedFd, bool)> {
        let [up, down] = &self.flows;
        let upwards = self.target.as_ref().map_or((&self.client, false), |target| (target, true));
        let sides = [up.refused.then_some(upwards), down.refused.then_some((&self.client, false))];
        sides.into_iter().flatten().map(|(side, is_target)| (&side.socket, is_target))
    }

    /// Both sides learn that bytes may be missing, unless it is their own fault.
    fn fail(&self, outcomes: [Result<Progress, Fault>; 2]) {
        // The side that has failed is the source of one direction or the target of the other.
        let client_failed =
            matches!(outcomes[0], Err(Fault::Source(_))) || matches!(outcomes[1], Err(Fault::Target(_)));
        if !client_failed {
            self.client.reset();
        }
        if let Some(target) = self.target.as_ref().filter(|_| client_failed) {
            target.reset();
        }
    }

    /// Resets both sides.
    pub fn reset(&self) {
        self.client.reset();
        if let Some(target) = &self.target {
            target.reset();
        }
    }

    /// What the target is told of the client.
    pub fn introduce(&mut self, protocol: ProxyProtocol) {
        let own = nix::sys::socket::getsockname(self.client.socket.as_raw_fd())
            .ok()
            .and_then(|name: nix::sys::socket::SockaddrStorage| crate::server::to_std(&name));
        self.flows[0] = Flow::beginning_with(introduction(protocol, self.peer.zip(own)));
    }
}

/// Whether connecting has succeeded.
pub(super) fn connected(socket: &OwnedFd) -> Result<(), Errno> {
    match nix::sys::socket::getsockopt(socket, sockopt::SocketError) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(Errno::from_raw(errno)),
        Err(errno) => Err(errno),
    }
}

/// The header of the PROXY protocol: the client's address and the one that it connected to, where they are known.
fn introduction(protocol: ProxyProtocol, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // One family for both: the listener of `::` names clients of IPv4 in the words of IPv6.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let addresses = addresses.map(|(client, own)| (canonical(client), canonical(own)));
    match protocol {
        ProxyProtocol::V1 => match addresses {
            Some((client, own)) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {} {} {} {}\r\n", client.ip(), own.ip(), client.port(), own.port()).into_bytes()
            }
            None => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        ProxyProtocol::V2 => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            // Version 2, PROXY.
            header.push(0x21);
            let mut rest = Vec::new();
            let family = match addresses {
                Some((SocketAddr::V4(client), SocketAddr::V4(own))) => {
                    rest.extend_from_slice(&client.ip().octets());
                    rest.extend_from_slice(&own.ip().octets());
                    0x11
                }
                Some((SocketAddr::V6(client), SocketAddr::V6(own))) => {
                    rest.extend_from_slice(&client.ip().octets());
                    rest.extend_from_slice(&own.ip().octets());
                    0x21
                }
                _ => 0,
            };
            if let Some((client, own)) = addresses.filter(|_| family != 0) {
                rest.extend_from_slice(&client.port().to_be_bytes());
                rest.extend_from_slice(&own.port().to_be_bytes());
            }
            header.push(family);
            header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
            header.extend_from_slice(&rest);
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn introductions() {
        let pair = |client: &str, own: &str| Some((client.parse().expect("one"), own.parse().expect("two")));
        let v1 = |addresses| String::from_utf8(introduction(ProxyProtocol::V1, addresses)).expect("text");
        assert_eq!(v1(pair("10.0.0.1:1000", "10.0.0.2:80")), "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n");
        assert_eq!(
            v1(pair("[::ffff:10.0.0.1]:1000", "[::ffff:10.0.0.2]:80")),
            "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"
        );
        assert_eq!(
            v1(pair("[2001:db8::1]:1000", "[2001:db8::2]:80")),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n"
        );
        assert_eq!(v1(None), "PROXY UNKNOWN\r\n");
        let v2 = introduction(ProxyProtocol::V2, pair("10.0.0.1:258", "10.0.0.2:80"));
        assert_eq!(&v2[..12], b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(&v2[12..], [0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        assert_eq!(introduction(ProxyProtocol::V2, pair("[::1]:1", "[::1]:2")).len(), 16 + 36);
        assert_eq!(&introduction(ProxyProtocol::V2, None)[12..], [0x21, 0, 0, 0]);
    }
}
