// SPDX-License-Identifier: GPL-2.0

//! LNet's ranges of numbers: `192.168.0.[2-8/2,15]`, `10.*.*.*`.

use std::{collections::BTreeSet, net::Ipv4Addr};

/// The most elements of a list. A longer one is taken for a mistake.
const MOST: usize = 1024;

/// The numbers of a list in brackets, `2-8/2,15`; `None` if it is none, or has no end.
fn numbers(list: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in list.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let [first, last, step] = [first, last, step].map(|text| text.trim().parse::<u32>().ok());
        let (first, last, step) = (first?, last?, step?);
        if step == 0 || last < first || (last - first) / step >= MOST as u32 {
            return None;
        }
        all.extend((first..=last).step_by(step as usize));
    }
    (all.len() <= MOST).then_some(all)
}

/// All texts that `192.168.0.[2,3]@tcp[1-2]` stands for; `None` if it is wrong, or there are too many.
pub(super) fn expand(text: &str) -> Option<Vec<String>> {
    let Some((before, rest)) = text.split_once('[') else {
        return (!text.contains(']')).then(|| vec![text.to_string()]);
    };
    let (list, after) = rest.split_once(']')?;
    let after = expand(after)?;
    let numbers = numbers(list)?;
    if numbers.len().saturating_mul(after.len()) > MOST {
        return None;
    }
    let texts = numbers.iter().flat_map(|number| {
        after
            .iter()
            .map(move |after| format!("{before}{number}{after}"))
    });
    Some(texts.collect())
}

/// Whether a pattern of IPv4 addresses, `192.168.[0-3].*`, matches; `None` if it is none.
pub(super) fn matches(pattern: &str, addr: Ipv4Addr) -> Option<bool> {
    // A dot within brackets does not separate.
    let parts: Vec<_> = pattern.split('.').collect();
    let parts: [&str; 4] = parts.try_into().ok()?;
    let mut all = true;
    for (part, octet) in parts.iter().zip(addr.octets()) {
        all &= match part
            .strip_prefix('[')
            .and_then(|part| part.strip_suffix(']'))
        {
            _ if *part == "*" => true,
            Some(list) => numbers(list)?.contains(&octet.into()),
            None => part.parse::<u8>().ok()? == octet,
        };
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stand_for_all_their_numbers() {
        assert_eq!(expand("10.0.0.1@tcp").unwrap(), ["10.0.0.1@tcp"]);
        assert_eq!(
            expand("10.0.0.[1-5/2,9]@tcp[1,2]").unwrap().join(" "),
            "10.0.0.1@tcp1 10.0.0.1@tcp2 10.0.0.3@tcp1 10.0.0.3@tcp2 10.0.0.5@tcp1 10.0.0.5@tcp2 \
             10.0.0.9@tcp1 10.0.0.9@tcp2"
        );
        for text in [
            "10.0.0.[",
            "10.0.0.]",
            "10.0.0.[]",
            "[a]",
            "[3-1]",
            "[1-2/0]",
            "[0-4294967295]",
            "[1-1000][1-1000]",
            "[-1]",
        ] {
            assert_eq!(expand(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_of_addresses() {
        let addr = Ipv4Addr::new(192, 168, 3, 4);
        for (pattern, matched) in [
            ("192.168.3.4", Some(true)),
            ("192.168.3.5", Some(false)),
            ("*.*.*.*", Some(true)),
            ("192.168.[0-3].[2-8/2]", Some(true)),
            ("192.168.[0-2].*", Some(false)),
            ("192.168.*", None),
            ("192.168.3.4.5", None),
            ("192.168.3.x", None),
            ("192.168.[3.4", None),
            ("", None),
        ] {
            assert_eq!(matches(pattern, addr), matched, "{pattern}");
        }
    }
}
