//! Who computes next on the machine's cores: a decision without I/O and clock.
//!
//! There are two lanes. Interactive work never waits for batch work: it may take as many turns as
//! if there were none. Batch work runs in the background; of it one piece at least runs at any
//! time, so that it always comes to its end. In each lane the user comes first who has used the
//! fewest core-seconds lately, and of one user the work that came first.

use std::collections::{BTreeMap, HashMap};

/// After so many seconds half of what a user has used is forgotten.
const HALF_LIFE_SECONDS: f64 = 600.0;
/// A user who has used less than this is forgotten.
const FORGOTTEN_CORE_SECONDS: f64 = 0.01;

/// Names a piece of work from its request for a turn to its end; counts up.
pub(super) type Ticket = u64;

/// How work shares the machine with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Somebody waits for it at the screen.
    Interactive,
    /// It takes long and runs in the background.
    Batch,
}

/// Who waits and who computes. Times are seconds of a clock that never goes back.
#[derive(Debug)]
pub(super) struct Turns {
    cores: usize,
    /// So much work of each lane may compute at once.
    most: usize,
    last: Ticket,
    waiting: BTreeMap<Ticket, (String, Lane)>,
    running: BTreeMap<Ticket, Running>,
    used: HashMap<String, Used>,
}

#[derive(Debug)]
struct Running {
    user: String,
    lane: Lane,
    cores: usize,
    since: f64,
}

/// What a user has used, as it counted at a time.
#[derive(Debug, Clone, Copy)]
struct Used {
    core_seconds: f64,
    at: f64,
}

impl Used {
    fn now(self, now: f64) -> f64 {
        self.core_seconds * 0.5_f64.powf((now - self.at).max(0.0) / HALF_LIFE_SECONDS)
    }
}

impl Turns {
    /// Turns on a machine with so many `cores`, at `most` so many at once in each lane.
    pub(super) fn new(cores: usize, most: usize) -> Self {
        Self {
            cores: cores.max(1),
            most: most.max(1),
            last: 0,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            used: HashMap::new(),
        }
    }

    /// Asks for a turn.
    pub(super) fn join(&mut self, user: &str, lane: Lane) -> Ticket {
        self.last += 1;
        self.waiting.insert(self.last, (user.to_owned(), lane));
        self.last
    }

    /// Ends a turn, or the wait for one.
    pub(super) fn leave(&mut self, now: f64, ticket: Ticket) {
        self.waiting.remove(&ticket);
        let Some(Running { user, cores, since, .. }) = self.running.remove(&ticket) else { return };
        let spent = (now - since).max(0.0) * cores as f64;
        let before = self.used.get(&user).map_or(0.0, |used| used.now(now));
        self.used.insert(user, Used { core_seconds: before + spent, at: now });
        self.used.retain(|_, used| used.now(now) >= FORGOTTEN_CORE_SECONDS);
    }

    /// Gives a turn to whoever comes next, with so many cores, if somebody may begin.
    pub(super) fn next(&mut self, now: f64) -> Option<(Ticket, usize)> {
        let ticket = [Lane::Interactive, Lane::Batch].into_iter().find_map(|lane| {
            self.may_begin(lane).then(|| self.order(lane, now).first().copied()).flatten()
        })?;
        let (user, lane) = self.waiting.remove(&ticket)?;
        let taken: usize = self.running.values().map(|running| running.cores).sum();
        // Where all cores are taken, work shares them.
        let cores = self.cores.saturating_sub(taken).max(1);
        self.running.insert(ticket, Running { user, lane, cores, since: now });
        Some((ticket, cores))
    }

    /// How much work computes.
    pub(super) fn computing(&self) -> usize {
        self.running.len()
    }

    /// How many wait before this one in its lane, if it waits.
    pub(super) fn place(&self, now: f64, ticket: Ticket) -> Option<usize> {
        let (_, lane) = self.waiting.get(&ticket)?;
        self.order(*lane, now).iter().position(|other| *other == ticket)
    }

    fn may_begin(&self, lane: Lane) -> bool {
        let of_lane = self.running.values().filter(|running| running.lane == lane).count();
        match lane {
            Lane::Interactive => of_lane < self.most,
            Lane::Batch => of_lane == 0 || self.running.len() < self.most,
        }
    }

    /// The waiting work of a lane, first comes first.
    fn order(&self, lane: Lane, now: f64) -> Vec<Ticket> {
        let mut spent: HashMap<&str, f64> = HashMap::new();
        for (user, used) in &self.used {
            *spent.entry(user).or_default() += used.now(now);
        }
        for Running { user, cores, since, .. } in self.running.values() {
            *spent.entry(user).or_default() += (now - since).max(0.0) * *cores as f64;
        }
        let of_lane = self.waiting.iter().filter(|(_, (_, other))| *other == lane);
        let mut order: Vec<_> = of_lane
            .map(|(ticket, (user, _))| (spent.get(user.as_str()).copied().unwrap_or(0.0), *ticket))
            .collect();
        order.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
        order.into_iter().map(|(_, ticket)| ticket).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begin(turns: &mut Turns, now: f64) -> Vec<(Ticket, usize)> {
        std::iter::from_fn(|| turns.next(now)).collect()
    }

    #[test]
    fn the_first_gets_all_cores_later_ones_share_and_further_ones_wait() {
        let mut turns = Turns::new(4, 3);
        for _ in 0..4 {
            turns.join("ada", Lane::Interactive);
        }
        assert_eq!(begin(&mut turns, 0.0), [(1, 4), (2, 1), (3, 1)]);
        assert_eq!(turns.place(0.0, 4), Some(0));
        turns.leave(1.0, 1);
        assert_eq!(begin(&mut turns, 1.0), [(4, 2)]);
    }

    #[test]
    fn interactive_work_never_waits_for_batch_work_which_always_goes_on() {
        let mut turns = Turns::new(2, 2);
        for _ in 0..5 {
            turns.join("fits", Lane::Batch);
        }
        assert_eq!(begin(&mut turns, 0.0).len(), 2, "it has the machine for itself");
        let first = turns.join("ada", Lane::Interactive);
        let second = turns.join("bob", Lane::Interactive);
        assert_eq!(begin(&mut turns, 1.0), [(first, 1), (second, 1)]);
        turns.leave(2.0, 1);
        assert_eq!(begin(&mut turns, 2.0), [], "others compute, and one fit does");
        turns.leave(3.0, 2);
        assert_eq!(begin(&mut turns, 3.0), [(3, 1)], "one fit goes on in any case");
    }

    /// Users who always want to compute, and take different times, get equal shares.
    #[test]
    fn core_seconds_are_fair() {
        for lane in [Lane::Interactive, Lane::Batch] {
            let mut turns = Turns::new(2, 2);
            let users = ["a", "b", "c", "d", "e"];
            let seconds = |user: &str| 1.0 + 2.0 * f64::from(user.as_bytes()[0] - b'a');
            let mut owner = HashMap::new();
            for user in users {
                for _ in 0..5 {
                    owner.insert(turns.join(user, lane), user);
                }
            }
            let (mut now, mut spent) = (0.0, HashMap::new());
            let mut ends: Vec<(f64, Ticket, usize)> = Vec::new();
            while now < 3000.0 {
                for (ticket, cores) in begin(&mut turns, now) {
                    ends.push((now + seconds(owner[&ticket]), ticket, cores));
                }
                ends.sort_by(|left, right| right.0.total_cmp(&left.0));
                let (end, ticket, cores) = ends.pop().unwrap();
                now = end;
                turns.leave(now, ticket);
                let user = owner[&ticket];
                *spent.entry(user).or_insert(0.0) += seconds(user) * cores as f64;
                owner.insert(turns.join(user, lane), user);
            }
            let mean = spent.values().sum::<f64>() / users.len() as f64;
            for (user, spent) in spent {
                assert!((spent / mean - 1.0).abs() < 0.1, "{lane:?}: {user} got {spent} of {mean}");
            }
        }
    }

    proptest! {
        /// Whatever comes and goes: bounds hold, nobody begins twice, whoever may begin does, and
        /// in the end all have had their turn.
        #[test]
        fn everybody_has_one_turn(
            steps in prop::collection::vec(
                (0u8..4, 0usize..4, any::<bool>(), any::<usize>()),
                0..200,
            ),
            cores in 1usize..9,
            most in 1usize..5,
        ) {
            let mut turns = Turns::new(cores, most);
            let (mut running, mut begun, mut gone) = (Vec::new(), Vec::new(), Vec::new());
            let mut now = 0.0;
            let last = std::iter::repeat_n((3, 0, false, 0), 1000);
            for (act, user, batch, index) in steps.into_iter().chain(last) {
                now += 0.5;
                match act {
                    0 | 1 => {
                        let lane = if batch { Lane::Batch } else { Lane::Interactive };
                        turns.join(&format!("user {user}"), lane);
                    }
                    // Somebody who waits gives up.
                    2 => {
                        let waiting: Vec<_> = turns.waiting.keys().copied().collect();
                        if !waiting.is_empty() {
                            let ticket = waiting[index % waiting.len()];
                            turns.leave(now, ticket);
                            gone.push(ticket);
                        }
                    }
                    _ if !running.is_empty() => {
                        let ticket = running.swap_remove(index % running.len());
                        turns.leave(now, ticket);
                    }
                    _ => {}
                }
                for (ticket, granted) in begin(&mut turns, now) {
                    prop_assert!(!begun.contains(&ticket) && !gone.contains(&ticket));
                    prop_assert!(granted >= 1 && granted <= cores);
                    begun.push(ticket);
                    running.push(ticket);
                }
                prop_assert!(running.len() <= 2 * most);
                prop_assert!(turns.next(now).is_none());
                prop_assert_eq!(turns.running.len(), running.len());
                let waits = |lane: Lane| turns.waiting.values().any(|(_, other)| *other == lane);
                let interactive = turns.running.values().filter(|r| r.lane == Lane::Interactive);
                prop_assert!(!waits(Lane::Interactive) || interactive.count() == most);
                let batch = turns.running.values().any(|running| running.lane == Lane::Batch);
                prop_assert!(!waits(Lane::Batch) || batch, "batch work starves");
            }
            prop_assert!(turns.waiting.is_empty() && turns.running.is_empty());
            prop_assert_eq!(begun.len() + gone.len(), turns.last as usize);
        }
    }
}
