//! A client and its target: two sides and a flow in each direction, with their mirrors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::accepting::DescriptorReserve;
use super::connecting::Connecting;
use super::endpoint::Endpoint;
use super::flow::{Flow, Progress, PumpContext, StopReason};
use super::mirror::Mirror;
use super::options::ProxyProtocol;
use super::proxy_protocol::proxy_header;
use super::session::{LinkReport, OnFinished, Outcome};
use super::side::Side;

/// How far a link has come.
pub(super) enum State {
    /// There is no target yet.
    Connecting(Connecting),
    Relaying,
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

pub(super) struct Link {
    pub client: Side,
    pub peer: Option<SocketAddr>,
    /// The target's side; absent when the client gets back what it sends, or while there is none.
    pub target: Option<Side>,
    pub target_index: Option<usize>,
    /// Descriptors for the target, until it is connected to.
    pub reserve: Option<DescriptorReserve>,
    pub state: State,
    /// To the target, and from it.
    pub flows: [Flow; 2],
    echo: bool,
    /// The first failure of a side.
    failure: Option<(Endpoint, Errno)>,
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
    pub on_finished: Option<OnFinished>,
    /// Id of the session it belongs to.
    pub session: Option<u64>,
}

impl Link {
    /// Of a connection that was accepted.
    pub fn accepted(client: Side, peer: Option<SocketAddr>, echo: bool, now: Instant) -> Self {
        let state = if echo { State::Relaying } else { State::Connecting(Connecting::new(now)) };
        Self {
            client,
            peer,
            target: None,
            target_index: None,
            reserve: None,
            state,
            flows: [Flow::default(), if echo { Flow::closed() } else { Flow::default() }],
            echo,
            failure: None,
            ends: true,
            queued: false,
            progressed: now,
            in_flight: None,
            deadline: None,
            timer: None,
            counted: [0; 5],
            on_finished: None,
            session: None,
        }
    }

    /// Of two sides that are there.
    pub fn for_session(client: Side, target: Side, flows: [Flow; 2], ends: bool, on_finished: OnFinished) -> Self {
        let link = Self::accepted(client, None, false, Instant::now());
        Self { target: Some(target), state: State::Relaying, flows, ends, on_finished: Some(on_finished), ..link }
    }

    /// The sides that epoll has to wait for.
    pub fn sides(&self) -> impl Iterator<Item = (&Side, Endpoint)> {
        let ends = [Some((&self.client, Endpoint::Client)), self.target.as_ref().map(|side| (side, Endpoint::Target))];
        let mirrors =
            self.mirrors().enumerate().filter_map(|(at, mirror)| Some((mirror.side()?, Endpoint::Mirror(at))));
        ends.into_iter().flatten().chain(mirrors)
    }

    pub fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        self.flows.iter().flat_map(|flow| &flow.mirrors)
    }

    pub fn mirrors_mut(&mut self) -> impl Iterator<Item = &mut Mirror> {
        self.flows.iter_mut().flat_map(|flow| &mut flow.mirrors)
    }

    /// Records the readiness that epoll reports for one end. True: it is a mirror, which has to be dialled.
    pub fn note(&mut self, end: Endpoint, events: EpollFlags) -> bool {
        let (side, incoming) = match (end, &self.target) {
            (Endpoint::Client, _) => (&self.client, &self.flows[0]),
            (Endpoint::Target, Some(target)) => (target, &self.flows[1]),
            (Endpoint::Target, None) => return false,
            (Endpoint::Mirror(at), _) => return self.mirrors_mut().nth(at).is_some_and(|mirror| mirror.note(events)),
        };
        let is_read = match self.state {
            State::Connecting(_) => true,
            State::Relaying => incoming.over.is_none(),
            State::Closing(_) => false,
        };
        // Where bytes are still read, the error is found behind them.
        if side.note(events) && !is_read {
            side.fail(side.failure().err().unwrap_or(Errno::ECONNRESET));
        }
        false
    }

    /// Moves what can be moved in both directions. `Ok(true)`: there is more to do at once.
    pub fn pump(&mut self, context: &mut PumpContext<'_>) -> Result<bool, Outcome> {
        let before = self.moved();
        for mirror in self.flows.iter_mut().flat_map(|flow| &mut flow.mirrors) {
            mirror.drain(context);
        }
        let [up, down] = &mut self.flows;
        let client = &self.client;
        let progress = match &self.target {
            None if self.echo => [up.pump(client, client, self.ends, context), Progress::Over],
            None => return Ok(false),
            Some(target) => {
                let mut upwards = up.pump(client, target, self.ends, context);
                let downwards = down.pump(target, client, self.ends, context);
                // What the second flow has found out about a side concerns the first one too, and no event reports it.
                if target.broken().is_some() || client.broken().is_some() {
                    upwards = up.pump(client, target, self.ends, context);
                }
                [upwards, downwards]
            }
        };
        self.note_failures();
        if self.moved() > before {
            self.progressed = Instant::now();
            self.in_flight = None;
        }
        if let Some((at, errno)) = self.mirrors().enumerate().find_map(|(at, mirror)| Some((at, mirror.broken()?))) {
            return Err(Outcome::Failed(Endpoint::Mirror(at), errno));
        }
        if progress == [Progress::Over; 2] {
            // A mirror that still has bytes keeps the link.
            let failed = self.failure.is_some();
            // The report of a join waits for what its files are still to get.
            let joined = self.on_finished.is_some();
            let settled = |mirror: &mut Mirror| {
                if failed {
                    mirror.is_drained() || mirror.may_miss() && !(joined && mirror.owes_file())
                } else {
                    mirror.finish()
                }
            };
            let unsettled = self.mirrors_mut().map(settled).filter(|settled| !settled).count();
            return if unsettled == 0 { Err(self.outcome()) } else { Ok(false) };
        }
        Ok(progress.contains(&Progress::Yield))
    }

    /// The side whose failure has stopped the first of the flows. What can be read after a failed write says more.
    fn note_failures(&mut self) {
        let [up, down] = [&self.flows[0], &self.flows[1]].map(|flow| flow.over);
        let failures = [
            if let Some(StopReason::SourceFailed(errno)) = up { Some((Endpoint::Client, errno)) } else { None },
            if let Some(StopReason::SourceFailed(errno)) = down { Some((Endpoint::Target, errno)) } else { None },
            if let Some(StopReason::TargetFailed(errno)) = up { Some((Endpoint::Target, errno)) } else { None },
            if let Some(StopReason::TargetFailed(errno)) = down { Some((Endpoint::Client, errno)) } else { None },
        ];
        let first = self.failure.map(|(endpoint, _)| endpoint);
        let latest = failures.into_iter().flatten().find(|(endpoint, _)| first.is_none_or(|first| first == *endpoint));
        self.failure = latest.or(self.failure);
    }

    /// How a link whose flows are over has ended.
    pub fn outcome(&self) -> Outcome {
        self.failure.map_or(Outcome::Complete, |(endpoint, errno)| Outcome::Failed(endpoint, errno))
    }

    /// Whether only mirrors are left.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Relaying) && self.flows.iter().all(|flow| flow.over.is_some())
    }

    /// Whether all that is left may be missed.
    pub fn may_miss(&self) -> bool {
        self.is_lingering() && self.mirrors().all(|mirror| mirror.may_miss())
    }

    /// Whether peers have taken bytes since this was last asked, which needs no help of the relay's: up to the size of a send
    /// buffer is on its way after the last write.
    pub fn has_peer_progress(&mut self) -> bool {
        let now = self.client.in_flight() + self.target.as_ref().map_or(0, Side::in_flight);
        let before = self.in_flight.replace(now).unwrap_or(0);
        now != before
    }

    fn moved(&self) -> u64 {
        self.flows.iter().map(|flow| flow.bytes).sum::<u64>()
            + self.mirrors().map(|mirror| mirror.report.bytes).sum::<u64>()
    }

    /// The sockets that have refused bytes.
    pub fn sides_to_rearm(&self) -> impl Iterator<Item = (&Side, Endpoint)> {
        let [up, down] = &self.flows;
        let upwards = match &self.target {
            Some(target) => (target, Endpoint::Target),
            None => (&self.client, Endpoint::Client),
        };
        let sides = [up.needs_rearm.then_some(upwards), down.needs_rearm.then_some((&self.client, Endpoint::Client))];
        let mirrors = self.mirrors().enumerate().filter(|(_, mirror)| mirror.needs_rearm);
        let mirrors = mirrors.filter_map(|(at, mirror)| Some((mirror.side()?, Endpoint::Mirror(at))));
        sides.into_iter().flatten().chain(mirrors)
    }

    /// Bytes that a reset now would take from the peers.
    pub fn at_risk(&self) -> u64 {
        let mirrors = self.mirrors().filter(|mirror| mirror.report.failure.is_none()).filter_map(Mirror::side);
        let sides = self.target.iter().chain(mirrors);
        self.client.at_risk() + sides.map(Side::at_risk).sum::<u64>()
    }

    /// Resets both sides.
    pub fn reset(&self) {
        self.client.reset();
        if let Some(target) = &self.target {
            target.reset();
        }
        self.mirrors().filter_map(Mirror::own_side).for_each(Side::reset);
    }

    /// Resets the sides that have not got all of their stream: closing them would look like its end.
    pub fn reset_incomplete(&self) {
        let [up, down] = &self.flows;
        if down.over != Some(StopReason::Ended) || self.echo && up.over != Some(StopReason::Ended) {
            self.client.reset();
        }
        if up.over != Some(StopReason::Ended) {
            if let Some(target) = &self.target {
                target.reset();
            }
            up.mirrors.iter().filter_map(Mirror::own_side).for_each(Side::reset);
        }
        if down.over != Some(StopReason::Ended) {
            down.mirrors.iter().filter_map(Mirror::own_side).for_each(Side::reset);
        }
    }

    /// What the target is told of the client.
    pub fn write_proxy_header(&mut self, protocol: ProxyProtocol) {
        let addresses = self.peer.zip(self.own_address());
        self.flows[0].set_preface(proxy_header(protocol, addresses));
    }

    /// The address that the client has connected to.
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.client.own_address()
    }

    pub fn report(&self, outcome: Outcome) -> LinkReport {
        let [up, down] = &self.flows;
        let mirrors = self.mirrors().map(|mirror| {
            let mut report = mirror.report;
            report.dropped += mirror.unconfirmed();
            report
        });
        LinkReport { up: up.bytes, down: down.bytes, mirrors: mirrors.collect(), outcome }
    }
}
