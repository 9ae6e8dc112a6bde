// SPDX-License-Identifier: GPL-2.0

//! `tcpbench`: what one bare TCP connection of the kernel's own achieves, for comparison with what
//! `ksocklnd` makes of several.
//!
//! It is built on the driver's own `lib_linux`, so that both use sockets in the same way, and moves
//! the same bytes: messages of a header and a payload one way, each answered by a header the other
//! way, with a bounded number of messages unanswered. The payload is sent from pages and received
//! into pages, and each message under way has its own.
//!
//! There are two files in debugfs. Writing anything to `tcpbench/server` makes the writer's network
//! namespace the one where the server will be. Writing `ADDRESS SIZE COUNT IN_FLIGHT` to
//! `tcpbench/run`, optionally followed by the processors for client and server, runs the client in
//! the writer's namespace against a server at that address; the write returns when all is done, and
//! reading the file gives the figures as JSON.
//!
//! A [`Bench`] belongs to the two files, and its mutex protects it. Threads and sockets exist only
//! while a run does, and end with it.

#![deny(unsafe_code)]

mod client;
mod connection;
mod run;
mod server;
mod spec;

// The driver's files, seen from here; what is not needed here is for the driver.
#[path = "../.."]
#[allow(dead_code, unsafe_code, unused_imports, unused_macros)]
mod driver {
    pub(crate) mod lib_linux;
}

use crate::{
    driver::lib_linux,
    lib_linux::{
        netns::{
            Net,
            PernetHandler,
            PernetRegistration, //
        },
        page::FragCaches, //
    },
    run::Outcome,
    spec::Spec,
};
use kernel::{
    debugfs::{
        Dir,
        File,
        Reader,
        Writer, //
    },
    fmt,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    uaccess::UserSliceReader, //
};

module! {
    type: TcpBench,
    name: "tcpbench",
    authors: ["The socklnd developers"],
    description: "Bare TCP, to measure ksocklnd against",
    license: "GPL",
}

/// The longest line that can be written to a file.
const MAX_LINE: usize = 128;

/// What is kept from one write to the next.
struct Bench {
    server: Option<Net>,
    last: Option<Outcome>,
}

/// The file `server`.
struct ServerFile(Arc<Pinned>);

/// The file `run`.
struct RunFile(Arc<Pinned>);

/// A [`Bench`] with its lock.
#[pin_data]
struct Pinned {
    #[pin]
    bench: Mutex<Bench>,
}

impl Reader for ServerFile {
    fn read_from_slice(&self, _reader: &mut UserSliceReader) -> Result {
        self.0.bench.lock().server = Some(Net::current());
        Ok(())
    }
}

impl Reader for RunFile {
    fn read_from_slice(&self, reader: &mut UserSliceReader) -> Result {
        let mut line = [0; MAX_LINE];
        let line = line.get_mut(..reader.len()).ok_or(EINVAL)?;
        reader.read_slice(line)?;
        let spec = Spec::parse(core::str::from_utf8(line).map_err(|_| EINVAL)?)?;
        let mut bench = self.0.bench.try_lock().ok_or(EBUSY)?;
        let server = bench.server.clone().ok_or(ENOTCONN)?;
        bench.last = None;
        bench.last = Some(run::run(&Net::current(), &server, &spec)?);
        Ok(())
    }
}

impl Writer for RunFile {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.bench.lock().last {
            Some(outcome) => outcome.write_json(f),
            None => writeln!(f, "null"),
        }
    }
}

/// Nothing is to be closed when a namespace goes: a run ends by itself.
struct Namespaces;

impl PernetHandler for Namespaces {
    fn exit(_net: &Net) {}
}

/// When dropped, waits for callbacks on other processors to return: the module's code goes next.
struct Callbacks;

impl Drop for Callbacks {
    fn drop(&mut self) {
        lib_linux::wait_for_callbacks();
    }
}

/// The module. Its fields are dropped in this order: with the files goes the last way to begin a run.
#[pin_data]
struct TcpBench {
    #[pin]
    server: File<ServerFile>,
    #[pin]
    run: File<RunFile>,
    _dir: Dir,
    _namespaces: PernetRegistration<Namespaces>,
    _callbacks: Callbacks,
    _frags: FragCaches,
}

impl kernel::InPlaceModule for TcpBench {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let namespaces = PernetRegistration::new()?;
            let dir = Dir::new(c"tcpbench");
            let bench = Bench {
                server: None,
                last: None,
            };
            let pinned = Arc::pin_init(
                pin_init!(Pinned {
                    bench <- new_mutex!(bench, "tcpbench"),
                }),
                GFP_KERNEL,
            )?;
            Ok(try_pin_init!(Self {
                server <- dir.write_only_file(c"server", ServerFile(pinned.clone())),
                run <- dir.read_write_file(c"run", RunFile(pinned)),
                _dir: dir,
                _namespaces: namespaces,
                _callbacks: Callbacks,
                _frags: FragCaches::new(),
            }))
        })
    }
}
