//! The entries of an event loop, the order in which they get turns, and their deadlines.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::slab::{Slab, Token};

struct Slot<T> {
    value: T,
    is_queued: bool,
    deadline: Option<Instant>,
    /// The entry in [`Scheduler::timers`], at `deadline` or before.
    timer: Option<Instant>,
}

/// A deadline that [`Scheduler::pop_due`] has removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The deadline of this entry has passed.
    Expired(Token),
    /// A timer fired early: the deadline of its entry was moved or removed.
    Moved,
}

/// Entries by [`Token`], each with at most one turn in the queue and at most one timer.
pub(crate) struct Scheduler<T> {
    slots: Slab<Slot<T>>,
    turns: VecDeque<Token>,
    timers: BTreeSet<(Instant, Token)>,
}

impl<T> Default for Scheduler<T> {
    fn default() -> Self {
        Self { slots: Slab::default(), turns: VecDeque::new(), timers: BTreeSet::new() }
    }
}

impl<T> Scheduler<T> {
    /// Adds an entry without a turn or deadline; returns `value` as an error when the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Token, T> {
        self.slots.insert(Slot { value, is_queued: false, deadline: None, timer: None }).map_err(|slot| slot.value)
    }

    /// The entry; `None` after it was removed.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.slots.get_mut(token).map(|slot| &mut slot.value)
    }

    /// Removes the entry and its timer, and returns the entry.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.remove(token)?;
        if let Some(timer) = slot.timer {
            self.timers.remove(&(timer, token));
        }
        Some(slot.value)
    }

    /// All entries with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().map(|(token, slot)| (token, &slot.value))
    }

    /// The tokens of all entries, to change or remove entries meanwhile.
    pub fn tokens(&self) -> Vec<Token> {
        self.slots.tokens().collect()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Gives the entry a turn, in this round or the next, unless it has one already.
    pub fn enqueue(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token)
            && !slot.is_queued
        {
            slot.is_queued = true;
            self.turns.push_back(token);
        }
    }

    /// Whether the entry is in the queue of turns.
    pub fn is_queued(&mut self, token: Token) -> bool {
        self.slots.get_mut(token).is_some_and(|slot| slot.is_queued)
    }

    /// Length of the queue, including removed entries.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Removes the first turn from the queue. `None`: the queue is empty, or the entry was removed.
    pub fn pop_turn(&mut self) -> Option<Token> {
        let token = self.turns.pop_front()?;
        self.slots.get_mut(token)?.is_queued = false;
        Some(token)
    }

    /// Moves turns with a higher `priority` to the front; the order is otherwise unchanged.
    pub fn prioritize(&mut self, priority: impl Fn(&T) -> u32) {
        if self.turns.len() < 2 {
            return;
        }
        let slots = &mut self.slots;
        let mut priority_of = |token: &Token| slots.get_mut(*token).map_or(0, |slot| priority(&slot.value));
        if self.turns.iter().any(|token| priority_of(token) > 0) {
            self.turns.make_contiguous().sort_by_cached_key(|token| std::cmp::Reverse(priority_of(token)));
        }
    }

    /// Sets or removes the deadline of the entry.
    ///
    /// A timer is replaced only by an earlier one. When a timer fires before the deadline, it is set again: a connection that
    /// moves its deadline with each request does not touch the set of timers.
    pub fn set_deadline(&mut self, token: Token, deadline: Option<Instant>) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        slot.deadline = deadline;
        if let Some(deadline) = deadline
            && slot.timer.is_none_or(|timer| deadline < timer)
        {
            if let Some(timer) = slot.timer.replace(deadline) {
                self.timers.remove(&(timer, token));
            }
            self.timers.insert((deadline, token));
        }
    }

    /// Time from `now` until the first timer; zero when it is due.
    pub fn until_next(&self, now: Instant) -> Option<Duration> {
        self.timers.first().map(|(timer, _)| timer.saturating_duration_since(now))
    }

    /// Removes the first timer that is due, and the deadline of its entry if that has passed. `None`: no timer is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Due> {
        let &(_, token) = self.timers.first().filter(|(timer, _)| *timer <= now)?;
        self.timers.pop_first();
        let Some(slot) = self.slots.get_mut(token) else { return Some(Due::Moved) };
        slot.timer = None;
        if slot.deadline.is_some_and(|deadline| deadline <= now) {
            slot.deadline = None;
            return Some(Due::Expired(token));
        }
        let deadline = slot.deadline;
        self.set_deadline(token, deadline);
        Some(Due::Moved)
    }

    /// Number of timers: at most the number of entries.
    #[cfg(test)]
    pub fn timers(&self) -> usize {
        self.timers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(scheduler: &mut Scheduler<&str>, now: Instant) -> Vec<Token> {
        let due = std::iter::from_fn(|| scheduler.pop_due(now));
        due.filter_map(|due| if let Due::Expired(token) = due { Some(token) } else { None }).collect()
    }

    #[test]
    fn removed_entries_leave_no_timers() {
        let later = Instant::now() + Duration::from_secs(60);
        let mut scheduler = Scheduler::default();
        for count in 0..1000 {
            let token = scheduler.insert(count).expect("room");
            scheduler.set_deadline(token, Some(later));
            scheduler.set_deadline(token, Some(later - Duration::from_secs(1)));
            scheduler.remove(token);
        }
        assert_eq!(scheduler.timers(), 0);
    }

    #[test]
    fn a_moved_deadline_has_one_timer() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut scheduler = Scheduler::default();
        let token = scheduler.insert("entry").expect("room");
        for milliseconds in [50, 20, 30, 40] {
            scheduler.set_deadline(token, Some(at(milliseconds)));
            assert_eq!(scheduler.timers(), 1);
        }
        assert_eq!(scheduler.until_next(start), Some(Duration::from_millis(20)));
        assert_eq!(scheduler.pop_due(at(20)), Some(Due::Moved), "the deadline is at 40 ms");
        assert_eq!(scheduler.pop_due(at(39)), None);
        assert_eq!(scheduler.pop_due(at(40)), Some(Due::Expired(token)));
        assert_eq!(scheduler.timers(), 0);
        scheduler.set_deadline(token, Some(at(50)));
        scheduler.set_deadline(token, None);
        assert_eq!(expired(&mut scheduler, at(60)), []);
        assert_eq!(scheduler.timers(), 0);
    }

    #[test]
    fn deadlines_expire_in_order() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut scheduler = Scheduler::default();
        let tokens = [30, 10, 20, 10].map(|milliseconds| {
            let token = scheduler.insert("entry").expect("room");
            scheduler.set_deadline(token, Some(at(milliseconds)));
            token
        });
        scheduler.remove(tokens[2]);
        assert_eq!(expired(&mut scheduler, at(9)), []);
        assert_eq!(expired(&mut scheduler, at(30)), [tokens[1], tokens[3], tokens[0]]);
    }

    #[test]
    fn an_entry_has_one_turn_in_the_queue() {
        let mut scheduler = Scheduler::default();
        let [first, second, third] = ["first", "second", "third"].map(|name| scheduler.insert(name).expect("room"));
        for token in [first, second, first, third] {
            scheduler.enqueue(token);
        }
        scheduler.remove(second);
        scheduler.prioritize(|name| u32::from(*name == "third"));
        assert_eq!(scheduler.turns(), 3);
        assert_eq!((scheduler.pop_turn(), scheduler.is_queued(third)), (Some(third), false));
        assert_eq!((scheduler.pop_turn(), scheduler.is_queued(first)), (Some(first), false));
        assert_eq!(scheduler.pop_turn(), None, "removed");
    }
}
