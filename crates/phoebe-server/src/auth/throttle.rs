//! Limits failed logins and registrations by address and by account. Its memory is bounded. It
//! knows neither passwords nor the database.
//!
//! Only failures count, so a class behind one address logs in as fast as it can type. An account is
//! throttled for one address before it is for all: a single guesser cannot keep its user out. Where
//! many guess, or one behind the same address, an account still gets in from where it has been
//! logged in to before.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::store::users::account_name;

/// Buckets of one kind; beyond, those that lack least are forgotten.
const MOST_BUCKETS: usize = 10_000;

/// So many attempts at once, and then one in each interval.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    interval: Duration,
}

/// Failures from one address: a class of 300 behind it may mistype.
const ADDRESS: Rate = Rate { burst: 100, interval: Duration::from_secs(5) };
/// Failures of one account from one address.
const ACCOUNT_FROM_ADDRESS: Rate = Rate { burst: 10, interval: Duration::from_secs(30) };
/// Failures of one account from everywhere.
const ACCOUNT: Rate = Rate { burst: 50, interval: Duration::from_secs(10) };
/// New accounts from one address: a class of 300 behind it registers in one lesson.
const REGISTRATION: Rate = Rate { burst: 400, interval: Duration::from_secs(10) };

/// An address as it is counted: of IPv6 the network, for a household has 2⁶⁴ of them. None in tests
/// without sockets.
type Address = Option<IpAddr>;
/// A fingerprint of an account's name, whether it exists or not.
type Account = [u8; 16];

/// Counts attempts to get in.
pub(super) struct Throttle {
    counts: Mutex<Counts>,
}

struct Counts {
    addresses: Buckets<Address>,
    accounts_from_addresses: Buckets<(Account, Address)>,
    accounts: Buckets<Account>,
    registrations: Buckets<Address>,
    /// From where accounts have been logged in to.
    known: HashSet<(Account, Address)>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            counts: Mutex::new(Counts {
                addresses: Buckets::new(ADDRESS),
                accounts_from_addresses: Buckets::new(ACCOUNT_FROM_ADDRESS),
                accounts: Buckets::new(ACCOUNT),
                registrations: Buckets::new(REGISTRATION),
                known: HashSet::new(),
            }),
        }
    }

    /// Whether an attempt may be made, or how long to wait.
    pub(super) fn check(
        &self,
        email: &str,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Duration> {
        let (account, address) = (account(email), network(address));
        let counts = self.lock();
        counts.accounts_from_addresses.check(&(account, address), now)?;
        if counts.known.contains(&(account, address)) {
            return Ok(());
        }
        counts.addresses.check(&address, now)?;
        counts.accounts.check(&account, now)
    }

    /// The same where there are no accounts.
    pub(super) fn check_address(
        &self,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Duration> {
        self.lock().addresses.check(&network(address), now)
    }

    /// An attempt is made. It counts from now on, also if whoever makes it does not wait for its
    /// outcome.
    pub(super) fn count(&self, email: &str, address: Option<IpAddr>, now: Instant) {
        let (account, address) = (account(email), network(address));
        let mut counts = self.lock();
        counts.addresses.charge(address, now);
        counts.accounts_from_addresses.charge((account, address), now);
        if !counts.known.contains(&(account, address)) {
            counts.accounts.charge(account, now);
        }
    }

    /// An attempt had the wrong password, where there are no accounts.
    pub(super) fn failed_at(&self, address: Option<IpAddr>, now: Instant) {
        self.lock().addresses.charge(network(address), now);
    }

    /// An attempt that was counted had the right password.
    pub(super) fn succeeded(&self, email: &str, address: Option<IpAddr>) {
        let (account, address) = (account(email), network(address));
        let mut counts = self.lock();
        counts.addresses.refund(&address);
        counts.accounts_from_addresses.refund(&(account, address));
        if !counts.known.contains(&(account, address)) {
            counts.accounts.refund(&account);
        }
        let known = &mut counts.known;
        if known.len() >= MOST_BUCKETS {
            // Any: who is forgotten is merely throttled like a stranger.
            let any = known.iter().next().copied();
            any.map(|any| known.remove(&any));
        }
        known.insert((account, address));
    }

    /// Counts a wish for an account, or says how long to wait with it.
    pub(super) fn register(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let address = network(address);
        let registrations = &mut self.lock().registrations;
        registrations.check(&address, now)?;
        registrations.charge(address, now);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn account(email: &str) -> Account {
    let hash = Sha256::digest(account_name(email));
    let mut account = Account::default();
    account.copy_from_slice(&hash[..16]);
    account
}

fn network(address: Option<IpAddr>) -> Address {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    })
}

/// When each bucket will be full again; one that is full is not kept.
struct Buckets<K> {
    rate: Rate,
    full_at: HashMap<K, Instant>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: HashMap::new() }
    }

    fn check(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let Some(full_at) = self.full_at.get(key) else { return Ok(()) };
        let lacks = full_at.saturating_duration_since(now);
        let may_lack = self.rate.interval * (self.rate.burst - 1);
        match lacks.checked_sub(may_lack) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    fn charge(&mut self, key: K, now: Instant) {
        if self.full_at.len() >= MOST_BUCKETS && !self.full_at.contains_key(&key) {
            let mut ends: Vec<Instant> = self.full_at.values().copied().collect();
            let (_, tenth, _) = ends.select_nth_unstable(MOST_BUCKETS / 10);
            let least_guilty = (*tenth).max(now);
            self.full_at.retain(|_, full_at| *full_at > least_guilty);
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = (*full_at).max(now) + self.rate.interval;
    }

    /// Takes a charge back.
    fn refund(&mut self, key: &K) {
        let Some(full_at) = self.full_at.get_mut(key) else { return };
        if let Some(earlier) = full_at.checked_sub(self.rate.interval) {
            *full_at = earlier;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(std::net::Ipv4Addr::from(number)))
    }

    /// Fails until it is told to wait; returns how often, and how long to wait.
    fn attempt_login(
        throttle: &Throttle,
        email: &str,
        from: Option<IpAddr>,
        now: Instant,
    ) -> (u32, Duration) {
        for count in 0..1000 {
            match throttle.check(email, from, now) {
                Ok(()) => throttle.count(email, from, now),
                Err(wait) => return (count, wait),
            }
        }
        panic!("never told to wait");
    }

    #[test]
    fn failures_throttle_known_and_unknown_accounts_alike() {
        let now = Instant::now();
        for email in ["ada@x.org", "nobody@x.org"] {
            let throttle = Throttle::new();
            let (count, wait) = attempt_login(&throttle, email, HERE, now);
            assert_eq!((count, wait), (10, Duration::from_secs(30)));
            assert_eq!(throttle.check(&email.to_uppercase(), HERE, now), Err(wait));
            let (count, _) = attempt_login(&throttle, email, HERE, now + Duration::from_secs(60));
            assert_eq!(count, 2, "one for each interval");
            let (count, _) = attempt_login(&throttle, email, HERE, now + Duration::from_secs(3600));
            assert_eq!(count, 10, "and no more than at first");
        }
    }

    #[test]
    fn failures_over_many_accounts_throttle_one_address_only() {
        let (throttle, now) = (Throttle::new(), Instant::now());
        let refused = (0..1000).find(|number| {
            let email = format!("{number}@x.org");
            let refused = throttle.check(&email, HERE, now).is_err();
            throttle.count(&email, HERE, now);
            refused
        });
        assert_eq!(refused, Some(100));
        assert_eq!(throttle.check("ada@x.org", address(7), now), Ok(()));
        let v6 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for host in 0..200 {
            throttle.count(&format!("{host}@x.org"), v6(&format!("2001:db8::{host:x}")), now);
        }
        assert!(throttle.check("ada@x.org", v6("2001:db8::ffff"), now).is_err());
        assert!(throttle.check("ada@x.org", v6("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn known_addresses_can_log_in_while_others_guess() {
        let (throttle, mut now) = (Throttle::new(), Instant::now());
        throttle.succeeded("ada@x.org", HERE);
        for _ in 0..1000 {
            attempt_login(&throttle, "ada@x.org", address(7), now);
            now += Duration::from_secs(10);
        }
        assert_eq!(throttle.check("ada@x.org", address(8), now), Ok(()), "one guesser");
        for number in 100..200 {
            attempt_login(&throttle, "ada@x.org", address(number), now);
        }
        assert!(throttle.check("ada@x.org", address(8), now).is_err(), "a hundred guessers");
        assert_eq!(throttle.check("ada@x.org", HERE, now), Ok(()), "she has been here before");
        for number in 0..200 {
            throttle.count(&format!("{number}@x.org"), HERE, now);
        }
        assert!(throttle.check("eve@x.org", HERE, now).is_err(), "a guesser behind her address");
        assert_eq!(attempt_login(&throttle, "ada@x.org", HERE, now).0, 10);
    }

    #[test]
    fn successful_logins_are_not_counted() {
        let (throttle, now) = (Throttle::new(), Instant::now());
        for number in 0..1000 {
            for email in [format!("{number}@x.org"), "ada@x.org".to_owned()] {
                assert_eq!(throttle.check(&email, HERE, now), Ok(()), "{number}");
                throttle.count(&email, HERE, now);
                throttle.succeeded(&email, HERE);
            }
        }
        assert_eq!(attempt_login(&throttle, "ada@x.org", HERE, now).0, 10);
    }

    #[test]
    fn registrations_of_one_address_are_limited() {
        let (throttle, now) = (Throttle::new(), Instant::now());
        let accepted = (0..10_000).take_while(|_| throttle.register(HERE, now).is_ok()).count();
        assert_eq!(accepted, 400);
        assert_eq!(throttle.register(HERE, now), Err(Duration::from_secs(10)));
    }

    #[test]
    fn buckets_are_bounded_and_the_emptiest_are_kept() {
        let (throttle, now) = (Throttle::new(), Instant::now());
        attempt_login(&throttle, "ada@x.org", address(0), now);
        for number in 1..30_000 {
            throttle.count(&format!("{number}@x.org"), address(number), now);
            throttle.succeeded(&format!("known-{number}@x.org"), address(number + 30_000));
        }
        let counts = throttle.lock();
        assert!(counts.addresses.full_at.len() <= MOST_BUCKETS);
        assert!(counts.accounts.full_at.len() <= MOST_BUCKETS);
        assert!(counts.accounts_from_addresses.full_at.len() <= MOST_BUCKETS);
        assert!(counts.known.len() <= MOST_BUCKETS);
        drop(counts);
        assert!(throttle.check("ada@x.org", address(0), now).is_err());
    }
}
