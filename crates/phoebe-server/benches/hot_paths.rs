//! What every command passes through in the server, each alone: the name in its body, the session's
//! queue, the signed message to the worker and back, the log. `cargo bench -p phoebe-server`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use phoebe_protocol::command::{self, Header};
use phoebe_protocol::kinds::CommandKind;
use phoebe_protocol::sign::Key;
use phoebe_server::api::command_name;
use phoebe_server::session::CommandQueue;
use phoebe_server::store::{CommandFilter, LogRecord, Store};
use tokio::runtime::Builder;

const SESSION: &str = "0b9b4c0e-6f0a-4c59-9a53-0d5d4f6a7c11";

/// Sizes of bodies: a value, a light curve, a Bundle.
const BODIES: [(&str, usize); 3] = [("100 B", 100), ("10 kB", 10_000), ("200 kB", 200_000)];

fn bodies() -> impl Iterator<Item = (&'static str, Bytes)> {
    BODIES.into_iter().map(|(name, size)| {
        let mut body = r#"{"twig":"times@lc01","value":["#.to_owned();
        while body.len() < size - 60 {
            body += "0.12345,";
        }
        body += r#"0],"command":"set_value"}"#;
        (name, Bytes::from(body))
    })
}

fn parse_command_name(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command_name");
    for (name, body) in bodies() {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &body, |bencher, body| {
            bencher.iter(|| command_name(black_box(body)).is_ok_and(|name| name == "set_value"));
        });
    }
}

fn sign_messages(criterion: &mut Criterion) {
    let key = Key::new([7; 32]);
    let mut group = criterion.benchmark_group("message");
    for (name, body) in bodies() {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new("encode", name), &body, |bencher, body| {
            bencher.iter(|| command::encode(&key, &Header::request(SESSION, 1), body.clone(), &[]));
        });
        let frames = command::encode(&key, &Header::reply(SESSION, 1, true, false), body, &[]);
        group.bench_with_input(BenchmarkId::new("decode", name), &frames, |bencher, frames| {
            bencher.iter(|| command::decode(&key, SESSION, frames.clone()));
        });
    }
}

/// Eight commands in, each started and finished.
fn queue_commands(criterion: &mut Criterion) {
    const DEPTH: u64 = 8;
    let kinds = [CommandKind::Read, CommandKind::Change, CommandKind::Long];
    criterion.bench_function("queue of 8 commands", |bencher| {
        bencher.iter(|| {
            let mut queue = CommandQueue::new(DEPTH as usize);
            for (number, kind) in (0..DEPTH).zip(kinds.into_iter().cycle()) {
                let _accepted = queue.push(kind, number);
            }
            let mut number = 0;
            while !queue.is_idle() {
                while let Some((kind, command)) = queue.next(true) {
                    queue.started(command, kind, command);
                }
                queue.finished(number);
                number += 1;
            }
            number
        });
    });
}

/// What a request waits for. The writer, which is slower, gets time to catch up that is not
/// counted: a full queue is another path.
fn log_commands(criterion: &mut Criterion) {
    const AT_ONCE: u64 = 1000;
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("sessions.db"), CommandFilter::default())
        .expect("a new database");
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(50));
    group.bench_function("log one command", |bencher| {
        bencher.iter_custom(|wanted| {
            let mut elapsed = Duration::ZERO;
            let mut logged = 0;
            while logged < wanted {
                let records: Vec<LogRecord> =
                    (0..AT_ONCE.min(wanted - logged)).map(|_| record()).collect();
                logged += records.len() as u64;
                let began = Instant::now();
                records.into_iter().for_each(|record| store.log(record));
                elapsed += began.elapsed();
                runtime.block_on(store.flush());
            }
            elapsed
        });
    });
    group.finish();
    runtime.block_on(store.close());
}

fn record() -> LogRecord {
    LogRecord::Command {
        session_id: SESSION.to_owned(),
        at: 1.7e9,
        name: "set_value".to_owned(),
        success: true,
        execution_time_ms: 1.5,
        error: None,
    }
}

criterion_group!(hot_paths, parse_command_name, sign_messages, queue_commands, log_commands);
criterion_main!(hot_paths);
