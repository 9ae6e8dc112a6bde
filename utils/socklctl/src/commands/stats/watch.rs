// SPDX-License-Identifier: GPL-2.0

//! Rates: the differences of counters in each interval.

use super::{Ni, Stats};
use crate::{
    address::Shown,
    cli::StatsArgs,
    device::Driver,
    error::Error,
    report::{Output, Report, table},
    units::bytes_per_second,
};
use serde::Serialize;
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// The counters at one moment.
struct Sample {
    at: Instant,
    stats: Stats,
}

/// The differences between two moments.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    /// The time between the two.
    seconds: f64,
    nis: Vec<Rate>,
}

/// Those of one NI: messages, bytes and errors per second.
#[derive(Debug, PartialEq, Serialize)]
struct Rate {
    nid: Shown,
    tx_msgs: f64,
    tx_bytes: f64,
    rx_msgs: f64,
    rx_bytes: f64,
    errors: f64,
    /// Now.
    peers: u64,
    conns: u64,
    txs: u64,
}

/// A title, and the width of its column where each line is printed by itself.
const COLUMNS: [(&str, usize); 9] = [
    ("nid", 20),
    ("msgs out/s>", 10),
    ("out>", 13),
    ("msgs in/s>", 10),
    ("in>", 13),
    ("errors/s>", 8),
    ("peers>", 6),
    ("conns>", 6),
    ("txs>", 6),
];

impl Rate {
    /// The counters of a new NI began at 0. An NI whose counters are lower than before is a new one with the
    /// same NID.
    fn new(before: Option<&Ni>, now: &Ni, seconds: f64) -> Self {
        let rate = |count: fn(&Ni) -> u64| {
            let now = count(now);
            let before = before.map(count).filter(|before| *before <= now);
            (now - before.unwrap_or(0)) as f64 / seconds
        };
        Self {
            nid: now.nid,
            tx_msgs: rate(|ni| ni.tx.msgs),
            tx_bytes: rate(|ni| ni.tx.bytes),
            rx_msgs: rate(|ni| ni.rx.msgs),
            rx_bytes: rate(|ni| ni.rx.bytes),
            errors: rate(|ni| ni.errors.total()),
            peers: now.live.peers,
            conns: now.live.conns,
            txs: now.live.txs,
        }
    }

    fn row(&self) -> [String; 9] {
        let count = |rate: f64| {
            let digits = usize::from(rate < 10.0 && rate > 0.0);
            format!("{rate:.digits$}")
        };
        [
            self.nid.to_string(),
            count(self.tx_msgs),
            bytes_per_second(self.tx_bytes),
            count(self.rx_msgs),
            bytes_per_second(self.rx_bytes),
            count(self.errors),
            self.peers.to_string(),
            self.conns.to_string(),
            self.txs.to_string(),
        ]
    }
}

/// The heading of an interval.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Titles,
    None,
}

impl Rates {
    fn new(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let old = |ni: &Ni| before.stats.0.iter().find(|old| old.nid == ni.nid);
        let rate = |ni: &Ni| Rate::new(old(ni), ni, seconds);
        Self {
            seconds,
            nis: now.stats.0.iter().map(rate).collect(),
        }
    }

    /// The lines of all NIs, after a line of titles if `titles` says so.
    fn lines(&self, header: Header) -> String {
        let titles = COLUMNS.map(|(title, _)| title.trim_end_matches('>').to_string());
        let rows = self.nis.iter().map(Rate::row);
        let rows = (header == Header::Titles)
            .then_some(titles)
            .into_iter()
            .chain(rows);
        let lines: Vec<String> = rows
            .map(|row| {
                let mut line = String::new();
                for (index, (cell, (_, width))) in row.iter().zip(COLUMNS).enumerate() {
                    if index == 0 {
                        line += &format!("{cell:width$}");
                    } else {
                        line += &format!("  {cell:>width$}");
                    }
                }
                line
            })
            .collect();
        lines.join("\n")
    }
}

/// The form for a terminal, which shows one interval at a time.
impl Report for Rates {
    fn text(&self) -> String {
        table(
            COLUMNS.map(|(title, _)| title),
            self.nis.iter().map(Rate::row),
        )
    }
}

/// Shows one interval after the other.
pub(crate) fn run(driver: &impl Driver, output: &Output, args: &StatsArgs) -> Result<(), Error> {
    /// Titles are repeated after this number of lines.
    const PAGE: usize = 20;
    let mut lines = 0;
    let mut left = args.count;
    let mut before = sample(driver, args)?;
    while left != Some(0) {
        sleep_until(before.at + args.interval);
        let now = sample(driver, args)?;
        let rates = Rates::new(&before, &now);
        let shown = if output.is_json() {
            output.show(&output.render(&rates))?
        } else if output.is_terminal() {
            output.redraw(&rates.text())?
        } else {
            let header = if lines == 0 || lines > PAGE {
                lines = 0;
                Header::Titles
            } else {
                Header::None
            };
            lines += rates.nis.len().max(1);
            output.show(&rates.lines(header))?
        };
        if !shown {
            return Ok(());
        }
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn sample(driver: &impl Driver, args: &StatsArgs) -> Result<Sample, Error> {
    let stats = super::list(driver, args.list.ni)?;
    Ok(Sample {
        at: Instant::now(),
        stats,
    })
}

fn sleep_until(time: Instant) {
    let now = Instant::now();
    sleep(time.checked_duration_since(now).unwrap_or(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::nid_to_uapi, uapi};

    fn sample(at: Instant, entries: &[(&str, u64, u64)]) -> Sample {
        let entry = |(nid, bytes, errors): &(&str, u64, u64)| uapi::socklnd_stats_entry {
            nid: nid_to_uapi(nid.parse().unwrap()),
            tx_bytes: *bytes,
            err_tx: *errors,
            conns: 3,
            ..Default::default()
        };
        Sample {
            at,
            stats: Stats(entries.iter().map(|e| Ni::from(&entry(e))).collect()),
        }
    }

    #[test]
    fn rates_are_per_second() {
        let start = Instant::now();
        let before = sample(
            start,
            &[("10.0.0.1@tcp", 1000, 1), ("10.0.0.2@tcp", 500, 0)],
        );
        let now = sample(
            start + Duration::from_secs(2),
            &[
                ("10.0.0.2@tcp", 400, 0),
                ("10.0.0.1@tcp", 5000, 2),
                ("10.0.0.3@tcp", 80, 0),
            ],
        );
        let rates = Rates::new(&before, &now);
        let bytes: Vec<_> = rates.nis.iter().map(|ni| ni.tx_bytes).collect();
        // The first was restarted, the last is new.
        assert_eq!(bytes, [200.0, 2000.0, 40.0]);
        assert_eq!(rates.nis[1].errors, 0.5);
        let text = rates.text();
        assert!(text.contains("2.0 KiB/s"), "{text}");
        assert_eq!(text.lines().count(), 4);
        let lines = rates.lines(Header::Titles);
        let ends: Vec<_> = lines.lines().map(|line| line.chars().count()).collect();
        assert_eq!(ends, [ends[0]; 4], "{lines}");
        let json = serde_json::to_value(&rates).unwrap();
        assert_eq!(json["nis"][1]["conns"], 3);
        assert_eq!(json["seconds"], 2.0);
    }
}
