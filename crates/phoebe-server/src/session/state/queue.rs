//! Which command of a session may go to its worker next: a decision without I/O.
//!
//! Commands run in the order in which they came. The one exception: reads may pass a long command
//! that works in its runner or waits for its turn on the machine, and are answered from the last
//! committed state. They never pass a waiting change.

use std::collections::{BTreeMap, VecDeque};

use phoebe_protocol::kinds::CommandKind;

/// Commands of one session: some wait, some are with the worker.
#[derive(Debug)]
pub struct CommandQueue<T> {
    depth: usize,
    waiting: VecDeque<(CommandKind, T)>,
    running: BTreeMap<u64, (CommandKind, T)>,
}

impl<T> CommandQueue<T> {
    /// A queue in which `depth` commands may wait or run.
    pub fn new(depth: usize) -> Self {
        Self { depth, waiting: VecDeque::new(), running: BTreeMap::new() }
    }

    /// Takes a command in, or gives it back when the queue is full.
    pub fn push(&mut self, kind: CommandKind, command: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(command);
        }
        self.waiting.push_back((kind, command));
        Ok(())
    }

    /// The long command that may go to the worker as soon as it may compute, if it is one.
    pub fn first_long(&self) -> Option<&T> {
        let (kind, command) = &self.waiting[self.candidate(true)?];
        (*kind == CommandKind::Long).then_some(command)
    }

    /// Takes the command that may go to the worker now. It must be followed by [`Self::started`]
    /// with the number it got.
    pub fn next(&mut self, may_compute: bool) -> Option<(CommandKind, T)> {
        self.candidate(may_compute).and_then(|index| self.waiting.remove(index))
    }

    fn candidate(&self, may_compute: bool) -> Option<usize> {
        let changing = self.running.values().any(|(kind, _)| *kind == CommandKind::Change);
        for (index, (kind, _)) in self.waiting.iter().enumerate() {
            let may_go = match kind {
                CommandKind::Read => !changing,
                CommandKind::Change => self.running.is_empty() && index == 0,
                CommandKind::Long => self.running.is_empty() && index == 0 && may_compute,
            };
            if may_go {
                return Some(index);
            }
            // Reads may pass long commands that wait; nothing passes anything else.
            if *kind != CommandKind::Long {
                return None;
            }
        }
        None
    }

    /// Notes that a command went to the worker under `number`.
    pub fn started(&mut self, number: u64, kind: CommandKind, command: T) {
        self.running.insert(number, (kind, command));
    }

    /// Takes the command out that the worker answered.
    pub fn finished(&mut self, number: u64) -> Option<T> {
        self.running.remove(&number).map(|(_, command)| command)
    }

    /// Takes a command back that did not reach the worker: it waits again, before those that
    /// `came_later`.
    pub fn put_back(&mut self, number: u64, came_later: impl Fn(&T) -> bool) {
        let Some((kind, command)) = self.running.remove(&number) else { return };
        let place = self.waiting.iter().position(|(_, waiting)| came_later(waiting));
        let place = place.unwrap_or(self.waiting.len());
        self.waiting.insert(place, (kind, command));
    }

    /// Takes the waiting command out that `is_wanted`.
    pub fn remove_waiting(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        let place = self.waiting.iter().position(|(_, waiting)| is_wanted(waiting))?;
        self.waiting.remove(place).map(|(_, command)| command)
    }

    /// How many commands wait before the one that `is_wanted`, if it waits.
    pub fn place_of(&self, is_wanted: impl Fn(&T) -> bool) -> Option<usize> {
        self.waiting.iter().position(|(_, waiting)| is_wanted(waiting))
    }

    /// How many more commands can be taken in.
    pub fn room(&self) -> usize {
        self.depth.saturating_sub(self.waiting.len() + self.running.len())
    }

    /// Takes waiting commands out that are not `wanted`, in order.
    pub fn drain_unwanted(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let all = std::mem::take(&mut self.waiting);
        let (kept, rest): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|(_, command)| wanted(command));
        self.waiting = kept;
        rest.into_iter().map(|(_, command)| command).collect()
    }

    /// What is with the worker: number, kind, command.
    pub fn running(&self) -> impl Iterator<Item = (u64, CommandKind, &T)> {
        self.running.iter().map(|(number, (kind, command))| (*number, *kind, command))
    }

    /// The same, changeable.
    pub fn running_mut(&mut self) -> impl Iterator<Item = (u64, CommandKind, &mut T)> {
        self.running.iter_mut().map(|(number, (kind, command))| (*number, *kind, command))
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Takes out what is with the worker, in order.
    pub fn drain_running(&mut self) -> Vec<T> {
        std::mem::take(&mut self.running).into_values().map(|(_, command)| command).collect()
    }

    /// Takes out what waits, in order.
    pub fn drain_waiting(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|(_, command)| command).collect()
    }

    /// Takes everything out: what ran first, then what waited, each in order.
    pub fn drain(&mut self) -> Vec<T> {
        let mut all = self.drain_running();
        all.extend(self.drain_waiting());
        all
    }
}

#[cfg(test)]
mod tests {
    use phoebe_protocol::kinds::CommandKind::{Change, Long, Read};
    use proptest::prelude::*;

    use super::*;

    fn start_all(queue: &mut CommandQueue<u64>) -> Vec<u64> {
        std::iter::from_fn(|| {
            let (kind, command) = queue.next(true)?;
            queue.started(command, kind, command);
            Some(command)
        })
        .collect()
    }

    #[test]
    fn reads_pass_a_long_command_but_no_waiting_change() {
        let mut queue = CommandQueue::new(9);
        for (number, kind) in [Long, Read, Change, Read].into_iter().enumerate() {
            queue.push(kind, number as u64).unwrap();
        }
        assert_eq!(start_all(&mut queue), [0, 1]);
        queue.finished(0);
        assert_eq!(start_all(&mut queue), [0u64; 0]);
        queue.finished(1);
        assert_eq!(start_all(&mut queue), [2]);
        queue.finished(2);
        assert_eq!(start_all(&mut queue), [3]);
    }

    #[test]
    fn a_long_command_that_may_not_compute_yet_holds_up_no_reads() {
        let mut queue = CommandQueue::new(9);
        for (number, kind) in [Long, Read, Change].into_iter().enumerate() {
            queue.push(kind, number as u64).unwrap();
        }
        assert_eq!(queue.next(false), Some((Read, 1)));
        assert_eq!(queue.next(false), None);
        assert_eq!(queue.next(true), Some((Long, 0)));
    }

    fn kind() -> impl Strategy<Value = CommandKind> {
        prop_oneof![Just(Read), Just(Change), Just(Long)]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(CommandKind),
        Finish(usize),
    }

    proptest! {
        /// Whatever comes and finishes: the bound holds. Commands start in their order, but for
        /// reads that pass a long one. A change has the Bundle for itself, a long command but for
        /// reads. Nothing is lost, and the queue runs empty.
        #[test]
        fn order_exclusion_and_bound_hold(
            steps in prop::collection::vec(
                prop_oneof![
                    3 => kind().prop_map(Step::Push),
                    2 => any::<usize>().prop_map(Step::Finish),
                ],
                0..200,
            ),
            depth in 1usize..10,
        ) {
            let mut queue = CommandQueue::new(depth);
            let (mut accepted, mut started, mut finished) = (0u64, Vec::new(), 0usize);
            let mut kinds_accepted = Vec::new();
            let finishes = std::iter::repeat_n(Step::Finish(0), 400);
            for step in steps.into_iter().chain(finishes) {
                match step {
                    Step::Push(kind) => {
                        let full = queue.waiting.len() + queue.running.len() == depth;
                        prop_assert_eq!(queue.push(kind, accepted).is_err(), full);
                        if !full {
                            accepted += 1;
                            kinds_accepted.push(kind);
                        }
                    }
                    Step::Finish(index) => {
                        let numbers = queue.running().map(|(number, ..)| number);
                        let numbers: Vec<u64> = numbers.collect();
                        if !numbers.is_empty() {
                            prop_assert!(queue.finished(numbers[index % numbers.len()]).is_some());
                            finished += 1;
                        }
                    }
                }
                started.extend(start_all(&mut queue));
                let kinds: Vec<_> = queue.running().map(|(_, kind, _)| kind).collect();
                prop_assert!(kinds.iter().filter(|kind| **kind != Read).count() <= 1);
                prop_assert!(!kinds.contains(&Change) || kinds.len() == 1);
            }
            prop_assert!(queue.is_idle());
            prop_assert_eq!(finished as u64, accepted);
            prop_assert_eq!(started.len() as u64, accepted);
            let position = |number: u64| started.iter().position(|other| *other == number);
            for (earlier, kind) in kinds_accepted.iter().enumerate() {
                for (later, later_kind) in kinds_accepted.iter().enumerate().skip(earlier + 1) {
                    if !(*kind == Long && *later_kind == Read) {
                        prop_assert!(position(earlier as u64) < position(later as u64));
                    }
                }
            }
        }
    }
}
