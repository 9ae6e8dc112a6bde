// SPDX-License-Identifier: GPL-2.0

//! Requests that send messages: pings, benchmarks and the service for them.
//!
//! There is no state here: what belongs to an open file is behind the mutex of its [`Handle`].

use super::{
    convert::{
        check_flags,
        check_timeout,
        check_zero,
        count,
        errno,
        nid,
        pattern,
        raw_nid, //
    },
    ffi as uapi,
    Caller,
    Handle, //
};
use crate::portals::{
    bulk::{
        BulkOp,
        BulkSpec, //
    },
    ping::PingReport, //
};
use kernel::prelude::*;

pub(super) fn ping(caller: &Caller, request: &mut uapi::socklnd_ping) -> Result {
    check_zero([request.flags, request.pad])?;
    check_timeout(request.timeout_ms)?;
    let nid = nid(&request.nid)?;
    let ni = caller.interface_towards(pattern(&request.ni)?, nid)?;
    let PingReport {
        rtt_ns,
        pid,
        features,
        nis,
    } = caller.local(&ni)?.ping(nid, request.timeout_ms)?;
    request.rtt_ns = rtt_ns;
    request.pid = pid;
    request.features = features;
    request.count = count(nis.len().min(request.nis.len()));
    request.nis = Default::default();
    for (to, from) in request.nis.iter_mut().zip(nis.iter()) {
        to.nid = raw_nid(from.nid);
        to.status = from.status;
    }
    Ok(())
}

pub(super) fn bench(caller: &Caller, request: &mut uapi::socklnd_bench) -> Result {
    check_flags(request.flags, uapi::SOCKLND_BENCH_VERIFY)?;
    check_timeout(request.timeout_ms)?;
    let op = match request.op {
        uapi::SOCKLND_BENCH_PUT => BulkOp::Put,
        uapi::SOCKLND_BENCH_GET => BulkOp::Get,
        _ => return Err(EINVAL),
    };
    if !(1..=uapi::SOCKLND_BENCH_MAX_IN_FLIGHT).contains(&request.in_flight) || request.count == 0 {
        return Err(EINVAL);
    }
    if request.size > uapi::SOCKLND_BENCH_MAX_SIZE {
        return Err(EMSGSIZE);
    }
    let peer = nid(&request.nid)?;
    let ni = caller.interface_towards(pattern(&request.ni)?, peer)?;
    let spec = BulkSpec {
        peer,
        op,
        size: request.size,
        count: request.count,
        in_flight: request.in_flight,
        verify: request.flags & uapi::SOCKLND_BENCH_VERIFY != 0,
        timeout_ms: request.timeout_ms,
    };
    let result = caller.local(&ni)?.run_bulk(&spec)?;
    request.error = result.first_error.map_or(0, errno);
    request.messages = result.messages;
    request.bytes = result.bytes;
    request.elapsed_ns = result.elapsed_ns;
    request.errors = result.errors;
    request.verify_failures = result.verify_failures;
    request.latency_min_ns = result.latency_min_ns;
    request.latency_mean_ns = result.latency_mean_ns;
    request.latency_max_ns = result.latency_max_ns;
    Ok(())
}

impl Handle {
    /// Starts the bulk service on all interfaces that match, or on none.
    pub(super) fn start_services(
        &self,
        caller: &Caller,
        request: &mut uapi::socklnd_service,
    ) -> Result {
        check_zero([request.flags])?;
        let nis = caller.interfaces(pattern(&request.ni)?)?;
        if nis.is_empty() {
            return Err(ENOENT);
        }
        let mut services = self.services.lock();
        if !services.is_empty() {
            return Err(EBUSY);
        }
        // Those already started stop again if a later one does not start.
        let mut started = KVec::with_capacity(nis.len(), GFP_KERNEL)?;
        for ni in nis.iter() {
            started.push(caller.local(ni)?.start_service()?, GFP_KERNEL)?;
        }
        request.count = count(started.len());
        *services = started;
        Ok(())
    }
}
