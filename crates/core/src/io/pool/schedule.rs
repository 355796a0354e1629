//! Which job runs next: the rules of a lane, without threads and without a clock of its own.
//!
//! Jobs wait in one queue for each volume, and volumes take turns. A volume may have [`FRESH`] jobs running. A job that
//! has been running for [`STUCK_AFTER`] no longer counts against that, so that one slow file does not hold up the others
//! of its volume, but a volume never has more than [`MAX_PER_VOLUME`] threads: a hung mount uses those and no more, and
//! its further jobs wait while those of other volumes run.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Volume;

/// Jobs of one volume that run at once while each makes progress: a handful keeps the queue of a device busy.
pub(super) const FRESH: usize = 4;
/// After this time a running job counts as stuck.
pub(super) const STUCK_AFTER: Duration = Duration::from_millis(100);
/// Threads that the jobs of one volume occupy at most, stuck ones included.
pub(super) const MAX_PER_VOLUME: usize = 24;
/// Threads of a lane at most: several volumes may hang at once.
pub(super) const MAX_THREADS: usize = 128;

/// What a thread is to do.
pub(super) enum Next<J> {
    /// Run this job, then call [`Schedule::finished`].
    Run(J, Ticket),
    /// Jobs wait, and one of them may run at this time if no other thread takes it before.
    At(Instant),
    /// Nothing to do until a job is added or another ends.
    Nothing,
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
    /// Numbers and start times of running jobs, in the order in which they were started.
    running: Vec<(u64, Instant)>,
}

/// The jobs of one lane.
pub(super) struct Schedule<J> {
    queues: HashMap<Volume, Queue<J>>,
    /// Volumes with waiting jobs; the first has its turn next.
    turns: VecDeque<Volume>,
    waiting: usize,
    next: u64,
}

impl<J> Default for Schedule<J> {
    fn default() -> Self {
        Self { queues: HashMap::new(), turns: VecDeque::new(), waiting: 0, next: 0 }
    }
}

impl<J> Schedule<J> {
    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a job behind those of its volume, and returns its number.
    pub fn push(&mut self, volume: Volume, job: J) -> u64 {
        self.next += 1;
        let queue =
            self.queues.entry(volume).or_insert_with(|| Queue { waiting: VecDeque::new(), running: Vec::new() });
        if queue.waiting.is_empty() {
            self.turns.push_back(volume);
        }
        queue.waiting.push_back((self.next, job));
        self.waiting += 1;
        self.next
    }

    /// Takes a job out again that has not been started.
    pub fn withdraw(&mut self, volume: Volume, number: u64) -> Option<J> {
        let queue = self.queues.get_mut(&volume)?;
        let at = queue.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, job) = queue.waiting.remove(at)?;
        self.waiting -= 1;
        if queue.waiting.is_empty() {
            self.turns.retain(|other| *other != volume);
            if queue.running.is_empty() {
                self.queues.remove(&volume);
            }
        }
        Some(job)
    }

    /// Takes the next job that may run now.
    pub fn next(&mut self, now: Instant) -> Next<J> {
        let mut earliest: Option<Instant> = None;
        for at in 0..self.turns.len() {
            let Some(volume) = self.turns.get(at).copied() else { break };
            let Some(queue) = self.queues.get_mut(&volume) else { continue };
            match queue.free_at(now) {
                Some(free) if free <= now => {
                    let Some((number, job)) = queue.waiting.pop_front() else { continue };
                    queue.running.push((number, now));
                    self.waiting -= 1;
                    self.turns.remove(at);
                    if !queue.waiting.is_empty() {
                        self.turns.push_back(volume);
                    }
                    return Next::Run(job, Ticket { volume, number });
                }
                Some(free) => earliest = Some(earliest.map_or(free, |earliest| earliest.min(free))),
                None => {}
            }
        }
        earliest.map_or(Next::Nothing, Next::At)
    }

    /// Takes out all jobs that wait.
    pub fn drain(&mut self) -> impl Iterator<Item = J> {
        self.turns.clear();
        self.waiting = 0;
        self.queues.drain().flat_map(|(_, queue)| queue.waiting).map(|(_, job)| job)
    }

    /// A running job has ended.
    pub fn finished(&mut self, ticket: Ticket) {
        let Some(queue) = self.queues.get_mut(&ticket.volume) else { return };
        queue.running.retain(|(number, _)| *number != ticket.number);
        if queue.running.is_empty() && queue.waiting.is_empty() {
            self.queues.remove(&ticket.volume);
        }
    }
}

impl<J> Queue<J> {
    /// When the next job may start, unless one ends before; `None`: not before one ends.
    fn free_at(&self, now: Instant) -> Option<Instant> {
        if self.running.len() >= MAX_PER_VOLUME {
            return None;
        }
        // In the order of their start: if the one FRESH places from the end is stuck, all before it are.
        let Some(oldest_fresh) = self.running.len().checked_sub(FRESH) else { return Some(now) };
        self.running.get(oldest_fresh).map(|(_, started)| *started + STUCK_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Volume = Volume::NONE;

    fn take(schedule: &mut Schedule<u32>, now: Instant) -> Option<(u32, Ticket)> {
        match schedule.next(now) {
            Next::Run(job, ticket) => Some((job, ticket)),
            Next::At(_) | Next::Nothing => None,
        }
    }

    #[test]
    fn volumes_take_turns() {
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
    fn a_hung_volume_keeps_its_own_bound_and_others_run() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        for job in 0..100 {
            schedule.push(SLOW, job);
        }
        assert_eq!(std::iter::from_fn(|| take(&mut schedule, start)).count(), FRESH);
        assert!(matches!(schedule.next(start), Next::At(at) if at == start + STUCK_AFTER));
        schedule.push(Volume::of_device(7), 1000);
        assert_eq!(take(&mut schedule, start).map(|(job, _)| job), Some(1000));

        let mut running = FRESH;
        let mut now = start;
        for _ in 0..100 {
            now += STUCK_AFTER;
            running += std::iter::from_fn(|| take(&mut schedule, now)).count();
        }
        assert_eq!(running, MAX_PER_VOLUME);
        assert!(matches!(schedule.next(now), Next::Nothing));
        schedule.push(Volume::of_device(8), 2000);
        assert_eq!(take(&mut schedule, now).map(|(job, _)| job), Some(2000));
    }

    #[test]
    fn what_ends_makes_room_and_what_is_withdrawn_does_not_run() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        let numbers: Vec<_> = (0..6).map(|job| schedule.push(SLOW, job)).collect();
        let running: Vec<_> = std::iter::from_fn(|| take(&mut schedule, now)).collect();
        assert_eq!(schedule.withdraw(SLOW, numbers[4]), Some(4));
        assert_eq!(schedule.withdraw(SLOW, numbers[4]), None);
        assert_eq!(schedule.withdraw(SLOW, numbers[0]), None, "it runs already");
        schedule.finished(running[1].1);
        assert_eq!(take(&mut schedule, now).map(|(job, _)| job), Some(5));
        assert_eq!(schedule.waiting(), 0);
    }
}
