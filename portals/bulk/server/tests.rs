// SPDX-License-Identifier: GPL-2.0

//! KUnit cases of a [`Service`], whose requests come from the tests instead of from a client.

use super::*;

#[kernel::macros::kunit_tests(socklnd_portals_bulk_server)]
mod suite {
    use super::*;
    use crate::{
        lib_linux::netns::Net,
        portals::{
            bulk::BulkOp,
            incoming::MdUse,
            table::{
                Match,
                MatchInfo, //
            },
            Node, //
        }, //
    };

    const PARAMS: SessionParams = SessionParams {
        op: BulkOp::Put,
        verify: true,
        size: 100,
        in_flight: 4,
    };

    fn nid(last: u8) -> Nid {
        Nid::tcp(0, [10, 0, 0, last])
    }

    /// A node without NIs.
    fn node() -> Result<Arc<Node>> {
        Node::new(Net::current())
    }

    fn entries(portals: &PortalsInner) -> usize {
        portals.table.lock().len()
    }

    fn match_info(from: u8, bits: u64, length: u32) -> MatchInfo {
        MatchInfo {
            access: Access::Put,
            from: nid(from),
            portal: PORTAL_PUT,
            match_bits: bits,
            offset: 0,
            length,
        }
    }

    fn match_md(portals: &PortalsInner, info: &MatchInfo) -> Option<Match> {
        portals.table.lock().match_md(info)
    }

    /// Does what a request from a client does, an empty PUT.
    fn send_request(portals: &Arc<PortalsInner>, from: u8, bits: u64, hdr_data: u64) -> Result {
        let info = match_info(from, bits, 0);
        let found = match_md(portals, &info).ok_or(ENOENT)?;
        MdUse::new(portals, &info, found, hdr_data).end(Ok(()));
        Ok(())
    }

    /// Opens a session with [`PARAMS`].
    fn open(portals: &Arc<PortalsInner>, from: u8, session_id: u64) -> Result {
        let bits = RequestKind::Open.match_bits(session_id, 0);
        send_request(portals, from, bits, PARAMS.encode())
    }

    fn state(portals: &PortalsInner, from: u8, session_id: u64) -> Result<SessionState> {
        let mut info = match_info(
            from,
            RequestKind::State.match_bits(session_id, 0),
            STATE_LEN as u32,
        );
        info.access = Access::Get;
        info.portal = PORTAL_GET;
        let found = match_md(portals, &info).ok_or(ENOENT)?;
        let mut bytes = [0; STATE_LEN];
        let range = &found.range;
        range.pages().copy_out(range.offset(), &mut bytes)?;
        SessionState::from_bytes(&bytes).ok_or(EPROTO)
    }

    #[test]
    fn one_service_at_a_time() -> Result {
        let portals = PortalsInner::new(&BulkMemory::new()?, &node()?)?;
        let service = Service::start(&portals)?;
        assert_eq!(Service::start(&portals).err(), Some(EBUSY));
        assert_eq!(entries(&portals), 3);
        drop(service);
        assert_eq!(entries(&portals), 0);
        drop(Service::start(&portals)?);
        portals.shutdown();
        assert_eq!(Service::start(&portals).err(), Some(ESHUTDOWN));
        Ok(())
    }

    #[test]
    fn open_and_close() -> Result {
        let portals = PortalsInner::new(&BulkMemory::new()?, &node()?)?;
        let service = Service::start(&portals)?;
        assert_eq!(state(&portals, 1, 7)?.status, NO_SESSION);
        open(&portals, 1, 7)?;
        assert_eq!(entries(&portals), 3 + 4 + 1);
        let opened = state(&portals, 1, 7)?;
        assert_eq!((opened.status, opened.size, opened.window), (0, 100, 4));
        // Opened once more; and another session.
        open(&portals, 1, 7)?;
        assert_eq!(entries(&portals), 3 + 4 + 1);
        assert_eq!(state(&portals, 1, 8)?.status, NO_SESSION);
        send_request(&portals, 1, RequestKind::Close.match_bits(8, 0), 0)?;
        // Requests from other NIDs of the client.
        open(&portals, 3, 7)?;
        assert_eq!(entries(&portals), 3 + 4 + 1);
        assert_eq!(state(&portals, 2, 7)?.status, 0);
        send_request(&portals, 2, RequestKind::Close.match_bits(7, 0), 0)?;
        assert_eq!(state(&portals, 2, 7)?.status, NO_SESSION);
        assert_eq!(state(&portals, 1, 7)?.status, NO_SESSION);
        assert_eq!(entries(&portals), 3);
        // Invalid parameters open no session.
        send_request(&portals, 1, RequestKind::Open.match_bits(8, 0), u64::MAX)?;
        assert_eq!(entries(&portals), 3);
        open(&portals, 1, 9)?;
        drop(service);
        assert_eq!(entries(&portals), 0);
        Ok(())
    }

    #[test]
    fn contents_are_compared() -> Result {
        let portals = PortalsInner::new(&BulkMemory::new()?, &node()?)?;
        let _service = Service::start(&portals)?;
        open(&portals, 1, 7)?;
        let slot = RequestKind::Data.match_bits(7, 3);
        let right = match_info(1, slot, 100);
        assert!(match_md(&portals, &match_info(1, slot, 101)).is_none());
        assert!(match_md(
            &portals,
            &match_info(1, RequestKind::Data.match_bits(7, 4), 100)
        )
        .is_none());

        let found = match_md(&portals, &right).ok_or(ENOENT)?;
        // The memory of the slot is in use.
        assert!(match_md(&portals, &right).is_none());
        let range = found.range.clone();
        range.pages().fill_pattern(range.offset(), 100, 5)?;
        let hash = range.pages().xxh64(range.offset(), 100, 0)?;
        MdUse::new(&portals, &right, found, hash).end(Ok(()));
        let found = match_md(&portals, &right).ok_or(ENOENT)?;
        MdUse::new(&portals, &right, found, hash ^ 1).end(Ok(()));
        let found = match_md(&portals, &right).ok_or(ENOENT)?;
        MdUse::new(&portals, &right, found, hash).end(Err(ECONNRESET));
        let short = match_info(1, slot, 99);
        let found = match_md(&portals, &short).ok_or(ENOENT)?;
        MdUse::new(&portals, &short, found, hash).end(Ok(()));

        let state = state(&portals, 1, 7)?;
        assert_eq!((state.good, state.bad, state.broken), (1, 2, 1));
        assert_eq!(state.bytes, 299);
        Ok(())
    }

    #[test]
    fn sessions_are_bounded() -> Result {
        let portals = PortalsInner::new(&BulkMemory::new()?, &node()?)?;
        let service = Service::start(&portals)?;
        let most = MAX_PER_CLIENT as u64;
        for session_id in 0..most {
            open(&portals, 1, session_id)?;
        }
        open(&portals, 1, most)?;
        assert_eq!(state(&portals, 1, most)?.status, NO_SESSION);
        // Sessions of a client that is down are evicted.
        service.service.peer_down(nid(1));
        open(&portals, 1, most)?;
        assert_eq!(state(&portals, 1, most)?.status, 0);
        for client in 2..=u8::MAX {
            open(&portals, client, u64::from(client) << 8)?;
        }
        assert_eq!(service.service.inner.lock().sessions.len(), MAX_SESSIONS);
        let last = u64::from(u8::MAX) << 8;
        assert_eq!(state(&portals, u8::MAX, last)?.status, NO_SESSION);
        Ok(())
    }

    #[test]
    fn memory_is_bounded_for_all_services() -> Result {
        let memory = BulkMemory::new()?;
        let most = tunables::bulk_bytes();
        let (one, other) = (
            PortalsInner::new(&memory, &node()?)?,
            PortalsInner::new(&memory, &node()?)?,
        );
        let (first, _second) = (Service::start(&one)?, Service::start(&other)?);
        let room = |service: &Service, bytes| {
            let mut inner = service.service.inner.lock();
            inner.make_room(&memory, nid(1), bytes)
        };
        drop(room(&first, most)?);
        assert_eq!(room(&first, most + 1).err(), Some(EBUSY));
        assert_eq!(room(&first, usize::MAX).err(), Some(EBUSY));

        open(&other, 2, 7)?;
        let session = SessionParams::decode(PARAMS.encode())
            .ok_or(EINVAL)?
            .server_bytes();
        drop(room(&first, most - session)?);
        assert_eq!(room(&first, most - session + 1).err(), Some(EBUSY));
        // Sessions of a client that is down are evicted for those of another NI.
        other.peer_down(nid(2));
        let all = room(&first, most)?;
        assert_eq!(state(&other, 2, 7)?.status, NO_SESSION);
        open(&other, 2, 7)?;
        assert_eq!(state(&other, 2, 7)?.status, NO_SESSION);
        drop(all);
        open(&other, 2, 7)?;
        assert_eq!(state(&other, 2, 7)?.status, 0);
        Ok(())
    }
}
