//! A client and its target: two sides and a flow in each direction, with their taps.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::accepting::Reserve;
use super::connecting::Connecting;
use super::flow::{Flow, Means, Over, Progress};
use super::introduction::introduction;
use super::join::{Ended, LinkReport, Outcome, Party};
use super::options::ProxyProtocol;
use super::side::Side;
use super::tap::Tap;

/// How far a link has come.
pub(super) enum State {
    /// There is no target yet.
    Connecting(Connecting),
    Joined,
    /// It is over because of a failure. Its sides are reset when their peers have acknowledged what was sent to them, for
    /// a reset discards the rest.
    Closing(Closing),
}

/// How far a link that is reset has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub outcome: Outcome,
    /// Bytes that were not acknowledged when last looked at.
    pub at_risk: u64,
    /// When that was less than before.
    pub progressed: Instant,
    /// Until the next look: the kernel has no event for acknowledgements.
    pub pause: Duration,
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
    /// Descriptors for the target, until it is connected to.
    pub reserve: Option<Reserve>,
    pub state: State,
    /// To the target, and from it.
    pub flows: [Flow; 2],
    echo: bool,
    /// The first failure of a side.
    failure: Option<(Party, Errno)>,
    /// Whether the end of one side is passed on to the other.
    ends: bool,
    pub queued: bool,
    pub progressed: Instant,
    /// Bytes in flight when the idle timeout was last checked; see [`Link::is_moving`].
    in_flight: Option<u64>,
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
        let state = if echo { State::Joined } else { State::Connecting(Connecting::new(now)) };
        Self {
            client,
            peer,
            target: None,
            target_index: None,
            reserve: None,
            state,
            flows: [Flow::default(), if echo { Flow::absent() } else { Flow::default() }],
            echo,
            failure: None,
            ends: true,
            queued: false,
            progressed: now,
            in_flight: None,
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

    /// Records the readiness that epoll reports for one end. True: it is a mirror, which has to be dialled.
    pub fn note(&mut self, end: End, events: EpollFlags) -> bool {
        let (side, incoming) = match (end, &self.target) {
            (End::Client, _) => (&self.client, &self.flows[0]),
            (End::Target, Some(target)) => (target, &self.flows[1]),
            (End::Target, None) => return false,
            (End::Tap(at), _) => return self.taps_mut().nth(at).is_some_and(|tap| tap.note(events)),
        };
        let is_read = match self.state {
            State::Connecting(_) => true,
            State::Joined => incoming.over.is_none(),
            State::Closing(_) => false,
        };
        // Where bytes are still read, the error is found behind them.
        if side.note(events) && !is_read {
            side.fail(side.failure().err().unwrap_or(Errno::ECONNRESET));
        }
        false
    }

    /// Moves what can be moved in both directions. `Ok(true)`: there is more to do at once.
    pub fn pump(&mut self, means: &mut Means<'_>) -> Result<bool, Outcome> {
        let before = self.moved();
        for tap in self.flows.iter_mut().flat_map(|flow| &mut flow.taps) {
            tap.drain(means);
        }
        let [up, down] = &mut self.flows;
        let client = &self.client;
        let progress = match &self.target {
            None if self.echo => [up.pump(client, client, self.ends, means), Progress::Over],
            None => return Ok(false),
            Some(target) => {
                let mut upwards = up.pump(client, target, self.ends, means);
                let downwards = down.pump(target, client, self.ends, means);
                // What the second flow has found out about a side concerns the first one too, and no event reports it.
                if target.broken().is_some() || client.broken().is_some() {
                    upwards = up.pump(client, target, self.ends, means);
                }
                [upwards, downwards]
            }
        };
        self.note_failures();
        if self.moved() > before {
            self.progressed = Instant::now();
            self.in_flight = None;
        }
        if let Some((at, errno)) = self.taps().enumerate().find_map(|(at, tap)| Some((at, tap.broken()?))) {
            return Err(Outcome::Failed(Party::Tap(at), errno));
        }
        if progress == [Progress::Over; 2] {
            // A tap that still has bytes keeps the link.
            let failed = self.failure.is_some();
            // The report of a join waits for what its files are still to get.
            let joined = self.ended.is_some();
            let settled = |tap: &mut Tap| {
                if failed { tap.is_drained() || tap.may_miss() && !(joined && tap.owes_file()) } else { tap.finish() }
            };
            let unsettled = self.taps_mut().map(settled).filter(|settled| !settled).count();
            return if unsettled == 0 { Err(self.outcome()) } else { Ok(false) };
        }
        Ok(progress.contains(&Progress::Yield))
    }

    /// The side whose failure has stopped the first of the flows. What can be read after a failed write says more.
    fn note_failures(&mut self) {
        let [up, down] = [&self.flows[0], &self.flows[1]].map(|flow| flow.over);
        let failures = [
            if let Some(Over::SourceFailed(errno)) = up { Some((Party::Client, errno)) } else { None },
            if let Some(Over::SourceFailed(errno)) = down { Some((Party::Target, errno)) } else { None },
            if let Some(Over::TargetFailed(errno)) = up { Some((Party::Target, errno)) } else { None },
            if let Some(Over::TargetFailed(errno)) = down { Some((Party::Client, errno)) } else { None },
        ];
        let first = self.failure.map(|(party, _)| party);
        let latest = failures.into_iter().flatten().find(|(party, _)| first.is_none_or(|first| first == *party));
        self.failure = latest.or(self.failure);
    }

    /// How a link whose flows are over has ended.
    pub fn outcome(&self) -> Outcome {
        self.failure.map_or(Outcome::Complete, |(party, errno)| Outcome::Failed(party, errno))
    }

    /// Whether only taps are left.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Joined) && self.flows.iter().all(|flow| flow.over.is_some())
    }

    /// Whether all that is left may be missed.
    pub fn may_miss(&self) -> bool {
        self.is_lingering() && self.taps().all(|tap| tap.may_miss())
    }

    /// Whether peers have taken bytes since this was last asked, which needs no help of the relay's: up to the size of a send
    /// buffer is on its way after the last write.
    pub fn is_moving(&mut self) -> bool {
        let now = self.client.in_flight() + self.target.as_ref().map_or(0, Side::in_flight);
        let before = self.in_flight.replace(now).unwrap_or(0);
        now != before
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

    /// Bytes that a reset now would take from the peers.
    pub fn at_risk(&self) -> u64 {
        let taps = self.taps().filter(|tap| tap.report.failure.is_none()).filter_map(Tap::side);
        let sides = self.target.iter().chain(taps);
        self.client.at_risk() + sides.map(Side::at_risk).sum::<u64>()
    }

    /// Resets both sides.
    pub fn reset(&self) {
        self.client.reset();
        if let Some(target) = &self.target {
            target.reset();
        }
        self.taps().filter_map(Tap::own_side).for_each(Side::reset);
    }

    /// Resets the sides that have not got all of their stream: closing them would look like its end.
    pub fn reset_incomplete(&self) {
        let [up, down] = &self.flows;
        if down.over != Some(Over::Ended) || self.echo && up.over != Some(Over::Ended) {
            self.client.reset();
        }
        if up.over != Some(Over::Ended) {
            if let Some(target) = &self.target {
                target.reset();
            }
            up.taps.iter().filter_map(Tap::own_side).for_each(Side::reset);
        }
        if down.over != Some(Over::Ended) {
            down.taps.iter().filter_map(Tap::own_side).for_each(Side::reset);
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
        let taps = self.taps().map(|tap| {
            let mut report = tap.report;
            report.dropped += tap.unconfirmed();
            report
        });
        LinkReport { up: up.bytes, down: down.bytes, taps: taps.collect(), outcome }
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
