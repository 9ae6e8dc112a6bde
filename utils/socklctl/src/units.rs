// SPDX-License-Identifier: GPL-2.0

//! Sizes and times as text.

use std::time::Duration;

/// Reads a size in bytes: `4096`, `4k`, `1M`, `1MiB`. A unit is a power of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.to_ascii_lowercase();
    let shift = match unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit)
    {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("no such unit: '{}' (use k, M or G)", &text[end..])),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_string())
}

/// Reads a time: `5` or `0.5` seconds, `200ms`, `2s`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, scale) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err("not a number of seconds".to_string());
    }
    let seconds: f64 = number
        .parse()
        .map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds * scale).map_err(|error| error.to_string())
}

/// `1.5 MiB`: at most three digits before the point, one after it.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count as f64, "B")
}

/// `1.5 MiB/s`
pub(crate) fn bytes_per_second(rate: f64) -> String {
    scaled(rate, "B/s")
}

fn scaled(mut value: f64, unit: &str) -> String {
    let mut prefix = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        prefix = next;
    }
    let digits = usize::from(!prefix.is_empty());
    format!("{value:.digits$} {prefix}{unit}")
}

/// A short time: `412 µs`, `1.32 ms`, `2.10 s`.
pub(crate) fn nanoseconds(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// A long time: `0.4 s`, `12 s`, `5 m 03 s`, `2 h 07 m`, `3 d 04 h`.
pub(crate) fn milliseconds(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{:.1} s", ms as f64 / 1e3),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        for (text, size) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4kB", 4096),
            ("1M", 1 << 20),
            ("1MiB", 1 << 20),
            ("3g", 3 << 30),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "k",
            "-1",
            "+1",
            "1.5M",
            "1 M",
            "1T",
            "1kk",
            "1ib",
            "0x10",
            "18446744073709551616",
            "17179869184G",
            "１",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_seconds_unless_they_say_otherwise() {
        for (text, ms) in [
            ("5", 5000),
            ("0.5", 500),
            (".5", 500),
            ("2s", 2000),
            ("200ms", 200),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "", "s", "ms", "-1", "+1", "nan", "inf", "1m", "1e400", "five",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_printed_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(bytes_per_second(2.5 * 1024.0 * 1024.0), "2.5 MiB/s");
        assert_eq!(nanoseconds(999), "999 ns");
        assert_eq!(nanoseconds(412_300), "412.3 µs");
        assert_eq!(nanoseconds(1_320_000), "1.32 ms");
        assert_eq!(nanoseconds(2_100_000_000), "2.10 s");
        assert_eq!(milliseconds(400), "0.4 s");
        assert_eq!(milliseconds(59_999), "59 s");
        assert_eq!(milliseconds(303_000), "5 m 03 s");
        assert_eq!(milliseconds(7_620_000), "2 h 07 m");
        assert_eq!(milliseconds(273_600_000), "3 d 04 h");
    }
}
