// SPDX-License-Identifier: GPL-2.0

//! Waiting for conditions, always with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::pace;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer. After `limit`, or more on a slow guest, it asks for the last time and
/// then fails, saying what did not come and what that asking said.
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = pace::stretched(limit);
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        // However long one asking takes: what is so when the limit has passed is seen.
        let is_last = Instant::now() >= deadline;
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if is_last => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_ends_either_way() {
        let mut left = 3;
        let mut ask = || {
            left -= 1;
            if left > 0 {
                bail!("{left} left")
            } else {
                Ok(left)
            }
        };
        assert_eq!(until(Duration::from_secs(5), "zero", &mut ask).unwrap(), 0);
        let never = until(Duration::from_millis(2), "never", || -> Result<()> {
            bail!("not yet")
        });
        let told = never.unwrap_err().to_string();
        assert_eq!(told, "never: not within 0.0 s: not yet");
    }
}
