// SPDX-License-Identifier: GPL-2.0

//! The second serial port, on which the host listens, and marks in the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

const PORT: &str = "/dev/ttyS1";

static WRITER: OnceLock<Mutex<File>> = OnceLock::new();

/// Opens the port. To be called once, before anything is said.
pub fn open() -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits() as i32)
        .open(PORT)
        .with_context(|| format!("cannot open {PORT}"))?;
    let mut modes = tcgetattr(&file)?;
    modes.make_raw();
    tcsetattr(&file, OptionalActions::Now, &modes)?;
    let _ = WRITER.set(Mutex::new(file));
    Ok(())
}

/// Sends one line to the host.
pub fn say(line: &str) {
    // Without a port (a run by hand) the lines go to standard output.
    let Some(writer) = WRITER.get() else {
        println!("{line}");
        return;
    };
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    // If the host is gone, so is everybody who could be told.
    let _ = writer.write_all(format!("{line}\n").as_bytes());
}

/// Sends text as KTAP diagnostics: it does not count, it explains.
pub fn note(text: &str) {
    for line in text.lines() {
        say(&format!("# {line}"));
    }
}

/// The lines that the host sends.
pub fn requests() -> Result<impl Iterator<Item = std::io::Result<String>>> {
    let writer = WRITER.get().context("the port is not open")?;
    let file = writer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .try_clone()?;
    Ok(BufReader::new(file).lines())
}

/// Writes a line into the kernel's log, so that the host can tell which scenario a message is from.
pub fn mark(text: &str) {
    // 4 is the level of warnings: it reaches any console. The text has none of the words that the
    // host looks for.
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<4>socklnd-tests: {text}\n").as_bytes());
    }
}
