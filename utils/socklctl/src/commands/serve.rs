// SPDX-License-Identifier: GPL-2.0

//! The command `serve`: the service for other nodes' benchmarks.

use crate::{
    cli::ServeArgs,
    device::{self, Driver},
    error::{Action, Error},
    report::{Output, Report},
    uapi,
};
use serde::Serialize;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    fs::{File, OpenOptions},
    io::Write,
};

/// The service was started.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// How many NIs offer it.
    nis: u32,
}

impl Report for Ready {
    fn text(&self) -> String {
        "ready".to_string()
    }
}

/// Opens the file behind a descriptor that this process was started with.
fn open_descriptor(fd: u32) -> Result<File, Error> {
    OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{fd}"))
        .map_err(|source| Error::Io {
            what: "use the file descriptor of --ready-fd",
            source,
        })
}

fn start(driver: &impl Driver, args: &ServeArgs) -> Result<Ready, Error> {
    let mut arg = uapi::socklnd_service {
        ni: args.ni.to_uapi(),
        ..Default::default()
    };
    driver
        .call(&device::SERVICE, &mut arg)
        .map_err(|errno| Error::request(Action::Serve, "start the service", errno))?;
    Ok(Ready {
        ready: true,
        nis: arg.count,
    })
}

/// Serves until a signal comes. The service ends when the device is closed: with this process.
pub(crate) fn run(driver: &impl Driver, output: &Output, args: &ServeArgs) -> Result<(), Error> {
    // From here on the signals are pending until `forever` takes them.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|source| Error::Io {
        what: "wait for signals",
        source,
    })?;
    let ready_to = args.ready_fd.map(open_descriptor).transpose()?;
    let ready = start(driver, args)?;
    match ready_to {
        None => output.report(&ready)?,
        Some(mut file) => file.write_all(b"ready\n").map_err(|source| Error::Io {
            what: "write to the file of --ready-fd",
            source,
        })?,
    }
    signals.forever().next();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Pattern, device::fake::Fake};

    #[test]
    fn readiness_as_text_and_json() {
        let fake = Fake::new(|number, arg| {
            assert_eq!(number, uapi::SOCKLND_IOC_SERVICE);
            arg.downcast_mut::<uapi::socklnd_service>().unwrap().count = 2;
            Ok(())
        });
        let ready = start(
            &fake,
            &ServeArgs {
                ni: Pattern::Any,
                ready_fd: None,
            },
        )
        .unwrap();
        assert_eq!(ready.text(), "ready");
        assert_eq!(
            serde_json::to_string(&ready).unwrap(),
            r#"{"ready":true,"nis":2}"#
        );
    }

    #[test]
    fn a_missing_descriptor_is_no_panic() {
        assert!(open_descriptor(987_654).is_err());
    }
}
