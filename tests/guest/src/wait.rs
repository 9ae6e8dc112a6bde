// SPDX-License-Identifier: GPL-2.0

//! Waiting for conditions, always with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer. After `limit` it fails, saying what did not come and what the
/// last asking said.
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if Instant::now() >= deadline => {
                bail!("{what}: not within {:.1} s: {why:#}", limit.as_secs_f64());
            }
            Err(_) => sleep(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lets time pass in which something must *not* happen; there is nothing to wait for.
pub fn quiet_time(time: Duration) {
    sleep(time);
}
