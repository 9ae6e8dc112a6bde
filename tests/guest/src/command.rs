// SPDX-License-Identifier: GPL-2.0

//! Programs run with a time limit, in the foreground and in the background.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{family, pace, wait};

/// How a program ended.
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub time: Duration,
}

impl Output {
    /// The output of a program that must have succeeded.
    pub fn checked(self, what: &str) -> Result<Output> {
        if !self.status.success() {
            bail!(
                "{what}: {}: {} {}",
                self.status,
                self.stderr.trim(),
                self.stdout.trim()
            );
        }
        Ok(self)
    }
}

/// A program in the background. Dropping it kills it.
pub struct Job {
    child: Child,
    what: String,
    stdout: Stream,
    stderr: Stream,
    started: Instant,
}

impl Job {
    /// Starts the program, with `input` on its standard input.
    pub fn start(command: &mut Command, input: &str) -> Result<Job> {
        let what = describe(command);
        // Nothing but its arguments was said of it.
        let mut real = Command::new(command.get_program());
        for argument in command.get_args() {
            real.arg(family::outward(&argument.to_string_lossy()));
        }
        let mut child = real
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let stdout = Stream::new(child.stdout.take());
        let stderr = Stream::new(child.stderr.take());
        if let Some(mut pipe) = child.stdin.take() {
            // A program that ends without reading all of it says why by its status.
            let _ = pipe.write_all(family::outward(input).as_bytes());
        }
        Ok(Job {
            child,
            what,
            stdout,
            stderr,
            started: Instant::now(),
        })
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has not ended yet.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it has written this text to standard output.
    pub fn await_output(&mut self, sign: &str, limit: Duration) -> Result<()> {
        wait::until(
            limit,
            &format!("'{sign}' from {}", self.what.clone()),
            || {
                ensure!(self.running()?, "it ended: {}", self.stderr());
                ensure!(self.stdout().contains(sign), "it said: {}", self.stdout());
                Ok(())
            },
        )
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits for the end. A program that takes longer, by the pace of this guest, is killed, which is
    /// an error.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let limit = pace::stretched(limit);
        if !self.ended_within(limit)? {
            self.kill();
            bail!(
                "{} did not end within {:.0} s",
                self.what,
                limit.as_secs_f64()
            );
        }
        let time = self.started.elapsed();
        let status = self.child.wait()?;
        Ok(Output {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
            time,
        })
    }

    /// Kills it as nothing can be kept from, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends the signal that asks to end.
    pub fn interrupt(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(
            pid,
            rustix::process::Signal::INT,
        )?)
    }

    fn ended_within(&mut self, limit: Duration) -> Result<bool> {
        if !self.running()? {
            return Ok(true);
        }
        let handle = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let mut set = [PollFd::new(&handle, PollFlags::IN)];
        Ok(poll(&mut set, Some(&Timespec::try_from(limit)?))? > 0)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end, whatever that is.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
    Job::start(command, input)?.wait(limit)
}

/// The program and its arguments, for error messages.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What comes out of a pipe, read as it comes.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = pipe.map(|mut pipe| {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    sink.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(&buffer[..count]);
                }
            })
        });
        Stream { bytes, reader }
    }

    fn so_far(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        family::inward(&String::from_utf8_lossy(&bytes))
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.so_far()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status() {
        let output = run(&mut shell("cat; echo problem >&2; exit 3"), "text", LIMIT).unwrap();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("text", "problem\n")
        );
        assert_eq!(output.status.code(), Some(3));
        assert!(output.checked("it").is_err());
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let started = Instant::now();
        let why = run(&mut shell("exec sleep 60"), "", Duration::from_millis(100))
            .err()
            .unwrap();
        assert!(why.to_string().contains("did not end"), "{why}");
        assert!(started.elapsed() < LIMIT);
    }

    #[test]
    fn output_can_be_awaited() {
        let mut job = Job::start(&mut shell("echo ready; exec sleep 60"), "").unwrap();
        job.await_output("ready", LIMIT).unwrap();
        let mut job = Job::start(&mut shell("echo steady"), "").unwrap();
        assert!(
            job.await_output("ready", Duration::from_millis(300))
                .is_err()
        );
    }
}
