//! The newest keys of a source, kept fresh by one task: it looks at regular times, at SIGHUP, and
//! when a token names a key that is not there, though not more often than every ten seconds. What
//! cannot be renewed stays as it was.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::keys::Keys;
use super::source::{Source, SourceError};

/// How often a source is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefreshIntervals {
    /// The shortest time between two looks.
    pub(super) pause: Duration,
    /// The time between two looks that nobody asked for.
    pub(super) period: Duration,
    /// When a look that failed is repeated.
    pub(super) again: Duration,
}

/// How long a token waits for the keys to be looked at.
const WAIT: Duration = Duration::from_secs(12);

impl RefreshIntervals {
    /// The intervals for a file: to look costs nothing.
    pub(super) const FILE: Self = Self {
        pause: Duration::from_secs(10),
        period: Duration::from_secs(60),
        again: Duration::from_secs(60),
    };
    /// The intervals for a URL, whose server others ask too.
    pub(super) const URL: Self = Self {
        pause: Duration::from_secs(10),
        period: Duration::from_secs(15 * 60),
        again: Duration::from_secs(30),
    };
}

/// Keys, and a way to ask for newer ones.
pub(super) struct KeyRing {
    states: watch::Receiver<State>,
    requests: mpsc::Sender<()>,
    pause: Duration,
}

#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<Keys>>,
    /// When the source was looked at last.
    looked: Option<Instant>,
}

impl KeyRing {
    /// Keys that stay as they are.
    pub(super) fn fixed(keys: Keys) -> Self {
        let state = State { keys: Some(Arc::new(keys)), looked: None };
        let (requests, _) = mpsc::channel(1);
        Self { states: watch::channel(state).1, requests, pause: Duration::ZERO }
    }

    /// The keys of a source. Those of a file must be there now; a URL is asked in the background.
    pub(super) fn of_source(
        source: Source,
        intervals: RefreshIntervals,
    ) -> Result<Self, SourceError> {
        let (requests, requested) = mpsc::channel(1);
        let (mut state, mut read) = (State::default(), None);
        if source.is_local() {
            let bytes = source.read_file()?;
            state = State { keys: Some(Arc::new(source.parse(&bytes)?)), looked: None };
            read = Some(bytes);
        }
        let (sender, states) = watch::channel(state);
        let refresher = Refresher { source, intervals, states: sender, read, reported: None };
        tokio::spawn(refresher.run(requested));
        Ok(Self { states, requests, pause: intervals.pause })
    }

    /// The keys there are; none until a URL has answered for the first time.
    pub(super) fn current(&self) -> Option<Arc<Keys>> {
        self.states.borrow().keys.clone()
    }

    /// The keys after another look at the source, or at once where it was looked at just now.
    pub(super) async fn refreshed(&self) -> Option<Arc<Keys>> {
        let mut states = self.states.clone();
        let looked = states.borrow_and_update().looked;
        let is_recent = looked.is_some_and(|looked| looked.elapsed() < self.pause);
        // A request that waits already is enough for all; nobody hears one where keys stay as they
        // are.
        if !is_recent && !matches!(self.requests.try_send(()), Err(TrySendError::Closed(()))) {
            // After the timeout the token is checked with the keys that are there.
            let _ = timeout(WAIT, states.changed()).await;
        }
        let state = states.borrow();
        state.keys.clone()
    }
}

/// The task behind a [`KeyRing`]; it ends with it.
struct Refresher {
    source: Source,
    intervals: RefreshIntervals,
    states: watch::Sender<State>,
    /// What the keys were made of.
    read: Option<Vec<u8>>,
    reported: Option<String>,
}

impl Refresher {
    async fn run(mut self, mut requested: mpsc::Receiver<()>) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let looked = self.refresh().await;
            // Whoever requested for this look has it.
            while requested.try_recv().is_ok() {}
            let again =
                Instant::now() + if looked { self.intervals.period } else { self.intervals.again };
            // Not sooner, whatever is requested meanwhile.
            tokio::select! {
                () = sleep(self.intervals.pause) => {}
                () = self.states.closed() => return,
            }
            tokio::select! {
                () = sleep_until(again) => {}
                request = requested.recv() => if request.is_none() { return },
                () = async {
                    match &mut hangup {
                        Some(signal) => { signal.recv().await; }
                        None => std::future::pending().await,
                    }
                } => self.reported = None,
                () = self.states.closed() => return,
            }
        }
    }

    /// Looks at the source and publishes its keys. Returns whether they are what it has now.
    async fn refresh(&mut self) -> bool {
        let found = match self.source.read().await {
            Ok(bytes) if self.read.as_ref() == Some(&bytes) => Ok(None),
            Ok(bytes) => self.source.parse(&bytes).map(|keys| Some((keys, bytes))),
            Err(error) => Err(error),
        };
        let looked = Some(Instant::now());
        match found {
            Ok(new) => {
                if self.reported.take().is_some() {
                    tracing::info!(
                        source = self.source.name(),
                        "the keys that verify tokens can be had again"
                    );
                }
                if let Some((keys, bytes)) = new {
                    tracing::info!(
                        source = self.source.name(),
                        keys = keys.len(),
                        "tokens are verified with new keys"
                    );
                    self.read = Some(bytes);
                    self.states.send_replace(State { keys: Some(Arc::new(keys)), looked });
                } else {
                    self.states.send_modify(|state| state.looked = looked);
                }
                true
            }
            Err(error) => {
                let error = error.to_string();
                let has_keys = self.states.borrow().keys.is_some();
                if self.reported.as_ref() != Some(&error) {
                    let then = if has_keys {
                        "the last ones are used on"
                    } else {
                        "nobody is let in until they can be had"
                    };
                    tracing::warn!(%error, then, "the keys that verify tokens cannot be had");
                }
                self.reported = Some(error);
                self.states.send_modify(|state| state.looked = looked);
                false
            }
        }
    }
}
