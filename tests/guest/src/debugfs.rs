// SPDX-License-Identifier: GPL-2.0

//! The module's statistics in debugfs, and its fault injection there.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::family;

/// Where it is.
pub const FOLDER: &str = "/sys/kernel/debug/socklnd";

/// What begins a section of the statistics.
const HEADINGS: [&str; 8] = [
    "node",
    "scheduler",
    "forwarding",
    "pool",
    "ni",
    "peer",
    "route",
    "conn",
];

/// A heading of the statistics and the values under it.
pub struct Section {
    /// The whole line.
    pub heading: String,
    values: BTreeMap<String, u64>,
}

impl Section {
    /// A value by its name.
    pub fn get(&self, name: &str) -> Result<u64> {
        let value = self.values.get(name).copied();
        value.with_context(|| format!("no {name} under '{}'", self.heading))
    }
}

/// Reads the statistics.
pub fn stats() -> Result<Vec<Section>> {
    let text = family::inward(&fs::read_to_string(format!("{FOLDER}/stats"))?);
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        if HEADINGS.contains(&name) {
            sections.push(Section {
                heading: line.to_owned(),
                values: BTreeMap::new(),
            });
        } else {
            let section = sections.last_mut().context("no heading")?;
            let value = value.parse().with_context(|| format!("strange: {line}"))?;
            section.values.insert(name.to_owned(), value);
        }
    }
    Ok(sections)
}

/// The sections whose heading begins like this.
pub fn sections(start: &str) -> Result<Vec<Section>> {
    let mut sections = stats()?;
    sections.retain(|section| section.heading.starts_with(start));
    Ok(sections)
}

/// The sum of what all of these sections say of this.
pub fn sum(sections: &[Section], name: &str) -> Result<u64> {
    sections.iter().map(|section| section.get(name)).sum()
}

/// Sets a hook. Dropping the result takes the fault away.
pub fn hook(name: &'static str, value: u32) -> Result<Hook> {
    set(name, value)?;
    Ok(Hook(name))
}

/// What a hook says now.
pub fn hook_value(name: &str) -> Result<u32> {
    Ok(fs::read_to_string(format!("{FOLDER}/{name}"))?
        .trim()
        .parse()?)
}

fn set(name: &str, value: u32) -> Result<()> {
    Ok(fs::write(format!("{FOLDER}/{name}"), value.to_string())?)
}

/// A fault that is asked for.
pub struct Hook(&'static str);

impl Drop for Hook {
    fn drop(&mut self) {
        // If the module is gone, so is the fault.
        let _ = set(self.0, 0);
    }
}
