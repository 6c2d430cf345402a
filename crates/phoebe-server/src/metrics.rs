//! What a monitoring system is told: counts, times and states, in Prometheus' text format.
//!
//! Recording costs some tens of nanoseconds and waits for nothing. Every label comes from a fixed
//! list, so that the number of time series is bounded, and none holds what a user sent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use phoebe_protocol::kinds::CommandKind;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TEXT_FORMAT, TextEncoder,
};

/// The `Content-Type` of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = TEXT_FORMAT;

/// Upper bounds in seconds for starts and wakes, which take tens of milliseconds to a minute.
const START_BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
/// Upper bounds in seconds for commands, which take a millisecond to an hour.
const COMMAND_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3600.0];
const START_KINDS: [Start; 2] = [Start::Fresh, Start::Wake];
const COMMAND_KINDS: [CommandKind; 3] = [CommandKind::Read, CommandKind::Change, CommandKind::Long];

/// How a worker came to be wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// For a new session.
    Fresh,
    /// For a session that was asleep.
    Wake,
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOutcome {
    /// The session is awake.
    Success,
    /// Its worker could not be started, or its Bundle not be read.
    Failed,
    /// A bound forbids it: sessions, ports, disk, or the server stops.
    Refused,
    /// Whoever wanted it is gone.
    Abandoned,
}

/// What became of a command that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// The worker did it.
    Success,
    /// The worker answered with an error.
    Error,
    /// The server ended it: cancelled, too slow, or its session ended.
    Failed,
    /// Its worker was lost.
    WorkerLost,
}

impl Start {
    fn label(self) -> &'static str {
        match self {
            Self::Fresh => "start",
            Self::Wake => "wake",
        }
    }
}

impl StartOutcome {
    const ALL: [Self; 4] = [Self::Success, Self::Failed, Self::Refused, Self::Abandoned];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

impl CommandOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Failed => "failed",
            Self::WorkerLost => "worker_lost",
        }
    }
}

fn kind_label(kind: CommandKind) -> &'static str {
    match kind {
        CommandKind::Read => "read",
        CommandKind::Change => "change",
        CommandKind::Long => "long",
    }
}

/// What is recorded while the server runs.
pub(crate) struct Metrics {
    registry: Registry,
    starts: HistogramVec,
    commands: HistogramVec,
    refused_commands: IntCounter,
    queue_waits: HistogramVec,
    worker_losses: IntCounterVec,
    /// Unix seconds.
    process_start: f64,
}

/// What is read when somebody asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// Sessions by state.
    pub(crate) sessions: Vec<(&'static str, usize)>,
    /// Long commands that compute.
    pub(crate) computing: usize,
    /// Long commands that wait for a turn on the machine's cores.
    pub(crate) waiting_for_cores: usize,
    /// All workers' memory in bytes, as it was measured last.
    pub(crate) worker_memory: f64,
    /// The zygote's own memory in bytes; `None` where there is no zygote now.
    pub(crate) zygote_memory: Option<f64>,
    /// How often the zygote was started again.
    pub(crate) zygote_restarts: u64,
    /// Ports by use.
    pub(crate) ports: Vec<(&'static str, usize)>,
    /// Log records that wait for the database.
    pub(crate) log_backlog: usize,
    /// Log records that were dropped.
    pub(crate) log_lost: u64,
    /// The database with its write-ahead log, in bytes; `None` where it cannot be read.
    pub(crate) database_size: Option<u64>,
}

impl Metrics {
    /// Nothing is recorded yet. `loss_causes` are the causes of [`Self::record_worker_loss`].
    pub(crate) fn new(loss_causes: &[&str]) -> Self {
        let registry = Registry::new();
        let metrics = Self {
            starts: histogram(
                &registry,
                "session_start_seconds",
                "Time from the request of a session, or of one that sleeps, until its worker is \
                 ready or the attempt is over.",
                &["kind", "outcome"],
                &START_BUCKETS,
            ),
            commands: histogram(
                &registry,
                "command_seconds",
                "Time from a command's begin to its answer, without its wait in the queue.",
                &["command", "outcome"],
                &COMMAND_BUCKETS,
            ),
            refused_commands: add(
                &registry,
                ok(IntCounter::with_opts(options(
                    "commands_refused_total",
                    "Commands that did not begin, mostly because a queue or disk is full.",
                ))),
            ),
            queue_waits: histogram(
                &registry,
                "queue_wait_seconds",
                "Time from a command's arrival at its session until it begins, wakes included.",
                &["kind"],
                &COMMAND_BUCKETS,
            ),
            worker_losses: add(
                &registry,
                ok(IntCounterVec::new(
                    options("worker_losses_total", "Workers of awake sessions that were lost."),
                    &["cause"],
                )),
            ),
            process_start: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |elapsed| elapsed.as_secs_f64()),
            registry,
        };
        // A series that is there from the start shows its first event as an increase.
        for kind in START_KINDS {
            for outcome in StartOutcome::ALL {
                metrics.starts.with_label_values(&[kind.label(), outcome.label()]);
            }
        }
        for kind in COMMAND_KINDS {
            metrics.queue_waits.with_label_values(&[kind_label(kind)]);
        }
        for cause in loss_causes {
            metrics.worker_losses.with_label_values(&[*cause]);
        }
        metrics
    }

    /// Awaits a start and records how long it took and what became of it, also if it is dropped.
    pub(crate) async fn time_start<T, E>(
        &self,
        kind: Start,
        start: impl Future<Output = Result<T, E>>,
        outcome: impl FnOnce(&E) -> StartOutcome,
    ) -> Result<T, E> {
        let mut timer = StartTimer {
            starts: &self.starts,
            kind,
            began: Instant::now(),
            outcome: StartOutcome::Abandoned,
        };
        let result = start.await;
        timer.outcome = result.as_ref().err().map_or(StartOutcome::Success, outcome);
        result
    }

    /// Records that a command began after this wait.
    pub(crate) fn record_wait(&self, kind: CommandKind, wait: Duration) {
        self.queue_waits.with_label_values(&[kind_label(kind)]).observe(wait.as_secs_f64());
    }

    /// Records a command that was answered. `name` must not be a text of the user's.
    pub(crate) fn record_command(&self, name: &str, outcome: CommandOutcome, run: Duration) {
        self.commands.with_label_values(&[name, outcome.label()]).observe(run.as_secs_f64());
    }

    /// Records a command that did not begin.
    pub(crate) fn record_refusal(&self) {
        self.refused_commands.inc();
    }

    /// Records that a session lost its worker.
    pub(crate) fn record_worker_loss(&self, cause: &str) {
        self.worker_losses.with_label_values(&[cause]).inc();
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    pub(crate) fn text(&self, reading: &Reading) -> String {
        let mut families = self.registry.gather();
        families.extend(self.read(reading));
        families.sort_by(|left, right| left.name().cmp(right.name()));
        // A family without a sample is no text, for which the encoder gives up.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics could not be written");
            String::new()
        })
    }

    /// What is no record of events but a state.
    fn read(&self, reading: &Reading) -> Vec<MetricFamily> {
        // Of this answer only, so that two at a time do not mix.
        let registry = Registry::new();
        let gauge = |name, help, value| {
            add(&registry, ok(Gauge::with_opts(options(name, help)))).set(value)
        };
        let gauges = |name, help, label, values: &[(&str, usize)]| {
            let gauges = add(&registry, ok(GaugeVec::new(options(name, help), &[label])));
            for (name, value) in values {
                gauges.with_label_values(&[*name]).set(*value as f64);
            }
        };
        let counter = |name, help, value| {
            add(&registry, ok(IntCounter::with_opts(options(name, help)))).inc_by(value);
        };
        gauges("sessions", "Sessions by state.", "state", &reading.sessions);
        gauges(
            "long_commands",
            "Long commands that compute, or wait for a turn on the machine's cores.",
            "state",
            &[("running", reading.computing), ("waiting", reading.waiting_for_cores)],
        );
        gauges("ports", "Ports of the pool by use.", "state", &reading.ports);
        gauge(
            "worker_memory_bytes",
            "Memory of all workers as it was measured last, shared pages by their share.",
            reading.worker_memory,
        );
        if let Some(memory) = reading.zygote_memory {
            gauge("zygote_memory_bytes", "The zygote's own memory, without files.", memory);
        }
        counter(
            "zygote_restarts_total",
            "How often the zygote was started again.",
            reading.zygote_restarts,
        );
        gauge(
            "log_backlog_records",
            "Records of the session log that wait for the database's writer.",
            reading.log_backlog as f64,
        );
        counter(
            "log_records_lost_total",
            "Records of the session log that could not be written.",
            reading.log_lost,
        );
        if let Some(bytes) = reading.database_size {
            gauge("database_bytes", "Size of the database and its write-ahead log.", bytes as f64);
        }
        let build = options("build_info", "1; the label is the version of the server.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        add(&registry, ok(Gauge::with_opts(build))).set(1.0);
        let name = "process_start_time_seconds";
        let start = Opts::new(name, "When the server started, in Unix seconds.");
        add(&registry, ok(Gauge::with_opts(start))).set(self.process_start);
        registry.gather()
    }
}

/// Records a start when it is dropped.
struct StartTimer<'a> {
    starts: &'a HistogramVec,
    kind: Start,
    began: Instant,
    outcome: StartOutcome,
}

impl Drop for StartTimer<'_> {
    fn drop(&mut self) {
        let labels = [self.kind.label(), self.outcome.label()];
        self.starts.with_label_values(&labels).observe(self.began.elapsed().as_secs_f64());
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("phoebe_server_{name}"), help)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
    add(registry, ok(HistogramVec::new(options, labels)))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    ok(registry.register(Box::new(collector.clone())));
    collector
}

fn ok<T>(made: prometheus::Result<T>) -> T {
    made.expect("names, labels and buckets are constants, and a test makes all of them")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::{pending, ready};

    use futures::FutureExt;

    use super::*;

    /// The value of the sample with this name and labels.
    fn sample(text: &str, name: &str) -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    fn reading() -> Reading {
        Reading {
            sessions: vec![("awake", 2), ("asleep", 3)],
            computing: 1,
            waiting_for_cores: 4,
            worker_memory: 5e6,
            zygote_memory: Some(1e8),
            zygote_restarts: 6,
            ports: vec![("used", 2), ("free", 7)],
            log_backlog: 8,
            log_lost: 9,
            database_size: Some(4096),
        }
    }

    #[test]
    fn a_reading_is_written_as_it_is() {
        let text = Metrics::new(&["crash"]).text(&reading());
        let version = env!("CARGO_PKG_VERSION");
        for (name, value) in [
            (r#"sessions{state="awake"}"#, 2.0),
            (r#"sessions{state="asleep"}"#, 3.0),
            (r#"long_commands{state="running"}"#, 1.0),
            (r#"long_commands{state="waiting"}"#, 4.0),
            ("worker_memory_bytes", 5e6),
            ("zygote_memory_bytes", 1e8),
            ("zygote_restarts_total", 6.0),
            (r#"ports{state="used"}"#, 2.0),
            (r#"ports{state="free"}"#, 7.0),
            ("log_backlog_records", 8.0),
            ("log_records_lost_total", 9.0),
            ("database_bytes", 4096.0),
            (r#"worker_losses_total{cause="crash"}"#, 0.0),
            (&format!(r#"build_info{{version="{version}"}}"#), 1.0),
        ] {
            assert_eq!(sample(&text, &format!("phoebe_server_{name}")), Some(value), "{name}");
        }
        assert!(sample(&text, "process_start_time_seconds").unwrap() > 1e9);
        let unknown = Reading { zygote_memory: None, database_size: None, ..reading() };
        let text = Metrics::new(&[]).text(&unknown);
        assert!(!text.contains("zygote_memory") && !text.contains("database_bytes"));
    }

    #[test]
    fn a_start_is_recorded_whatever_becomes_of_it() {
        let metrics = Metrics::new(&[]);
        let failed = |_: &()| StartOutcome::Failed;
        let done = metrics.time_start(Start::Fresh, ready(Ok::<_, ()>(7)), failed).now_or_never();
        assert_eq!(done, Some(Ok(7)));
        let lost = metrics.time_start(Start::Wake, ready(Err::<(), _>(())), failed).now_or_never();
        assert_eq!(lost, Some(Err(())));
        let never = pending::<Result<(), ()>>();
        assert_eq!(metrics.time_start(Start::Wake, never, failed).now_or_never(), None);
        let text = metrics.text(&Reading::default());
        let mut counted = BTreeSet::new();
        for kind in START_KINDS {
            for outcome in StartOutcome::ALL {
                let (kind, outcome) = (kind.label(), outcome.label());
                let labels = format!(r#"{{kind="{kind}",outcome="{outcome}"}}"#);
                let name = format!("phoebe_server_session_start_seconds_count{labels}");
                if sample(&text, &name).unwrap() > 0.0 {
                    counted.insert((kind, outcome));
                }
            }
        }
        let expected = [("start", "success"), ("wake", "abandoned"), ("wake", "failed")];
        assert_eq!(counted, expected.into());
    }

    #[test]
    fn a_command_is_counted_in_its_bucket() {
        let metrics = Metrics::new(&["crash"]);
        metrics.record_command("run_compute", CommandOutcome::Success, Duration::from_secs(2));
        metrics.record_wait(CommandKind::Long, Duration::from_millis(20));
        metrics.record_refusal();
        metrics.record_worker_loss("crash");
        let text = metrics.text(&Reading::default());
        let bucket = |bound| {
            let labels = format!(r#"{{command="run_compute",outcome="success",le="{bound}"}}"#);
            sample(&text, &format!("phoebe_server_command_seconds_bucket{labels}"))
        };
        assert_eq!([bucket("0.5"), bucket("2.5"), bucket("+Inf")], [0.0, 1.0, 1.0].map(Some));
        let wait = r#"phoebe_server_queue_wait_seconds_count{kind="long"}"#;
        assert_eq!(sample(&text, wait), Some(1.0));
        assert_eq!(sample(&text, "phoebe_server_commands_refused_total"), Some(1.0));
        let losses = r#"phoebe_server_worker_losses_total{cause="crash"}"#;
        assert_eq!(sample(&text, losses), Some(1.0));
    }
}
