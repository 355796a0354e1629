//! Decides which job of a lane runs next. It has no threads, and the caller passes the time.
//!
//! Each volume has a queue of jobs, and the queues are served round-robin. A volume may have [`MAX_ACTIVE`] jobs running. A
//! job that has run for [`STUCK_AFTER`] no longer counts against this limit, so one slow file does not delay the others of
//! its volume. But a volume never has more than [`MAX_PER_VOLUME`] threads: a hung mount blocks those only, and its
//! further jobs wait while jobs of other volumes run.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Volume;

/// The maximum of running jobs of a volume that are not stuck: enough to keep the queue of a device busy.
pub(super) const MAX_ACTIVE: usize = 4;
/// After this time a running job counts as stuck.
pub(super) const STUCK_AFTER: Duration = Duration::from_millis(100);
/// The maximum of running jobs of a volume, with the stuck ones.
pub(super) const MAX_PER_VOLUME: usize = 24;
/// The maximum of threads of a lane: enough for several hung volumes.
pub(super) const MAX_THREADS: usize = 128;

/// The next action of a thread.
pub(super) enum Next<J> {
    /// Run this job, then call [`Schedule::finish`].
    Run(J, Ticket),
    /// No job may run before this time, unless one is added or another ends.
    WaitUntil(Instant),
    /// No job may run before one is added or another ends.
    Wait,
}

/// A running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    volume: Volume,
    number: u64,
}

impl Ticket {
    /// The volume of the job.
    pub fn volume(self) -> Volume {
        self.volume
    }
}

struct Queue<J> {
    waiting: VecDeque<(u64, J)>,
    /// Numbers and start times of running jobs, in the order of their start.
    running: Vec<(u64, Instant)>,
}

/// The jobs of one lane.
pub(super) struct Schedule<J> {
    queues: HashMap<Volume, Queue<J>>,
    /// Volumes with waiting jobs; the first is served next.
    round_robin: VecDeque<Volume>,
    waiting: usize,
    next: u64,
}

impl<J> Default for Schedule<J> {
    fn default() -> Self {
        Self { queues: HashMap::new(), round_robin: VecDeque::new(), waiting: 0, next: 0 }
    }
}

impl<J> Schedule<J> {
    /// The number of waiting jobs.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a job to the end of the queue of its volume, and returns its number.
    pub fn push(&mut self, volume: Volume, job: J) -> u64 {
        self.next += 1;
        let queue =
            self.queues.entry(volume).or_insert_with(|| Queue { waiting: VecDeque::new(), running: Vec::new() });
        if queue.waiting.is_empty() {
            self.round_robin.push_back(volume);
        }
        queue.waiting.push_back((self.next, job));
        self.waiting += 1;
        self.next
    }

    /// Removes a job that was not started.
    pub fn remove(&mut self, volume: Volume, number: u64) -> Option<J> {
        let queue = self.queues.get_mut(&volume)?;
        let at = queue.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, job) = queue.waiting.remove(at)?;
        self.waiting -= 1;
        if queue.waiting.is_empty() {
            self.round_robin.retain(|other| *other != volume);
            if queue.running.is_empty() {
                self.queues.remove(&volume);
            }
        }
        Some(job)
    }

    /// The next job that may run now.
    pub fn next(&mut self, now: Instant) -> Next<J> {
        let mut earliest: Option<Instant> = None;
        for at in 0..self.round_robin.len() {
            let Some(volume) = self.round_robin.get(at).copied() else { break };
            let Some(queue) = self.queues.get_mut(&volume) else { continue };
            match queue.free_at(now) {
                Some(free) if free <= now => {
                    let Some((number, job)) = queue.waiting.pop_front() else { continue };
                    queue.running.push((number, now));
                    self.waiting -= 1;
                    self.round_robin.remove(at);
                    if !queue.waiting.is_empty() {
                        self.round_robin.push_back(volume);
                    }
                    return Next::Run(job, Ticket { volume, number });
                }
                Some(free) => earliest = Some(earliest.map_or(free, |earliest| earliest.min(free))),
                None => {}
            }
        }
        earliest.map_or(Next::Wait, Next::WaitUntil)
    }

    /// Removes all waiting jobs.
    pub fn drain(&mut self) -> impl Iterator<Item = J> {
        self.round_robin.clear();
        self.waiting = 0;
        self.queues.drain().flat_map(|(_, queue)| queue.waiting).map(|(_, job)| job)
    }

    /// Records that a running job ended.
    pub fn finish(&mut self, ticket: Ticket) {
        let Some(queue) = self.queues.get_mut(&ticket.volume) else { return };
        queue.running.retain(|(number, _)| *number != ticket.number);
        if queue.running.is_empty() && queue.waiting.is_empty() {
            self.queues.remove(&ticket.volume);
        }
    }
}

impl<J> Queue<J> {
    /// The time from which the next job may start; `None`: not before another ends.
    fn free_at(&self, now: Instant) -> Option<Instant> {
        if self.running.len() >= MAX_PER_VOLUME {
            return None;
        }
        // `running` is in the order of start: if the job MAX_ACTIVE places from the end is stuck, all before it are.
        let Some(oldest_active) = self.running.len().checked_sub(MAX_ACTIVE) else { return Some(now) };
        self.running.get(oldest_active).map(|(_, started)| *started + STUCK_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Volume = Volume::NONE;

    fn take(schedule: &mut Schedule<u32>, now: Instant) -> Option<(u32, Ticket)> {
        match schedule.next(now) {
            Next::Run(job, ticket) => Some((job, ticket)),
            Next::WaitUntil(_) | Next::Wait => None,
        }
    }

    #[test]
    fn volumes_are_served_round_robin() {
        let mut schedule = Schedule::default();
        let other = Volume::of_device(7);
        for job in 0..3 {
            schedule.push(SLOW, job);
        }
        schedule.push(other, 10);
        let now = Instant::now();
        let order: Vec<_> = std::iter::from_fn(|| take(&mut schedule, now)).map(|(job, _)| job).collect();
        assert_eq!(order, [0, 10, 1, 2]);
    }

    #[test]
    fn a_hung_volume_has_a_bounded_number_of_threads_and_others_run() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        for job in 0..100 {
            schedule.push(SLOW, job);
        }
        assert_eq!(std::iter::from_fn(|| take(&mut schedule, start)).count(), MAX_ACTIVE);
        assert!(matches!(schedule.next(start), Next::WaitUntil(at) if at == start + STUCK_AFTER));
        schedule.push(Volume::of_device(7), 1000);
        assert_eq!(take(&mut schedule, start).map(|(job, _)| job), Some(1000));

        let mut running = MAX_ACTIVE;
        let mut now = start;
        for _ in 0..100 {
            now += STUCK_AFTER;
            running += std::iter::from_fn(|| take(&mut schedule, now)).count();
        }
        assert_eq!(running, MAX_PER_VOLUME);
        assert!(matches!(schedule.next(now), Next::Wait));
        schedule.push(Volume::of_device(8), 2000);
        assert_eq!(take(&mut schedule, now).map(|(job, _)| job), Some(2000));
    }

    #[test]
    fn an_ended_job_makes_room_and_a_removed_job_does_not_run() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        let numbers: Vec<_> = (0..6).map(|job| schedule.push(SLOW, job)).collect();
        let running: Vec<_> = std::iter::from_fn(|| take(&mut schedule, now)).collect();
        assert_eq!(schedule.remove(SLOW, numbers[4]), Some(4));
        assert_eq!(schedule.remove(SLOW, numbers[4]), None);
        assert_eq!(schedule.remove(SLOW, numbers[0]), None, "it is running");
        schedule.finish(running[1].1);
        assert_eq!(take(&mut schedule, now).map(|(job, _)| job), Some(5));
        assert_eq!(schedule.waiting(), 0);
    }
}
