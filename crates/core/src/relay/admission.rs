//! Which connections a worker accepts: limits, and the descriptors that a connection needs.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::descriptors::DescriptorReserve;
use super::link::Link;
use super::link_file::LinkName;
use super::message::Message;
use super::mirror::Mirror;
use super::mirror_sink::MirrorSink;
use super::options::{Destination, Direction, MirrorDestination, RelayOptions};
use super::side::Side;
use super::worker::Worker;
use crate::event_loop::{EventLoop, contain};
use crate::net::acceptor::{Accept, Accepted, Acceptor};

/// Descriptors that a connection needs besides its socket: for the target and for mirrors that are servers.
fn reserve_size(options: &RelayOptions) -> usize {
    let servers = options.mirrors.iter().filter(|mirror| matches!(mirror.to, MirrorDestination::Server(_))).count();
    servers + usize::from(!matches!(options.destination, Destination::Echo))
}

impl Accept for Worker {
    type Reserve = DescriptorReserve;

    fn accept_parts(&mut self) -> (&mut Acceptor<Message>, &EventLoop<Message>) {
        (&mut self.acceptor, &self.event_loop)
    }

    fn reserve(&mut self) -> Option<DescriptorReserve> {
        // The first worker of the queue has its turn when its pause ends.
        let is_next = std::mem::take(&mut self.is_next);
        let others_wait = || !is_next && self.shared.descriptor_queue.others_wait(self.number);
        if self.shared.waiting.load(Ordering::Relaxed) > 0 || others_wait() {
            self.reserve = None;
            return None;
        }
        let Self { pipes, mirror_pipes, .. } = self;
        self.reserve.take().or_else(|| {
            DescriptorReserve::acquire(
                reserve_size(&self.shared.options),
                self.event_loop.mailbox().waker().as_fd(),
                || {
                    pipes.close_idle();
                    mirror_pipes.close_idle();
                },
            )
        })
    }

    fn unreserve(&mut self, reserve: DescriptorReserve) {
        self.reserve = Some(reserve);
    }

    fn message(connection: Accepted<DescriptorReserve>) -> Message {
        Message::Accepted(connection)
    }

    fn on_accept(&mut self, connection: Accepted<DescriptorReserve>) {
        crate::failpoint::failpoint!("relay::accept");
        let Accepted { socket, client: client_address, reserve } = connection;
        let shared = self.shared.clone();
        self.counters.accepted.add(1);
        if shared.connections.load(Ordering::Relaxed) >= shared.options.connections {
            self.counters.refused.add(1);
            return;
        }
        let client = Side::socket(socket);
        if client_address.is_some() {
            client.set_no_delay();
        }
        let echo = matches!(shared.options.destination, Destination::Echo);
        let mut link = Link::accepted(client, client_address, echo, Instant::now());
        link.reserve = Some(reserve);
        self.add_mirrors(&mut link);
        let Some(token) = self.insert(link) else { return };
        contain(self, Some(token), |worker| {
            for index in 0..worker.shared.options.mirrors.len() {
                worker.dial_mirror(token, index);
            }
            if echo {
                worker.update_deadline(token);
                worker.drive(token);
            } else {
                worker.connect(token);
            }
        });
    }

    /// Closes idle pipes.
    fn free_descriptors(&mut self) -> bool {
        [self.pipes.close_idle(), self.mirror_pipes.close_idle()].contains(&true)
    }

    fn on_pause(&mut self) {
        self.counters.refused.add(1);
        self.shared.descriptor_queue.add(self.number);
    }

    fn on_resume(&mut self) {
        self.is_next = true;
        self.shared.descriptor_queue.remove(self.number);
    }

    fn on_listener_closed(&mut self) {
        self.shared.descriptor_queue.remove(self.number);
        self.reserve = None;
    }
}

impl Worker {
    fn add_mirrors(&self, link: &mut Link) {
        let of = |direction| self.shared.options.mirrors.iter().filter(move |mirror| mirror.direction == direction);
        let mut name = None;
        for (index, mirror) in of(Direction::Up).chain(of(Direction::Down)).enumerate() {
            let link_name = || Arc::new(LinkName::new(&self.shared.numbers, link.client_address));
            let sink = MirrorSink::open(&mirror.to, || name.get_or_insert_with(link_name).clone());
            link.flows[mirror.direction as usize].mirrors.push(Mirror::new(sink, mirror.policy, index));
        }
    }
}
