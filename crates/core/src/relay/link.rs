//! A client and its target: two sides, a flow in each direction, and the mirrors of the flows.

use std::net::SocketAddr;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::descriptors::DescriptorReserve;
use super::endpoint::Endpoint;
use super::flow::{Flow, FlowState, StopReason};
use super::link_state::{Connecting, LinkState};
use super::mirror::Mirror;
use super::options::ProxyProtocol;
use super::proxy_protocol::proxy_header;
use super::pump::PumpContext;
use super::session::{LinkReport, OnFinished, Outcome};
use super::side::Side;

pub(super) struct Link {
    pub client: Side,
    /// The address of the client; `None` for clients of Unix sockets and for sessions.
    pub client_address: Option<SocketAddr>,
    /// `None` for an echo, and until a target is connected.
    pub target: Option<Side>,
    pub target_index: Option<usize>,
    /// Descriptors for the target and the mirrors, until they are connected.
    pub reserve: Option<DescriptorReserve>,
    pub state: LinkState,
    /// From the client to the target, and back.
    pub flows: [Flow; 2],
    echo: bool,
    /// The first endpoint that failed.
    failure: Option<(Endpoint, Errno)>,
    /// Whether the end of one side is passed on to the other.
    passes_end: bool,
    /// When bytes were last moved.
    pub progressed: Instant,
    /// Unacknowledged bytes at the last check of the idle timeout.
    unacknowledged: Option<u64>,
    /// What is already in the counters of the worker: see `RelayCounters::add_progress`.
    pub counted: [u64; 5],
    pub on_finished: Option<OnFinished>,
    /// Id of the session.
    pub session: Option<u64>,
}

impl Link {
    /// The link of an accepted connection.
    pub fn accepted(client: Side, client_address: Option<SocketAddr>, echo: bool, now: Instant) -> Self {
        Self {
            client,
            client_address,
            target: None,
            target_index: None,
            reserve: None,
            state: if echo { LinkState::Relaying } else { LinkState::Connecting(Connecting::new(now)) },
            flows: [Flow::default(), if echo { Flow::closed() } else { Flow::default() }],
            echo,
            failure: None,
            passes_end: true,
            progressed: now,
            unacknowledged: None,
            counted: [0; 5],
            on_finished: None,
            session: None,
        }
    }

    /// The link of a session.
    pub fn for_session(
        session: u64,
        [client, target]: [Side; 2],
        flows: [Flow; 2],
        passes_end: bool,
        on_finished: OnFinished,
    ) -> Self {
        Self {
            target: Some(target),
            state: LinkState::Relaying,
            flows,
            passes_end,
            on_finished: Some(on_finished),
            session: Some(session),
            ..Self::accepted(client, None, false, Instant::now())
        }
    }

    /// The descriptors to register with epoll.
    pub fn sides(&self) -> impl Iterator<Item = (&Side, Endpoint)> {
        let client = (&self.client, Endpoint::Client);
        let target = self.target.as_ref().map(|side| (side, Endpoint::Target));
        let mirrors = self.mirrors().enumerate();
        let mirrors = mirrors.filter_map(|(at, mirror)| Some((mirror.side()?, Endpoint::Mirror(at))));
        std::iter::once(client).chain(target).chain(mirrors)
    }

    pub fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        self.flows.iter().flat_map(|flow| &flow.mirrors)
    }

    pub fn mirrors_mut(&mut self) -> impl Iterator<Item = &mut Mirror> {
        self.flows.iter_mut().flat_map(|flow| &mut flow.mirrors)
    }

    /// Handles an event of an endpoint. Returns true for a mirror that has to be dialed.
    pub fn on_event(&mut self, endpoint: Endpoint, events: EpollFlags) -> bool {
        let (side, incoming) = match (endpoint, &self.target) {
            (Endpoint::Client, _) => (&self.client, &self.flows[0]),
            (Endpoint::Target, Some(target)) => (target, &self.flows[1]),
            (Endpoint::Target, None) => return false,
            (Endpoint::Mirror(at), _) => {
                return self.mirrors_mut().nth(at).is_some_and(|mirror| mirror.on_event(events));
            }
        };
        let is_read = match self.state {
            LinkState::Connecting(_) => true,
            LinkState::Relaying => incoming.stopped.is_none(),
            LinkState::Closing(_) => false,
        };
        // If the side is still read, the error follows the bytes that arrived before it.
        if side.set_ready(events) && !is_read {
            side.fail(side.take_error().err().unwrap_or(Errno::ECONNRESET));
        }
        false
    }

    /// Moves bytes in both directions. Returns `Ok(true)` if the link needs another turn at once, and the outcome when it has
    /// finished.
    pub fn pump(&mut self, context: &mut PumpContext<'_>) -> Result<bool, Outcome> {
        let before = self.moved();
        for mirror in self.flows.iter_mut().flat_map(|flow| &mut flow.mirrors) {
            mirror.drain(context);
        }
        let [up, down] = &mut self.flows;
        let client = &self.client;
        let progress = match &self.target {
            None if self.echo => [up.pump(client, client, self.passes_end, context), FlowState::Finished],
            None => return Ok(false),
            Some(target) => {
                let mut progress_up = up.pump(client, target, self.passes_end, context);
                let progress_down = down.pump(target, client, self.passes_end, context);
                // The first flow stops too when the second has found that a side failed. No event would report that.
                if target.write_error().is_some() || client.write_error().is_some() {
                    progress_up = up.pump(client, target, self.passes_end, context);
                }
                [progress_up, progress_down]
            }
        };
        self.note_failures();
        if self.moved() > before {
            self.progressed = Instant::now();
            self.unacknowledged = None;
        }
        if let Some((at, errno)) = self.mirrors().enumerate().find_map(|(at, mirror)| Some((at, mirror.link_error()?)))
        {
            return Err(Outcome::Failed(Endpoint::Mirror(at), errno));
        }
        if progress == [FlowState::Finished; 2] {
            return if self.finish_mirrors() { Err(self.outcome()) } else { Ok(false) };
        }
        Ok(progress.contains(&FlowState::Yield))
    }

    /// Finishes the mirrors after the flows. Returns false while the link has to stay open for one of them.
    fn finish_mirrors(&mut self) -> bool {
        let has_failed = self.failure.is_some();
        // The report of a session includes all bytes of its files.
        let is_session = self.session.is_some();
        let finish = |mirror: &mut Mirror| {
            if !has_failed {
                return mirror.finish();
            }
            mirror.is_drained() || mirror.may_be_dropped() && !(is_session && mirror.has_unwritten_file_bytes())
        };
        // Each mirror is called, also after one that is not finished.
        self.mirrors_mut().map(finish).fold(true, |all, finished| all & finished)
    }

    /// Records the endpoint that has stopped the first of the flows. A read error replaces the error of a failed write: it is the
    /// cause of the write error.
    fn note_failures(&mut self) {
        let [up, down] = [&self.flows[0], &self.flows[1]].map(|flow| flow.stopped);
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

    /// The outcome of a link whose flows have finished.
    pub fn outcome(&self) -> Outcome {
        self.failure.map_or(Outcome::Complete, |(endpoint, errno)| Outcome::Failed(endpoint, errno))
    }

    /// Whether only mirrors still have bytes to write.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state, LinkState::Relaying) && self.flows.iter().all(|flow| flow.stopped.is_some())
    }

    /// Whether only bytes are left that may be dropped.
    pub fn may_be_dropped(&self) -> bool {
        self.is_lingering() && self.mirrors().all(|mirror| mirror.may_be_dropped())
    }

    /// Whether a peer has acknowledged bytes since the last call. The bytes of the last write, up to the size of a send buffer,
    /// move without the relay.
    pub fn has_peer_progress(&mut self) -> bool {
        let now = self.client.unacknowledged() + self.target.as_ref().map_or(0, Side::unacknowledged);
        let before = self.unacknowledged.replace(now).unwrap_or(0);
        now != before
    }

    fn moved(&self) -> u64 {
        let mirrored = self.mirrors().map(|mirror| mirror.report.bytes).sum::<u64>();
        self.flows.iter().map(|flow| flow.bytes).sum::<u64>() + mirrored
    }

    /// The sides that have refused bytes in the last pump; see `Flow::needs_rearm`.
    pub fn sides_to_rearm(&self) -> impl Iterator<Item = (&Side, Endpoint)> {
        let [up, down] = &self.flows;
        let destination = match &self.target {
            Some(target) => (target, Endpoint::Target),
            None => (&self.client, Endpoint::Client),
        };
        let sides =
            [up.needs_rearm.then_some(destination), down.needs_rearm.then_some((&self.client, Endpoint::Client))];
        let mirrors = self.mirrors().enumerate().filter(|(_, mirror)| mirror.needs_rearm);
        let mirrors = mirrors.filter_map(|(at, mirror)| Some((mirror.side()?, Endpoint::Mirror(at))));
        sides.into_iter().flatten().chain(mirrors)
    }

    /// Bytes to all peers that a reset now would discard.
    pub fn discarded_by_reset(&self) -> u64 {
        let mirrors = self.mirrors().filter(|mirror| mirror.report.failure.is_none()).filter_map(Mirror::side);
        let sides = self.target.iter().chain(mirrors);
        self.client.discarded_by_reset() + sides.map(Side::discarded_by_reset).sum::<u64>()
    }

    /// Makes the close of all its connections a reset.
    pub fn reset_on_close(&self) {
        self.client.reset_on_close();
        if let Some(target) = &self.target {
            target.reset_on_close();
        }
        self.mirrors().filter_map(Mirror::private_side).for_each(Side::reset_on_close);
    }

    /// Makes the close of those connections a reset whose stream is incomplete: a normal close would look like its end.
    pub fn reset_incomplete_on_close(&self) {
        let [up, down] = &self.flows;
        let [up_ended, down_ended] = [up, down].map(|flow| flow.stopped == Some(StopReason::Ended));
        if !down_ended || self.echo && !up_ended {
            self.client.reset_on_close();
        }
        if let Some(target) = self.target.as_ref().filter(|_| !up_ended) {
            target.reset_on_close();
        }
        for (flow, has_ended) in [(up, up_ended), (down, down_ended)] {
            if !has_ended {
                flow.mirrors.iter().filter_map(Mirror::private_side).for_each(Side::reset_on_close);
            }
        }
    }

    /// Puts the header of the PROXY protocol in front of the bytes to the target.
    pub fn write_proxy_header(&mut self, protocol: ProxyProtocol) {
        let addresses = self.client_address.and_then(|client| Some((client, self.client.local_address()?)));
        self.flows[0].set_preface(proxy_header(protocol, addresses));
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
