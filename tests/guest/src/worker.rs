// SPDX-License-Identifier: GPL-2.0

//! Threads of scenarios: for scripts' connections, and for work in the background.
//!
//! It ends with the scenario, however that ends. A [`Worker`] ends when it is dropped, also while an
//! error or a panic is on its way. So do scoped threads that are told by an [`Over`]. Whatever socket a
//! script still has then is shut down by [`hang_up`], so that a thread that nobody waits for comes to
//! its end as well, and the next scenario finds nothing of the one before.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::peer::Conn;
use crate::wait;

/// How long threads may take to notice that all is over.
const END: Duration = Duration::from_secs(20);

/// A connection that somebody else has.
pub type Line = Weak<TcpStream>;

/// The scripts' connections.
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Has the connection ended with the scenario.
pub fn watched(stream: TcpStream) -> Arc<TcpStream> {
    let stream = Arc::new(stream);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == lines.capacity() {
        lines.retain(|line| line.strong_count() > 0);
    }
    lines.push(Arc::downgrade(&stream));
    stream
}

/// Shuts all connections of scripts down: who waits for one of them goes on. To be called when a scenario
/// has ended.
pub fn hang_up() {
    let lines = std::mem::take(&mut *LINES.lock().unwrap_or_else(PoisonError::into_inner));
    lines.iter().for_each(cut);
}

fn cut(line: &Line) {
    if let Some(stream) = line.upgrade() {
        // One that has ended is no less over.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// How many threads this program has.
pub fn threads() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Waits until there are no more threads than there were before a scenario.
pub fn none_left(before: usize) -> Result<()> {
    wait::until(END, "the scenario's threads ended", || {
        let now = threads()?;
        ensure!(now <= before, "{} are left", now - before);
        Ok(())
    })
}

/// Tells threads that it is over, when it is dropped.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A thread with a connection. Dropping it ends the connection and waits for the thread.
pub struct Worker<T> {
    line: Line,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts it. Its work has to end when the connection does.
    pub fn start(conn: Conn, work: impl FnOnce(Conn) -> T + Send + 'static) -> Worker<T> {
        Worker {
            line: conn.line(),
            thread: Some(thread::spawn(move || work(conn))),
        }
    }

    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it ends by itself; says what came of it.
    pub fn join(mut self) -> Result<T> {
        let thread = self.thread.take();
        let result = thread.map(JoinHandle::join).transpose();
        result
            .ok()
            .flatten()
            .ok_or_else(|| anyhow!("the thread panicked"))
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            cut(&self.line);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::panic::catch_unwind;
    use std::sync::mpsc;

    use anyhow::bail;

    use super::*;

    /// A connection to somebody who never says anything, and that somebody.
    fn silent() -> (Conn, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        let conn = Conn::over(stream, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).unwrap();
        (conn, other)
    }

    /// A thread that would wait for ever. Its sender is gone when it has ended.
    fn stuck(ended: mpsc::Sender<()>) -> (Worker<Result<Vec<u8>>>, TcpStream) {
        let (conn, other) = silent();
        conn.be_patient().unwrap();
        let worker = Worker::start(conn, move |mut conn| {
            let _ended = ended;
            conn.receive(1)
        });
        (worker, other)
    }

    #[test]
    fn a_failing_scenario_leaves_no_thread() {
        let (ended, end) = mpsc::channel();
        let scenario = || -> Result<()> {
            let (_worker, _other) = stuck(ended);
            bail!("it failed");
        };
        assert_eq!(scenario().unwrap_err().to_string(), "it failed");
        assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn a_panicking_scenario_leaves_no_thread() {
        let (ended, end) = mpsc::channel();
        let over = AtomicBool::new(false);
        let scenario = || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                });
                let _over = Over(&over);
                let (_worker, _other) = stuck(ended);
                panic!("as it should");
            });
        };
        assert!(catch_unwind(std::panic::AssertUnwindSafe(scenario)).is_err());
        assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn who_was_forgotten_is_hung_up_on() {
        let (mut conn, _other) = silent();
        conn.be_patient().unwrap();
        let forgotten = thread::spawn(move || conn.receive(1).is_err());
        // Also the connections of the tests beside this one, which wait for their end too.
        hang_up();
        assert!(forgotten.join().unwrap());
    }
}
