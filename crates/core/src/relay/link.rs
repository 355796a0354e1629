//! A client and its target: two sides and a flow in each direction, with their taps.

use std::net::SocketAddr;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::flow::{Fault, Flow, Means, Progress};
use super::introduction::introduction;
use super::join::{Ended, LinkReport, Outcome, Party};
use super::options::ProxyProtocol;
use super::side::Side;
use super::tap::Tap;

/// How far a link has come.
pub(super) enum State {
    /// The target has not answered yet, or nobody has said which it is. Those in `tried` did not answer.
    Connecting {
        since: Instant,
        tried: Vec<usize>,
        attempts: u32,
    },
    Joined,
}

/// Which end of a link an event is of: the number that epoll gives back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Target,
    Tap(usize),
}

/// Bits that an [`End`] takes.
pub(super) const END_BITS: u32 = 4;
/// Taps of a link at most.
pub const MOST_TAPS: usize = (1 << END_BITS) - 2;

impl End {
    pub fn from_number(number: u64) -> Self {
        match number & ((1 << END_BITS) - 1) {
            0 => End::Client,
            1 => End::Target,
            tap => End::Tap(tap as usize - 2),
        }
    }

    pub fn number(self) -> u64 {
        match self {
            End::Client => 0,
            End::Target => 1,
            End::Tap(tap) => tap as u64 + 2,
        }
    }
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
    /// Whether the end of one side is passed on to the other.
    ends: bool,
    pub queued: bool,
    pub progressed: Instant,
    pub deadline: Option<Instant>,
    pub timer: Option<Instant>,
    /// What the relay's counters know of already.
    pub counted: [u64; 5],
    pub ended: Option<Ended>,
    /// Under which it was joined.
    pub name: Option<u64>,
}

impl Link {
    /// Of a connection that was accepted.
    pub fn accepted(client: Side, peer: Option<SocketAddr>, echo: bool, now: Instant) -> Self {
        let state = if echo { State::Joined } else { State::Connecting { since: now, tried: Vec::new(), attempts: 0 } };
        Self {
            client,
            peer,
            target: None,
            target_index: None,
            state,
            flows: [Flow::default(), Flow::default()],
            echo,
            ends: true,
            queued: false,
            progressed: now,
            deadline: None,
            timer: None,
            counted: [0; 5],
            ended: None,
            name: None,
        }
    }

    /// Of two sides that are there.
    pub fn joined(client: Side, target: Side, flows: [Flow; 2], ends: bool, ended: Ended) -> Self {
        let link = Self::accepted(client, None, false, Instant::now());
        Self { target: Some(target), state: State::Joined, flows, ends, ended: Some(ended), ..link }
    }

    /// The sides that epoll has to wait for.
    pub fn sides(&self) -> impl Iterator<Item = (&Side, End)> {
        let ends = [Some((&self.client, End::Client)), self.target.as_ref().map(|side| (side, End::Target))];
        let taps = self.taps().enumerate().filter_map(|(at, tap)| Some((tap.side()?, End::Tap(at))));
        ends.into_iter().flatten().chain(taps)
    }

    pub fn taps(&self) -> impl Iterator<Item = &Tap> {
        self.flows.iter().flat_map(|flow| &flow.taps)
    }

    pub fn taps_mut(&mut self) -> impl Iterator<Item = &mut Tap> {
        self.flows.iter_mut().flat_map(|flow| &mut flow.taps)
    }

    /// Takes note of what epoll says of one side. `Some`: a failure, the link is over.
    pub fn note(&mut self, end: End, events: EpollFlags) -> Option<Errno> {
        let side = match end {
            End::Client => &self.client,
            End::Target => self.target.as_ref()?,
            End::Tap(at) => {
                self.taps_mut().nth(at)?.note(events);
                return None;
            }
        };
        if side.note(events) { Some(side.failure().err().unwrap_or(Errno::ECONNRESET)) } else { None }
    }

    /// Moves what can be moved in both directions. `Ok(true)`: there is more to do at once.
    pub fn pump(&mut self, means: &mut Means<'_>) -> Result<bool, Outcome> {
        let before = self.moved();
        for tap in self.flows.iter_mut().flat_map(|flow| &mut flow.taps) {
            tap.drain(means);
        }
        let [up, down] = &mut self.flows;
        let client = &self.client;
        let outcomes = match &self.target {
            None if self.echo => [up.pump(client, client, self.ends, means), Ok(Progress::Done)],
            None => return Ok(false),
            Some(target) => [up.pump(client, target, self.ends, means), down.pump(target, client, self.ends, means)],
        };
        if self.moved() > before {
            self.progressed = Instant::now();
        }
        if let Some((at, errno)) = self.taps().enumerate().find_map(|(at, tap)| Some((at, tap.broken()?))) {
            return Err(self.fail(Party::Tap(at), errno));
        }
        match outcomes {
            [Err(Fault::Source(errno)), _] | [_, Err(Fault::Target(errno))] => Err(self.fail(Party::Client, errno)),
            [Err(Fault::Target(errno)), _] | [_, Err(Fault::Source(errno))] => Err(self.fail(Party::Target, errno)),
            [Ok(Progress::Done), Ok(Progress::Done)] => {
                // A tap that still has bytes keeps the link.
                let unfinished = self.taps_mut().map(Tap::finish).filter(|finished| !finished).count();
                if unfinished == 0 { Err(Outcome::Complete) } else { Ok(false) }
            }
            [Ok(up), Ok(down)] => Ok(up == Progress::Yield || down == Progress::Yield),
        }
    }

    /// Whether only taps are left.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Joined) && (self.echo || self.flows[1].done) && self.flows[0].done
    }

    /// Whether all that is left may be missed.
    pub fn may_miss(&self) -> bool {
        self.is_lingering() && self.taps().all(|tap| tap.may_miss())
    }

    fn moved(&self) -> u64 {
        self.flows.iter().map(|flow| flow.bytes).sum::<u64>() + self.taps().map(|tap| tap.report.bytes).sum::<u64>()
    }

    /// The sockets that have refused bytes.
    pub fn refusing(&self) -> impl Iterator<Item = (&Side, End)> {
        let [up, down] = &self.flows;
        let upwards = match &self.target {
            Some(target) => (target, End::Target),
            None => (&self.client, End::Client),
        };
        let sides = [up.refused.then_some(upwards), down.refused.then_some((&self.client, End::Client))];
        let taps = self.taps().enumerate().filter(|(_, tap)| tap.refused);
        let taps = taps.filter_map(|(at, tap)| Some((tap.side()?, End::Tap(at))));
        sides.into_iter().flatten().chain(taps)
    }

    /// The other sides learn that bytes may be missing.
    fn fail(&self, party: Party, errno: Errno) -> Outcome {
        if party != Party::Client {
            self.client.reset();
        }
        if let Some(target) = self.target.as_ref().filter(|_| party != Party::Target) {
            target.reset();
        }
        Outcome::Failed(party, errno)
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
        let addresses = self.peer.zip(self.own_address());
        self.flows[0].introduce(introduction(protocol, addresses));
    }

    /// The address that the client has connected to.
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.client.own_address()
    }

    pub fn report(&self, outcome: Outcome) -> LinkReport {
        let [up, down] = &self.flows;
        LinkReport { up: up.bytes, down: down.bytes, taps: self.taps().map(|tap| tap.report).collect(), outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_numbers() {
        for end in [End::Client, End::Target, End::Tap(0), End::Tap(MOST_TAPS - 1)] {
            assert_eq!(End::from_number(end.number()), end);
            assert!(end.number() < 1 << END_BITS);
        }
    }
}
