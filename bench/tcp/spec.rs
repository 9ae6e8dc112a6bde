// SPDX-License-Identifier: GPL-2.0

//! What a run moves, and how.
//!
//! Constant while a run lasts; each thread has a copy.

use crate::lib_linux::page::{
    PageRange,
    Pages, //
};
use core::{
    net::Ipv4Addr,
    num::NonZeroUsize, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Bytes of a message's header and of an answer: as many as in the driver's protocol.
pub(crate) const HEADER_LEN: usize = 72;

const MAX_SIZE: usize = 1 << 20;
const MAX_IN_FLIGHT: usize = 256;
/// Keeps all that is counted, in bytes, far from overflowing.
const MAX_COUNT: usize = 1 << 32;

/// What is to be moved, and how.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    pub(super) server: Ipv4Addr,
    /// Bytes of payload of each message.
    pub(crate) size: usize,
    /// Messages.
    pub(crate) count: usize,
    /// Messages sent and not answered, at most.
    pub(crate) in_flight: NonZeroUsize,
    pub(super) client_cpu: Option<u32>,
    pub(super) server_cpu: Option<u32>,
}

impl Spec {
    /// Reads `ADDRESS SIZE COUNT IN_FLIGHT [CPU CPU]`.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        fn number<T: core::str::FromStr>(word: Option<&str>) -> Result<T> {
            word.and_then(|word| word.parse().ok()).ok_or(EINVAL)
        }
        let mut words = line.split_ascii_whitespace();
        let mut spec = Self {
            server: number(words.next())?,
            size: number(words.next())?,
            count: number(words.next())?,
            in_flight: number(words.next())?,
            client_cpu: None,
            server_cpu: None,
        };
        if let Some(word) = words.next() {
            spec.client_cpu = Some(number(Some(word))?);
            spec.server_cpu = Some(number(words.next())?);
        }
        let valid = spec.size <= MAX_SIZE
            && (1..=MAX_COUNT).contains(&spec.count)
            && spec.in_flight.get() <= MAX_IN_FLIGHT
            && words.next().is_none();
        valid.then_some(spec).ok_or(EINVAL)
    }

    /// Bytes of this many messages with their headers.
    pub(crate) fn bytes(&self, messages: usize) -> usize {
        (HEADER_LEN + self.size) * messages
    }

    /// Which message the stream's byte `at` is part of, and where in it the byte is.
    pub(crate) fn locate(&self, at: usize) -> (usize, usize) {
        let len = NonZeroUsize::MIN.saturating_add(HEADER_LEN - 1 + self.size);
        (at / len, at % len)
    }

    /// In which of the [`bodies`] the payload of a message is.
    pub(crate) fn body(&self, message: usize) -> usize {
        message % self.in_flight
    }
}

/// Memory for the payload of as many messages as can be under way. May sleep.
pub(crate) fn bodies(spec: &Spec) -> Result<KVec<PageRange>> {
    let mut bodies = KVec::with_capacity(spec.in_flight.get(), GFP_KERNEL)?;
    for _ in 0..spec.in_flight.get() {
        let pages = Arc::new(Pages::alloc(spec.size)?, GFP_KERNEL)?;
        bodies.push(PageRange::new(pages, 0, spec.size)?, GFP_KERNEL)?;
    }
    Ok(bodies)
}
