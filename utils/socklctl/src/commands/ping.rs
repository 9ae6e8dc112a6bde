// SPDX-License-Identifier: GPL-2.0

//! The command `ping`.

use crate::{
    address::{Shown, nid_to_uapi},
    cli::PingArgs,
    device::{self, Driver},
    error::{Action, Error, describe},
    repo::wire::Nid,
    report::{Output, Report},
    uapi,
    units::nanoseconds,
};
use rustix::io::Errno;
use serde::Serialize;
use std::{thread, time::Duration};

/// How long to wait for an answer by default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// All attempts and their results.
#[derive(Debug, Default, Serialize)]
struct Pings {
    sent: usize,
    received: usize,
    /// Shortest, mean and longest time; `null` if no answer came.
    rtt_ns: Option<Spread>,
    /// The contents of the last answer; `null` if none came.
    node: Option<Node>,
    attempts: Vec<Attempt>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Spread {
    min: u64,
    mean: u64,
    max: u64,
}

/// One ping: one of the two is not `None`.
#[derive(Debug, Serialize)]
struct Attempt {
    rtt_ns: Option<u64>,
    error: Option<String>,
}

/// What a node says about itself.
#[derive(Debug, Serialize)]
struct Node {
    pid: u32,
    features: u32,
    nis: Vec<Ni>,
}

#[derive(Debug, Serialize)]
struct Ni {
    nid: Shown,
    status: &'static str,
}

impl From<&uapi::socklnd_ping> for Node {
    fn from(arg: &uapi::socklnd_ping) -> Self {
        let nis = arg.nis.iter().take(arg.count as usize).map(|ni| Ni {
            nid: (&ni.nid).into(),
            status: match ni.status {
                uapi::SOCKLND_PING_NI_UP => "up",
                uapi::SOCKLND_PING_NI_DOWN => "down",
                _ => "?",
            },
        });
        Self {
            pid: arg.pid,
            features: arg.features,
            nis: nis.collect(),
        }
    }
}

impl Node {
    /// `pid 12345, features 0x1, nids 10.0.0.2@tcp 10.0.1.2@tcp1 (down)`
    fn text(&self) -> String {
        let nids = self.nis.iter().map(|ni| match ni.status {
            "up" => ni.nid.to_string(),
            status => format!("{} ({status})", ni.nid),
        });
        let nids: Vec<_> = nids.collect();
        format!(
            "pid {}, features {:#x}, nids {}",
            self.pid,
            self.features,
            nids.join(" ")
        )
    }
}

impl Pings {
    fn answered(&mut self, arg: &uapi::socklnd_ping) {
        self.sent += 1;
        self.received += 1;
        self.node = Some(arg.into());
        self.attempts.push(Attempt {
            rtt_ns: Some(arg.rtt_ns),
            error: None,
        });
        let times = || self.attempts.iter().filter_map(|attempt| attempt.rtt_ns);
        let sum: u128 = times().map(u128::from).sum();
        self.rtt_ns = Some(Spread {
            min: times().min().unwrap_or_default(),
            mean: u64::try_from(sum / self.received as u128).unwrap_or(u64::MAX),
            max: times().max().unwrap_or_default(),
        });
    }

    fn failed(&mut self, errno: Errno) {
        self.sent += 1;
        self.attempts.push(Attempt {
            rtt_ns: None,
            error: Some(crate::error::errno_name(errno)),
        });
    }
}

/// The summary of several attempts, each of which was printed already.
impl Report for Pings {
    fn text(&self) -> String {
        if self.sent < 2 {
            return String::new();
        }
        let times = self.rtt_ns.as_ref().map(|rtt| {
            let [min, mean, max] = [rtt.min, rtt.mean, rtt.max].map(nanoseconds);
            format!(", min {min}, mean {mean}, max {max}")
        });
        format!(
            "{} sent, {} answered{}",
            self.sent,
            self.received,
            times.unwrap_or_default()
        )
    }
}

/// Whether another attempt would fail too.
fn is_final(errno: Errno) -> bool {
    // All of these are about this node, not about the other one.
    matches!(
        errno,
        Errno::PERM
            | Errno::INVAL
            | Errno::NOTTY
            | Errno::NODEV
            | Errno::NOENT
            | Errno::NETUNREACH
            | Errno::AFNOSUPPORT
            | Errno::PROTONOSUPPORT
            | Errno::FAULT
            | Errno::INTR
    )
}

/// A duration as the module takes it, at least one millisecond.
pub(super) fn timeout_ms(timeout: Duration) -> u32 {
    let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    ms.clamp(1, uapi::SOCKLND_MAX_TIMEOUT_MS)
}

fn ping(driver: &impl Driver, args: &PingArgs) -> Result<uapi::socklnd_ping, Errno> {
    let mut arg = uapi::socklnd_ping {
        ni: args.ni.to_uapi(),
        nid: nid_to_uapi(args.nid),
        timeout_ms: timeout_ms(args.timeout.or(args.lctl_timeout).unwrap_or(TIMEOUT)),
        ..Default::default()
    };
    driver.call(&device::PING, &mut arg)?;
    Ok(arg)
}

fn failure(nid: Nid, errno: Errno) -> Error {
    Error::request(Action::Ping, format!("ping {nid}"), errno)
}

pub(crate) fn run(driver: &impl Driver, output: &Output, args: &PingArgs) -> Result<(), Error> {
    let nid = args.nid;
    let mut pings = Pings::default();
    let mut last_error = None;
    for number in 1..=args.count {
        let read = match ping(driver, args) {
            Ok(answer) => {
                pings.answered(&answer);
                let time = nanoseconds(answer.rtt_ns);
                output.progress(&format!("{nid}: {time}, {}", Node::from(&answer).text()))?
            }
            Err(errno) => {
                pings.failed(errno);
                last_error = Some(errno);
                let read =
                    args.count == 1 || output.progress(&format!("{nid}: {}", describe(errno)))?;
                if is_final(errno) {
                    break;
                }
                read
            }
        };
        if !read {
            // The output was closed, by `head` for example: no more pings are needed.
            break;
        }
        if number < args.count {
            thread::sleep(args.interval);
        }
    }
    output.report(&pings)?;
    last_error.map_or(Ok(()), |errno| Err(failure(nid, errno)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Pattern, device::fake::Fake, report::Format};
    use serde_json::json;

    fn args(count: u32) -> PingArgs {
        PingArgs {
            nid: "10.0.0.2@tcp".parse().unwrap(),
            lctl_timeout: None,
            count,
            timeout: Some(Duration::from_millis(1500)),
            interval: Duration::ZERO,
            ni: Pattern::Any,
        }
    }

    fn answer(rtt_ns: u64) -> uapi::socklnd_ping {
        let mut answer = uapi::socklnd_ping {
            rtt_ns,
            pid: 12345,
            count: 2,
            ..Default::default()
        };
        answer.nis[0].nid = nid_to_uapi("10.0.0.2@tcp".parse().unwrap());
        answer.nis[0].status = uapi::SOCKLND_PING_NI_UP;
        answer.nis[1].nid = nid_to_uapi("10.0.1.2@tcp1".parse().unwrap());
        answer.nis[1].status = uapi::SOCKLND_PING_NI_DOWN;
        answer
    }

    #[test]
    fn answers_are_summed_up() {
        let mut pings = Pings::default();
        pings.answered(&answer(1000));
        assert_eq!(pings.text(), "");
        pings.failed(Errno::TIMEDOUT);
        pings.answered(&answer(4000));
        assert_eq!(
            pings.text(),
            "3 sent, 2 answered, min 1.0 µs, mean 2.5 µs, max 4.0 µs"
        );
        assert_eq!(
            serde_json::to_value(&pings).unwrap(),
            json!({
                "sent": 3, "received": 2, "rtt_ns": {"min": 1000, "mean": 2500, "max": 4000},
                "node": {
                    "pid": 12345, "features": 0, "nis": [
                        {"nid": "10.0.0.2@tcp", "status": "up"},
                        {"nid": "10.0.1.2@tcp1", "status": "down"},
                    ],
                },
                "attempts": [
                    {"rtt_ns": 1000, "error": null},
                    {"rtt_ns": null, "error": "ETIMEDOUT"},
                    {"rtt_ns": 4000, "error": null},
                ],
            })
        );
    }

    #[test]
    fn a_node_is_described_in_a_line() {
        assert_eq!(
            Node::from(&answer(1)).text(),
            "pid 12345, features 0x0, nids 10.0.0.2@tcp 10.0.1.2@tcp1 (down)"
        );
    }

    #[test]
    fn a_count_beyond_the_array_does_no_harm() {
        let answer = uapi::socklnd_ping {
            count: u32::MAX,
            ..Default::default()
        };
        assert_eq!(
            Node::from(&answer).nis.len(),
            uapi::SOCKLND_PING_MAX_NIS as usize
        );
    }

    /// Runs `count` pings that are answered with `errno`; returns the result and how many were sent.
    fn run_failing(count: u32, errno: Errno) -> (Result<(), Error>, u32) {
        let sent = std::rc::Rc::new(std::cell::Cell::new(0));
        let counter = sent.clone();
        let fake = Fake::new(move |_, arg| {
            assert_eq!(
                arg.downcast_ref::<uapi::socklnd_ping>().unwrap().timeout_ms,
                1500
            );
            counter.set(counter.get() + 1);
            Err(errno)
        });
        let result = run(&fake, &Output::new(Format::Json), &args(count));
        (result, sent.get())
    }

    #[test]
    fn silence_is_tried_again_but_a_refusal_is_not() {
        let (result, sent) = run_failing(3, Errno::TIMEDOUT);
        assert!(result.unwrap_err().to_string().contains("ETIMEDOUT"));
        assert_eq!(sent, 3);
        let (result, sent) = run_failing(3, Errno::PERM);
        assert!(result.unwrap_err().to_string().contains("EPERM"));
        assert_eq!(sent, 1);
    }

    #[test]
    fn timeouts_fit_the_module() {
        assert_eq!(timeout_ms(Duration::ZERO), 1);
        assert_eq!(timeout_ms(Duration::from_millis(1500)), 1500);
        assert_eq!(timeout_ms(Duration::MAX), uapi::SOCKLND_MAX_TIMEOUT_MS);
    }
}
