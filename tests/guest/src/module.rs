// SPDX-License-Identifier: GPL-2.0

//! The module under test: inserted, removed in bounded time.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::cstr;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::system::{delete_module, finit_module};

use crate::wait;

const FILE: &str = "/lib/ksocklnd.ko";
/// The flavour that is a driver for LNet.
const LNET_FILE: &str = "/lib/ksocklnd-lnet.ko";
/// The module that plays LNet's part.
pub const SHIM_FILE: &str = "/lib/lnet.ko";
static PLACES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
const FLAG_NONBLOCK: i32 = 0o4000;

/// The longest that a removal may take once nobody uses the module.
pub const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// The kernel is stuck in the module: nothing more can be tried in this guest.
#[derive(Debug)]
pub struct Stuck;

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the module's removal hangs")
    }
}

impl std::error::Error for Stuck {}

/// Whether the module is there.
pub fn is_inserted() -> bool {
    fs::exists("/sys/module/ksocklnd").unwrap_or(false)
}

/// What the module is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// With a message layer of its own.
    Standalone,
    /// Under LNet, whose part the shim plays.
    Lnet,
}

/// Inserts the module, and what it needs.
pub fn insert_flavour(flavour: Flavour) -> Result<()> {
    match flavour {
        Flavour::Standalone => insert(),
        Flavour::Lnet => insert_lnet(cstr!("")),
    }
}

/// Inserts LNet's shim and, with these parameters, the module.
pub fn insert_lnet(parameters: &CStr) -> Result<()> {
    if !shim_is_inserted() {
        insert_shim(cstr!(""))?;
    }
    try_insert_file(LNET_FILE, parameters).context("the kernel refused the module")?;
    note_place();
    Ok(())
}

/// Inserts LNet's shim with these parameters.
pub fn insert_shim(parameters: &CStr) -> Result<()> {
    try_insert_file(SHIM_FILE, parameters).context("the kernel refused the shim")
}

/// Inserts this file as LNet's shim.
pub fn insert_shim_file(path: &str) -> Result<()> {
    try_insert_file(path, cstr!("")).context("the kernel refused the shim")
}

/// One attempt to insert the module for LNet.
pub fn try_insert_lnet() -> Result<(), Errno> {
    try_insert_file(LNET_FILE, cstr!(""))
}

/// Whether LNet's shim is there.
pub fn shim_is_inserted() -> bool {
    fs::exists("/sys/module/lnet").unwrap_or(false)
}

/// Removes LNet's shim, which nothing may use any more.
pub fn remove_shim() -> Result<()> {
    wait::until(REMOVAL_LIMIT, "nobody uses the shim", || {
        delete_module(cstr!("lnet"), FLAG_NONBLOCK).context("the shim stays")
    })
}

/// Inserts the module.
pub fn insert() -> Result<()> {
    try_insert().context("the kernel refused the module")?;
    note_place();
    Ok(())
}

fn note_place() {
    let place = fs::read_to_string("/sys/module/ksocklnd/sections/.text").unwrap_or_default();
    PLACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(place.trim().to_owned());
}

/// One attempt to insert the module: the error is the kernel's answer.
pub fn try_insert() -> Result<(), Errno> {
    try_insert_with(cstr!(""))
}

/// The same, with these parameters for the module.
pub fn try_insert_with(parameters: &CStr) -> Result<(), Errno> {
    try_insert_file(FILE, parameters)
}

fn try_insert_file(path: &str, parameters: &CStr) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY, Mode::empty())?;
    finit_module(&file, parameters, 0)
}

/// Where the module's code has been, for reading addresses in reports that come when it is gone.
pub fn places() -> String {
    let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    places.iter().cloned().collect::<Vec<_>>().join(" ")
}

/// One attempt to remove the module: the error is the kernel's answer. A removal that does not
/// return in time is the error `Stuck`.
pub fn try_remove(limit: Duration) -> Result<Result<Duration, Errno>> {
    let (done, answer) = mpsc::channel();
    let started = Instant::now();
    thread::spawn(move || done.send(delete_module(cstr!("ksocklnd"), FLAG_NONBLOCK)));
    match answer.recv_timeout(limit) {
        Ok(result) => Ok(result.map(|()| started.elapsed())),
        Err(_) => Err(anyhow!(Stuck).context(format!("after {:.0} s", limit.as_secs_f64()))),
    }
}

/// Removes the module, waiting shortly for the last program to let go of it. Returns the time.
pub fn remove() -> Result<Duration> {
    let started = Instant::now();
    wait::until(
        REMOVAL_LIMIT,
        "nobody uses the module",
        || match try_remove(REMOVAL_LIMIT) {
            Ok(Ok(_)) => Ok(Ok(())),
            Ok(Err(Errno::AGAIN)) => bail!("it is in use: {} users", users()),
            Ok(Err(other)) => Ok(Err(anyhow!(
                "the kernel does not remove the module: {other}"
            ))),
            Err(stuck) => Ok(Err(stuck)),
        },
    )??;
    Ok(started.elapsed())
}

fn users() -> String {
    fs::read_to_string("/sys/module/ksocklnd/refcnt")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
