// SPDX-License-Identifier: GPL-2.0

//! Tests of the boundary: a message layer answers late, from another thread, and after the connection has died.
//! The test itself is the peer at the other end of a TCP connection.
//!
//! There is no state here, see [`fixture`].

mod fixture;

#[kernel::macros::kunit_tests(socklnd_upper)]
mod suite {
    use super::{
        super::*,
        fixture::*, //
    };
    use crate::{
        lib_linux::page::{
            Kind,
            PageRange,
            Pages,
            Scattered, //
        },
        tunables, //
    };
    use kernel::sync::atomic::Relaxed;

    #[test]
    fn answered_later_by_another_thread() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 1)?;
        let arrived = Slot::new()?;
        for seed in 1..=3 {
            fixture.send(seed)?;
        }
        let kept = layer.kept.take()?;
        // The connection is parked: the others stay behind the first one.
        assert!(layer.kept.is_empty());
        let (pages, delivery) = sink(&arrived)?;
        kept.deliver(delivery);
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 1)?);
        // A token that is dropped throws its message away, and the next one comes.
        drop(layer.kept.take()?);
        let (pages, delivery) = sink(&arrived)?;
        layer.kept.take()?.deliver(delivery);
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 3)?);
        Ok(())
    }

    #[test]
    fn answered_after_the_connection_has_died() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 2)?;
        let arrived = Slot::new()?;
        fixture.send(1)?;
        let kept = layer.kept.take()?;
        fixture.cut()?;
        layer.ended.take()?;
        let (_pages, delivery) = sink(&arrived)?;
        kept.deliver(delivery);
        // Before the call was over.
        assert!(!arrived.is_empty());
        let failure = arrived.take()?.err().ok_or(EINVAL)?;
        assert!(failure.health == Health::RemoteError);
        Ok(())
    }

    #[test]
    fn answered_after_the_interface_has_gone() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 3)?;
        let arrived = Slot::new()?;
        fixture.send(1)?;
        let kept = layer.kept.take()?;
        fixture.del();
        let (_pages, delivery) = sink(&arrived)?;
        kept.deliver(delivery);
        let failure = arrived.take()?.err().ok_or(EINVAL)?;
        assert!(failure.health == Health::LocalDropped);
        Ok(())
    }

    #[test]
    fn a_waiter_is_asked_when_the_payload_is_there_and_when_woken() -> Result {
        let layer = Late::new(Manner::Waits)?;
        let fixture = Fixture::new(&layer, 4)?;
        let arrived = Slot::new()?;
        fixture.send(1)?;
        let (how_much, conn) = layer.asked.take()?;
        assert!(how_much == Arrived::All);
        let (pages, delivery) = sink(&arrived)?;
        layer.deliveries.put(delivery);
        conn.wake();
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 1)?);
        layer.gone.take()?;
        // One that waits when the connection dies goes with it.
        fixture.send(2)?;
        let (_, conn) = layer.asked.take()?;
        fixture.cut()?;
        layer.ended.take()?;
        layer.gone.take()?;
        conn.wake();
        Ok(())
    }

    #[test]
    fn received_into_memory_of_others() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 6)?;
        let arrived = Slot::new()?;
        let mut seed = 0;
        for kind in [Kind::Pages, Kind::Slab, Kind::Vmalloc] {
            for cut in CUTS {
                seed += 1;
                fixture.send(seed)?;
                let (memory, delivery) = foreign_sink(kind, cut, &arrived)?;
                layer.kept.take()?.deliver(delivery);
                assert!(arrived.take()?.is_ok());
                assert!(memory.is_intact(SKIP, LEN, seed)?);
            }
        }
        // What is not as long as the payload gets as much of it.
        fixture.send(1)?;
        let memory = Scattered::new(Kind::Slab, 777, 10)?;
        layer.kept.take()?.deliver(Delivery::Accept(Sink {
            memory: Memory::Foreign(memory.range(0, memory.len())?),
            done: Told::new(&arrived)?,
        }));
        assert!(arrived.take()?.is_ok());
        assert!(memory.is_intact(0, 777, 1)?);
        Ok(())
    }

    #[test]
    fn sent_from_memory_of_others() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 7)?;
        let sent = Slot::new()?;
        let mut seed = 0;
        for kind in [Kind::Pages, Kind::Slab, Kind::Vmalloc] {
            for cut in CUTS {
                seed += 1;
                let zc_bytes = fixture.zc_bytes()?;
                let (_memory, payload) = foreign_payload(kind, cut, seed)?;
                fixture.send_to(fixture.sender, payload, &sent)?;
                assert!(fixture.has_received(seed)?);
                assert!(sent.take()?.is_ok());
                // What is in a slab must be copied.
                assert!((fixture.zc_bytes()? > zc_bytes) == (kind != Kind::Slab));
            }
        }
        Ok(())
    }

    #[test]
    fn an_ni_has_the_tunables_of_its_layer() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        layer.conns.store(3, Relaxed);
        let fixture = Fixture::new(&layer, 11)?;
        let ni = fixture.ni()?;
        assert_eq!(LndNi::conns_per_peer(&*ni), 3);
        assert_eq!(ni.tos(), Some(8));
        assert!(LndNi::link(&*ni) == Link::Up);
        // What an administrator changes counts for peers that come.
        layer.conns.store(1000, Relaxed);
        assert_eq!(ni.conns_per_peer(), 3);
        let other = Nid::tcp(NETWORK, [10, 77, 1, 1]);
        let peer = misc::memalloc_nofs(|| ni.peers().find_or_create(&ni, other))?;
        peer.unlink_if_unused();
        assert_eq!(ni.conns_per_peer(), 127);
        let driver = fixture.driver();
        assert!(tunables::timeout_ms() / 1000 > 0);
        let again = driver.start(&fixture.net, fixture.target, layer.clone());
        assert!(again.err() == Some(EEXIST));
        assert!(driver.stop(&fixture.net, other).err() == Some(ENOENT));
        Ok(())
    }

    #[test]
    fn headers_of_others_are_kept_as_they_are() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 10)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        let short = fixture.foreign_header()?;
        let raw = RawHeader::from_short(&short)?;
        let pages = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
        pages.fill_pattern(0, LEN, 1)?;
        let payload = PageRange::new(pages, 0, LEN)?;
        let header = SentHeader::Raw(&raw);
        // To a peer,
        fixture.send_as(fixture.sender, header, payload.clone(), &sent)?;
        assert!(fixture.received(1)? == (short, true));
        assert!(sent.take()?.is_ok());
        // by this node's way to itself,
        fixture.send_as(fixture.target, header, payload.clone(), &sent)?;
        let (pages, delivery) = sink(&arrived)?;
        layer.kept.take()?.deliver(delivery);
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 1)?);
        assert!(sent.take()?.is_ok());
        assert!(layer.seen.take()? == raw);
        // and from a peer.
        fixture.send_bytes(&short)?;
        assert!(layer.seen.take()? == raw);
        // An address that the peer's version has no form for.
        let mut long = *raw.as_long();
        *long.get_mut(20).ok_or(EINVAL)? = 12;
        *long.get_mut(39).ok_or(EINVAL)? = 1;
        let raw = RawHeader::from_long(&long)?;
        fixture.send_as(fixture.sender, SentHeader::Raw(&raw), payload, &sent)?;
        let failure = sent.take()?.err().ok_or(EINVAL)?;
        assert!(failure.error == EPROTONOSUPPORT);
        Ok(())
    }

    #[test]
    fn whose_fault_it_is() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 12)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        let pages = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
        let payload = PageRange::new(pages, 0, LEN)?;
        // Nothing leads to another network.
        let elsewhere = Nid::tcp(NETWORK + 1, [10, 77, 0, 12]);
        fixture.send_to(elsewhere, payload, &sent)?;
        let failure = sent.take()?.err().ok_or(EINVAL)?;
        assert!(failure == Failure::new(EHOSTUNREACH, Health::LocalNoRoute));
        // A message has begun to come when this node gives its sender up, whatever the error is called.
        fixture.send_header()?;
        let (_, delivery) = sink(&arrived)?;
        layer.kept.take()?.deliver(delivery);
        fixture.ni()?.close_peer(fixture.sender, ECONNRESET);
        let failure = arrived.take()?.err().ok_or(EINVAL)?;
        assert!(failure == Failure::new(ECONNRESET, Health::LocalDropped));
        Ok(())
    }

    #[test]
    fn memory_of_others_is_theirs_again_when_the_connection_dies() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 8)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        // The peer reads nothing, so some of these are not sent.
        for _ in 0..200 {
            let (_, payload) = foreign_payload(Kind::Vmalloc, 4096, 1)?;
            fixture.send_to(fixture.sender, payload, &sent)?;
        }
        // And has yet to send the rest of a message.
        fixture.send_header()?;
        let (_, delivery) = foreign_sink(Kind::Slab, 7, &arrived)?;
        layer.kept.take()?.deliver(delivery);
        fixture.cut()?;
        assert!(arrived.take()?.is_err());
        for _ in 0..200 {
            let _ = sent.take()?;
        }
        Ok(())
    }

    #[test]
    fn messages_to_oneself_in_memory_of_others() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 9)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        for (seed, kind) in (1..).zip([Kind::Pages, Kind::Slab, Kind::Vmalloc]) {
            let (from, payload) = foreign_payload(kind, 1001, seed)?;
            fixture.send_to(fixture.target, payload, &sent)?;
            let (to, delivery) = foreign_sink(kind, 7, &arrived)?;
            layer.kept.take()?.deliver(delivery);
            assert!(arrived.take()?.is_ok());
            assert!(sent.take()?.is_ok());
            assert!(from.is_intact(SKIP, LEN, seed)?);
            assert!(to.is_intact(SKIP, LEN, seed)?);
        }
        Ok(())
    }

    #[test]
    fn messages_to_oneself_are_answered_later_as_well() -> Result {
        for manner in [Manner::Keeps, Manner::Waits] {
            let layer = Late::new(manner)?;
            let fixture = Fixture::new(&layer, 5)?;
            let (sent, arrived) = (Slot::new()?, Slot::new()?);
            let pages = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
            pages.fill_pattern(0, LEN, 1)?;
            fixture.send_to(fixture.target, PageRange::new(pages, 0, LEN)?, &sent)?;
            assert!(sent.is_empty());
            let (pages, delivery) = sink(&arrived)?;
            match manner {
                Manner::Keeps => layer.kept.take()?.deliver(delivery),
                Manner::Waits => {
                    let (_, conn) = layer.asked.take()?;
                    layer.deliveries.put(delivery);
                    conn.wake();
                }
            }
            assert!(arrived.take()?.is_ok());
            assert!(sent.take()?.is_ok());
            assert!(is_intact(&pages, 1)?);
        }
        Ok(())
    }
}
