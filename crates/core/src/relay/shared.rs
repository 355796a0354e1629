//! What the workers of a relay share.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use super::descriptors::DescriptorQueue;
use super::link_file::{ConnectionNumbers, MirrorFiles};
use super::message::Message;
use super::options::{Destination, MirrorDestination, RelayOptions};
use super::stats::RelayCounters;
use super::targets::Targets;
use crate::event_loop::mailbox::Mailbox;

pub(super) struct Shared {
    pub options: RelayOptions,
    pub targets: Option<Targets>,
    /// Of each worker.
    pub counters: Vec<Arc<RelayCounters>>,
    /// Open connections.
    pub connections: AtomicUsize,
    pub descriptor_queue: DescriptorQueue,
    /// Number of links and mirrors that wait for descriptors. No connection is accepted while it is above 0.
    pub waiting: Arc<AtomicUsize>,
    pub mailboxes: OnceLock<Vec<Arc<Mailbox<Message>>>>,
    /// For the names of mirror files.
    pub numbers: Arc<ConnectionNumbers>,
}

impl Shared {
    pub fn new(mut options: RelayOptions) -> Self {
        let mut files = Vec::new();
        for mirror in &mut options.mirrors {
            let MirrorDestination::Files(to) = &mut mirror.to else { continue };
            // Mirrors of both directions with the same file names share the files.
            match files.iter().find(|other: &&Arc<MirrorFiles>| other.is_same_as(to)) {
                Some(other) => *to = other.clone(),
                None => files.push(to.clone()),
            }
        }
        let first_number = files.iter().map(|files| files.first_free()).max().unwrap_or(1);
        let targets = match &options.destination {
            Destination::Targets(list, balance) => Some(Targets::new(list, *balance, options.down_time)),
            Destination::Echo | Destination::Resolver(_) | Destination::External => None,
        };
        Self {
            targets,
            counters: (0..options.workers).map(|_| Arc::default()).collect(),
            connections: AtomicUsize::new(0),
            descriptor_queue: DescriptorQueue::default(),
            waiting: Arc::default(),
            mailboxes: OnceLock::new(),
            numbers: Arc::new(ConnectionNumbers::starting_at(first_number)),
            options,
        }
    }
}
