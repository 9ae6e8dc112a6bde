// SPDX-License-Identifier: GPL-2.0

//! Requests that send messages: pings, benchmarks and the service for them.
//!
//! There is no state here. The services belong to an open file, see [`File`].

use super::{
    super::{
        bulk::{
            BulkOp,
            BulkSpec, //
        },
        ping::PingReport, //
    },
    local_ni,
    local_ni_towards,
    File, //
};
use crate::ctl::{
    convert::{
        check_flags,
        check_zero,
        count,
        errno,
        nid,
        pattern,
        raw_nid,
        timeout, //
    },
    ffi as uapi,
    Caller, //
};
use kernel::prelude::*;

pub(super) fn ping(caller: &Caller, request: &mut uapi::socklnd_ping) -> Result {
    check_zero([request.flags, request.pad])?;
    let timeout = timeout(request.timeout_ms)?;
    let nid = nid(&request.nid)?;
    let local = local_ni_towards(caller, pattern(&request.ni)?, nid)?;
    let PingReport {
        rtt,
        pid,
        features,
        nis,
    } = local.ping(nid, timeout)?;
    request.rtt_ns = rtt.as_nanos().unsigned_abs();
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
    let timeout = timeout(request.timeout_ms)?;
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
    let local = local_ni_towards(caller, pattern(&request.ni)?, peer)?;
    let spec = BulkSpec {
        peer,
        op,
        size: request.size,
        count: request.count,
        in_flight: request.in_flight,
        verify: request.flags & uapi::SOCKLND_BENCH_VERIFY != 0,
        timeout,
    };
    let result = local.run_bulk(&spec)?;
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

impl File {
    /// Starts the bulk service on all NIs that match. On error it is started on none.
    pub(super) fn start_services(
        &self,
        caller: &Caller,
        request: &mut uapi::socklnd_service,
    ) -> Result {
        check_zero([request.flags])?;
        let nis = caller.nis(pattern(&request.ni)?)?;
        if nis.is_empty() {
            return Err(ENOENT);
        }
        let mut services = self.services.lock();
        if !services.is_empty() {
            return Err(EBUSY);
        }
        // Dropping this stops the services that were started before one fails.
        let mut started = KVec::with_capacity(nis.len(), GFP_KERNEL)?;
        for ni in nis.iter() {
            started.push(local_ni(caller, ni.nid())?.start_service()?, GFP_KERNEL)?;
        }
        request.count = count(started.len());
        *services = started;
        Ok(())
    }
}

#[kunit_tests(socklnd_portals_ioctl_transfer)]
mod tests {
    use super::*;
    use crate::wire::Nid;

    #[test]
    fn malformed_pings_and_benchmarks() -> Result {
        let caller = Caller::any()?;
        let good = uapi::socklnd_bench {
            nid: raw_nid(Nid::tcp(7, [10, 0, 0, 1])),
            op: uapi::SOCKLND_BENCH_PUT,
            in_flight: 1,
            count: 1,
            timeout_ms: 1,
            ..Default::default()
        };
        for mut bad in [
            uapi::socklnd_bench { op: 0, ..good },
            uapi::socklnd_bench { op: 3, ..good },
            uapi::socklnd_bench { flags: 2, ..good },
            uapi::socklnd_bench { count: 0, ..good },
            uapi::socklnd_bench {
                in_flight: 0,
                ..good
            },
            uapi::socklnd_bench {
                in_flight: uapi::SOCKLND_BENCH_MAX_IN_FLIGHT + 1,
                ..good
            },
            uapi::socklnd_bench {
                timeout_ms: 0,
                ..good
            },
        ] {
            assert_eq!(bench(&caller, &mut bad), Err(EINVAL));
        }
        let mut long = uapi::socklnd_bench {
            size: uapi::SOCKLND_BENCH_MAX_SIZE + 1,
            ..good
        };
        assert_eq!(bench(&caller, &mut long), Err(EMSGSIZE));

        for (timeout_ms, flags, pad) in [(0, 0, 0), (1, 1, 0), (1, 0, 1), (u32::MAX, 0, 0)] {
            let mut bad = uapi::socklnd_ping {
                nid: raw_nid(Nid::tcp(7, [10, 0, 0, 1])),
                timeout_ms,
                flags,
                pad,
                ..Default::default()
            };
            assert_eq!(ping(&caller, &mut bad), Err(EINVAL));
        }
        Ok(())
    }
}
