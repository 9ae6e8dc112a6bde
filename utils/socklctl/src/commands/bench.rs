// SPDX-License-Identifier: GPL-2.0

//! Benchmarks: bulk data to or from a node that offers the service.

use super::ping::timeout_ms;
use crate::{
    address::{Shown, nid_to_uapi},
    cli::{BenchArgs, BenchOp},
    device::{self, Driver},
    error::{Action, Error, errno_from_wire},
    report::{Output, Report},
    uapi,
    units::{bytes, bytes_per_second, nanoseconds},
};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::io::Errno;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long a request should take while a progress bar is shown: short enough that the bar moves, and long
/// enough that the start of each request does not count.
const CHUNK_TIME: Duration = Duration::from_millis(500);

/// How much the size of requests may grow from one to the next.
const CHUNK_GROWTH: u64 = 8;

/// The sum of what the module reported.
#[derive(Debug, Serialize)]
struct Bench {
    nid: Shown,
    op: BenchOp,
    size: u32,
    in_flight: u32,
    verify: bool,
    /// Messages that succeeded, and their payload.
    messages: u64,
    bytes: u64,
    elapsed_ns: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
    errors: u64,
    /// The error of the first message that failed.
    error: Option<String>,
    verify_failures: u64,
    /// From a message's start to its end; `null` if all failed.
    latency_ns: Option<Latency>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Latency {
    min: u64,
    mean: u64,
    max: u64,
}

impl Bench {
    fn new(args: &BenchArgs) -> Self {
        Self {
            nid: (&nid_to_uapi(args.nid)).into(),
            op: args.op,
            size: args.size,
            in_flight: args.in_flight,
            verify: !args.no_verify,
            messages: 0,
            bytes: 0,
            elapsed_ns: 0,
            messages_per_second: 0.0,
            bytes_per_second: 0.0,
            errors: 0,
            error: None,
            verify_failures: 0,
            latency_ns: None,
        }
    }

    /// Adds the result of one request.
    fn add(&mut self, part: &uapi::socklnd_bench) {
        if part.messages > 0 {
            let sum = self.latency_ns.map_or(0, |latency| latency.mean) as u128
                * u128::from(self.messages)
                + u128::from(part.latency_mean_ns) * u128::from(part.messages);
            let messages = u128::from(self.messages) + u128::from(part.messages);
            let last = self.latency_ns;
            self.latency_ns = Some(Latency {
                min: last
                    .map_or(u64::MAX, |last| last.min)
                    .min(part.latency_min_ns),
                mean: u64::try_from(sum / messages).unwrap_or(u64::MAX),
                max: last.map_or(0, |last| last.max).max(part.latency_max_ns),
            });
        }
        self.messages = self.messages.saturating_add(part.messages);
        self.bytes = self.bytes.saturating_add(part.bytes);
        self.elapsed_ns = self.elapsed_ns.saturating_add(part.elapsed_ns);
        self.errors = self.errors.saturating_add(part.errors);
        self.verify_failures = self.verify_failures.saturating_add(part.verify_failures);
        self.error = self.error.take().or_else(|| errno_from_wire(part.error));
        if self.elapsed_ns > 0 {
            let seconds = self.elapsed_ns as f64 / 1e9;
            self.messages_per_second = self.messages as f64 / seconds;
            self.bytes_per_second = self.bytes as f64 / seconds;
        }
    }

    /// Whether no message failed.
    fn outcome(&self) -> Result<(), Error> {
        let op = match self.op {
            BenchOp::Put => "put to",
            BenchOp::Get => "get from",
        };
        let mut wrong = Vec::new();
        if self.errors > 0 {
            let error = self.error.as_deref().unwrap_or("unknown error");
            wrong.push(format!(
                "{} messages failed (the first: {error})",
                self.errors
            ));
        }
        if self.verify_failures > 0 {
            wrong.push(format!(
                "{} messages arrived with wrong contents",
                self.verify_failures
            ));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::Outcome(format!(
            "{op} {}: {}",
            self.nid,
            wrong.join(", ")
        )))
    }
}

impl Report for Bench {
    fn text(&self) -> String {
        let op = match self.op {
            BenchOp::Put => "put to",
            BenchOp::Get => "get from",
        };
        let verified = if self.verify {
            "verified"
        } else {
            "not verified"
        };
        let latency = self.latency_ns.map_or("-".to_string(), |latency| {
            let [min, mean, max] = [latency.min, latency.mean, latency.max].map(nanoseconds);
            format!("min {min}, mean {mean}, max {max}")
        });
        format!(
            "{op} {}, {} each, {} in flight, {verified}\n\
             messages  {} in {} ({:.1}/s)\n\
             payload   {} ({})\n\
             latency   {latency}\n\
             failures  {}, wrong contents {}",
            self.nid,
            bytes(self.size.into()),
            self.in_flight,
            self.messages,
            nanoseconds(self.elapsed_ns),
            self.messages_per_second,
            bytes(self.bytes),
            bytes_per_second(self.bytes_per_second),
            self.errors,
            self.verify_failures,
        )
    }
}

/// Decides on the number of messages of each request.
#[derive(Debug)]
struct Chunks {
    left: u64,
    /// Size of the next request; `None` if there is only one.
    next: Option<u64>,
    least: u64,
}

impl Chunks {
    /// One request for `count` messages.
    fn whole(count: u64) -> Self {
        Self {
            left: count,
            next: None,
            least: count,
        }
    }

    /// Several requests for `count` messages together, each with several times `in_flight` messages.
    fn several(count: u64, in_flight: u32) -> Self {
        let least = u64::from(in_flight).saturating_mul(4);
        Self {
            left: count,
            next: Some(least),
            least,
        }
    }

    /// The number of messages of the next request; `None` at the end.
    fn take(&mut self) -> Option<u64> {
        let size = self.next.unwrap_or(self.left).min(self.left);
        self.left -= size;
        (size > 0).then_some(size)
    }

    /// Sets the size of the next request from the time that one of `size` messages took.
    fn took(&mut self, size: u64, elapsed_ns: u64) {
        if self.next.is_some() {
            let fits = CHUNK_TIME.as_nanos() * u128::from(size) / u128::from(elapsed_ns.max(1));
            let most = size.saturating_mul(CHUNK_GROWTH).max(self.least);
            self.next = Some(
                u64::try_from(fits)
                    .unwrap_or(u64::MAX)
                    .clamp(self.least, most),
            );
        }
    }
}

fn request(
    driver: &impl Driver,
    args: &BenchArgs,
    count: u64,
    timeout: Duration,
) -> Result<uapi::socklnd_bench, Errno> {
    let mut arg = uapi::socklnd_bench {
        ni: args.ni.to_uapi(),
        nid: nid_to_uapi(args.nid),
        op: match args.op {
            BenchOp::Put => uapi::SOCKLND_BENCH_PUT,
            BenchOp::Get => uapi::SOCKLND_BENCH_GET,
        },
        flags: if args.no_verify {
            0
        } else {
            uapi::SOCKLND_BENCH_VERIFY
        },
        size: args.size,
        in_flight: args.in_flight,
        count,
        timeout_ms: timeout_ms(timeout),
        ..Default::default()
    };
    driver.call(&device::BENCH, &mut arg)?;
    Ok(arg)
}

/// A bar that counts messages.
fn progress_bar(count: u64) -> ProgressBar {
    let bar = ProgressBar::new(count);
    let style = "{bar:40} {pos}/{len} messages, {msg}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

pub(crate) fn run(driver: &impl Driver, output: &Output, args: &BenchArgs) -> Result<(), Error> {
    let mut bench = Bench::new(args);
    let (mut chunks, bar) = if output.shows_progress() {
        let chunks = Chunks::several(args.count, args.in_flight);
        (chunks, progress_bar(args.count))
    } else {
        (Chunks::whole(args.count), ProgressBar::hidden())
    };
    let start = Instant::now();
    let mut broken = None;
    while let Some(count) = chunks.take() {
        let timeout = args.timeout.saturating_sub(start.elapsed());
        match request(driver, args, count, timeout) {
            Ok(part) => {
                bench.add(&part);
                chunks.took(count, part.elapsed_ns);
                bar.inc(count);
                bar.set_message(bytes_per_second(bench.bytes_per_second));
                if part.messages == 0 {
                    // All messages have failed: do not wait for the others to fail too.
                    break;
                }
            }
            Err(errno) => {
                broken = Some(errno);
                break;
            }
        }
    }
    bar.finish_and_clear();
    if let Some(errno) = broken {
        if bench.messages > 0 {
            output.report(&bench)?;
        }
        let what = format!("run the benchmark against {}", args.nid);
        return Err(Error::request(Action::Bench, what, errno));
    }
    output.report(&bench)?;
    bench.outcome()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Pattern, device::fake::Fake, report::Format};

    fn args(count: u64) -> BenchArgs {
        BenchArgs {
            nid: "10.0.0.2@tcp".parse().unwrap(),
            op: BenchOp::Put,
            size: 4096,
            count,
            in_flight: 8,
            no_verify: false,
            timeout: Duration::from_secs(5),
            ni: Pattern::Any,
        }
    }

    fn part(messages: u64, mean: u64) -> uapi::socklnd_bench {
        uapi::socklnd_bench {
            messages,
            bytes: messages * 4096,
            elapsed_ns: messages * 1000,
            latency_min_ns: mean / 2,
            latency_mean_ns: mean,
            latency_max_ns: mean * 2,
            ..Default::default()
        }
    }

    #[test]
    fn parts_add_up() {
        let mut bench = Bench::new(&args(4));
        assert_eq!(bench.latency_ns, None);
        bench.add(&part(1, 100));
        bench.add(&part(3, 500));
        bench.add(&uapi::socklnd_bench {
            errors: 2,
            error: 110,
            ..part(0, 0)
        });
        bench.add(&uapi::socklnd_bench {
            errors: 1,
            error: 5,
            ..part(0, 0)
        });
        assert_eq!(
            bench.latency_ns,
            Some(Latency {
                min: 50,
                mean: 400,
                max: 1000
            })
        );
        assert_eq!(
            (bench.messages, bench.bytes, bench.elapsed_ns),
            (4, 16384, 4000)
        );
        assert_eq!(
            (bench.errors, bench.error.as_deref()),
            (3, Some("ETIMEDOUT"))
        );
        assert_eq!(bench.messages_per_second, 1e6);
    }

    #[test]
    fn the_outcome_tells_what_went_wrong() {
        let mut bench = Bench::new(&args(4));
        bench.add(&part(4, 100));
        assert!(bench.outcome().is_ok());
        bench.add(&uapi::socklnd_bench {
            verify_failures: 2,
            ..part(2, 100)
        });
        let error = bench.outcome().unwrap_err().to_string();
        assert_eq!(
            error,
            "put to 10.0.0.2@tcp: 2 messages arrived with wrong contents"
        );
    }

    #[test]
    fn the_report_has_text_and_json() {
        let mut bench = Bench::new(&args(2));
        bench.add(&part(2, 1_000_000));
        assert_eq!(
            bench.text(),
            "put to 10.0.0.2@tcp, 4.0 KiB each, 8 in flight, verified\n\
             messages  2 in 2.0 µs (1000000.0/s)\n\
             payload   8.0 KiB (3.8 GiB/s)\n\
             latency   min 500.0 µs, mean 1.00 ms, max 2.00 ms\n\
             failures  0, wrong contents 0"
        );
        let json = serde_json::to_value(&bench).unwrap();
        assert_eq!(json["op"], "put");
        assert_eq!(json["latency_ns"]["mean"], 1_000_000);
        assert_eq!(json["error"], serde_json::Value::Null);
        assert_eq!(json["verify"], true);
    }

    #[test]
    fn one_request_if_nobody_watches() {
        let mut chunks = Chunks::whole(1000);
        assert_eq!(chunks.take(), Some(1000));
        chunks.took(1000, 1);
        assert_eq!(chunks.take(), None);
    }

    #[test]
    fn requests_grow_to_the_right_time() {
        let mut chunks = Chunks::several(1_000_000, 8);
        let mut sizes = Vec::new();
        while let Some(size) = chunks.take() {
            sizes.push(size);
            // 10 µs a message: 50,000 fit into a request.
            chunks.took(size, size * 10_000);
        }
        assert_eq!(sizes[..5], [32, 256, 2048, 16384, 50000]);
        assert_eq!(sizes.iter().sum::<u64>(), 1_000_000);
    }

    #[test]
    fn slow_messages_still_fill_the_pipe() {
        let mut chunks = Chunks::several(1000, 8);
        chunks.take();
        chunks.took(32, 60_000_000_000);
        assert_eq!(chunks.take(), Some(32));
        let mut huge = Chunks::several(u64::MAX, 8);
        huge.take();
        huge.took(u64::MAX, 0);
        assert_eq!(huge.take(), Some(u64::MAX - 32));
    }

    #[test]
    fn a_run_passes_its_arguments_on() {
        let fake = Fake::new(|number, arg| {
            assert_eq!(number, uapi::SOCKLND_IOC_BENCH);
            let arg = arg.downcast_mut::<uapi::socklnd_bench>().unwrap();
            assert_eq!(
                (arg.op, arg.flags),
                (uapi::SOCKLND_BENCH_PUT, uapi::SOCKLND_BENCH_VERIFY)
            );
            assert_eq!((arg.size, arg.in_flight), (4096, 8));
            assert!((4000..=5000).contains(&arg.timeout_ms));
            *arg = part(arg.count, 10);
            Ok(())
        });
        run(&fake, &Output::new(Format::Json), &args(10)).unwrap();
    }

    #[test]
    fn failures_end_a_run() {
        let fake = Fake::new(|_, arg| {
            let arg = arg.downcast_mut::<uapi::socklnd_bench>().unwrap();
            *arg = uapi::socklnd_bench {
                errors: arg.count,
                error: 110,
                ..Default::default()
            };
            Ok(())
        });
        let error = run(&fake, &Output::new(Format::Json), &args(10)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("10 messages failed (the first: ETIMEDOUT)"),
            "{error}"
        );

        let fake = Fake::new(|_, _| Err(Errno::HOSTUNREACH));
        let error = run(&fake, &Output::new(Format::Json), &args(10)).unwrap_err();
        let start = "can't run the benchmark against 10.0.0.2@tcp: ";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}
