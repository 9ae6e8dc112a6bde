// SPDX-License-Identifier: GPL-2.0

//! Tests of sending without a copy, over the loopback device of the initial network namespace, which must
//! be up.

use super::{
    super::{
        super::{
            iov::BvecBuf,
            page::{
                PageRange,
                Pages, //
            }, //
        },
        tests::{
            drain,
            eventually,
            pair,
            settled, //
        }, //
    },
    *, //
};

/// Counts its completions.
struct Object {
    completions: Arc<Atomic<u32>>,
    copies: Arc<Atomic<u32>>,
}

impl ZcOps for Object {
    fn complete(this: KBox<ZcDone<Self>>) {
        this.completions.add(1, Relaxed);
        if this.was_copied() {
            this.copies.add(1, Relaxed);
        }
    }
}

/// Pages to send, the counts of completions, and room for a list.
struct Fixture {
    pages: Arc<Pages>,
    payload: PageRange,
    completions: Arc<Atomic<u32>>,
    copies: Arc<Atomic<u32>>,
    list: Arc<ZcList<Object>>,
    frags: BvecBuf,
}

impl Fixture {
    fn new(len: usize) -> Result<Self> {
        let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        pages.fill_pattern(0, len, 1)?;
        Ok(Self {
            payload: PageRange::new(pages.clone(), 0, len)?,
            pages,
            completions: Arc::new(Atomic::new(0), GFP_KERNEL)?,
            copies: Arc::new(Atomic::new(0), GFP_KERNEL)?,
            list: ZcList::new()?,
            frags: BvecBuf::with_capacity(64)?,
        })
    }

    fn ubuf(&self) -> Result<ZcUbuf<Object>> {
        let object = Object {
            completions: self.completions.clone(),
            copies: self.copies.clone(),
        };
        ZcUbuf::new(object, &self.list)
    }

    /// Sends the payload from `skip` on, as far as TCP takes it.
    fn send(&mut self, socket: &Socket, skip: usize, zc: &ZcUbuf<Object>) -> Result<usize> {
        let mut from = self.frags.start();
        assert!(from.push_range(&self.payload, skip));
        socket.send_zerocopy(&from, More::None, zc)
    }

    /// Sends the payload with one ubuf after the other until there is no room. Returns the number of ubufs,
    /// the last of which has no pages, and of bytes.
    fn fill(&mut self, socket: &Socket) -> Result<(u32, usize)> {
        let (mut count, mut total) = (0, 0);
        loop {
            let zc = self.ubuf()?;
            count += 1;
            match self.send(socket, 0, &zc) {
                Ok(sent) => total += sent,
                Err(e) if e == EAGAIN => return Ok((count, total)),
                Err(e) => return Err(e),
            }
        }
    }

    fn completed(&self) -> u32 {
        self.completions.load(Relaxed)
    }

    fn await_completed(&self, count: u32) -> Result {
        eventually(|| (self.completed() == count).then_some(()))
    }
}

#[kunit_tests(socklnd_lib_linux_zerocopy)]
mod suite {
    use super::*;

    #[test]
    fn no_pages_complete_at_once() -> Result {
        let fixture = Fixture::new(1)?;
        drop(fixture.ubuf()?);
        assert_eq!(fixture.completed(), 1);
        Ok(())
    }

    #[test]
    fn completed_once_when_acknowledged() -> Result {
        let len = 50_000;
        let mut fixture = Fixture::new(len)?;
        let (one, two) = pair()?;
        assert!(one.can_zerocopy());
        let sink = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        let into = PageRange::new(sink.clone(), 0, len)?;
        let mut rx = BvecBuf::with_capacity(64)?;
        let zc = fixture.ubuf()?;
        let (mut sent, mut have) = (0, 0);
        while have < len {
            if sent < len {
                sent += settled(fixture.send(&one, sent, &zc))
                    .transpose()?
                    .unwrap_or(0);
            }
            let mut to = rx.start_recv();
            assert!(to.push_range(&into, have));
            have += eventually(|| settled(two.recv(&to)))??;
        }
        assert_eq!(sink.xxh64(0, len, 0)?, fixture.pages.xxh64(0, len, 0)?);
        eventually(|| (one.wmem_queued() == 0).then_some(()))?;
        // More could be sent with it, so it is not complete.
        assert_eq!(fixture.completed(), 0);
        drop(zc);
        fixture.await_completed(1)?;
        // The receiver is on this machine.
        assert_eq!(fixture.copies.load(Relaxed), 1);
        one.abort();
        two.abort();
        assert_eq!(fixture.completed(), 1);
        Ok(())
    }

    #[test]
    fn not_completed_while_unacknowledged() -> Result {
        let mut fixture = Fixture::new(200_000)?;
        let (one, two) = pair()?;
        // Until the receiver's buffer and the sender's are full.
        let (count, total) = fixture.fill(&one)?;
        // The last one has nothing, the one before it can't have been acknowledged.
        assert!(count > 2);
        assert!(fixture.completed() < count);
        assert!(one.wmem_queued() > 0);
        drain(&two, total)?;
        fixture.await_completed(count)
    }

    #[test]
    fn completed_once_when_aborted() -> Result {
        for sender_first in [true, false] {
            let mut fixture = Fixture::new(200_000)?;
            let (one, two) = pair()?;
            let (count, _) = fixture.fill(&one)?;
            assert!(fixture.completed() < count);
            // Nobody has read anything. The abort of either side makes the sender let go.
            if sender_first {
                one.abort();
                fixture.await_completed(count)?;
                two.abort();
            } else {
                two.abort();
                fixture.await_completed(count)?;
                one.abort();
            }
            assert_eq!(fixture.completed(), count);
        }
        Ok(())
    }

    #[test]
    fn disowned_ubufs_never_complete() -> Result {
        let mut fixture = Fixture::new(200_000)?;
        let (one, two) = pair()?;
        let (count, _) = fixture.fill(&one)?;
        assert!(fixture.completed() < count);
        assert!(fixture.list.with_first(|_| ()).is_some());
        let mut disowned = 0;
        fixture.list.disown(|_object| disowned += 1);
        assert!(disowned > 0);
        // Those that were acknowledged before complete as usual.
        fixture.await_completed(count - disowned)?;
        assert!(fixture.list.with_first(|_| ()).is_none());
        one.abort();
        two.abort();
        assert_eq!(fixture.completed(), count - disowned);
        Ok(())
    }

    #[test]
    fn one_ubuf_for_many_calls_among_copies() -> Result {
        let mut fixture = Fixture::new(5000)?;
        let (one, two) = pair()?;
        for round in 1..50 {
            let zc = fixture.ubuf()?;
            let mut total = 0;
            for call in 0..4 {
                total += fixture.send(&one, call * 7, &zc)?;
                total += one.send_bytes(b"copied")?;
            }
            drop(zc);
            drain(&two, total)?;
            fixture.await_completed(round)?;
        }
        Ok(())
    }

    #[test]
    fn a_failed_call_keeps_nothing() -> Result {
        let mut fixture = Fixture::new(5000)?;
        let (one, two) = pair()?;
        two.abort();
        eventually(|| one.failure())?;
        let zc = fixture.ubuf()?;
        assert!(fixture.send(&one, 0, &zc).is_err());
        drop(zc);
        assert_eq!(fixture.completed(), 1);
        Ok(())
    }

    #[test]
    fn pages_outlive_their_owner() -> Result {
        const LEN: usize = 4096;
        let mut fixture = Fixture::new(LEN)?;
        let hash = fixture.pages.xxh64(0, LEN, 0)?;
        let (one, two) = pair()?;
        // More than the receiver has room for, so what is sent stays where it is.
        one.set_buffers(2_000_000, 0);
        two.set_buffers(0, 50_000);
        let ahead = 1000 * 512;
        for _ in 0..1000 {
            assert_eq!(one.send_bytes(&[0; 512])?, 512);
        }
        let zc = fixture.ubuf()?;
        assert_eq!(fixture.send(&one, 0, &zc)?, LEN);
        drop(zc);
        let completions = fixture.completions.clone();
        drop(fixture);
        // If the pages were free, these would get them.
        let others = Pages::alloc(1 << 20)?;
        others.fill_pattern(0, 1 << 20, 7)?;
        assert_eq!(completions.load(Relaxed), 0);
        drain(&two, ahead)?;
        let sink = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
        let into = PageRange::new(sink.clone(), 0, LEN)?;
        let mut rx = BvecBuf::with_capacity(2)?;
        let mut have = 0;
        while have < LEN {
            let mut to = rx.start_recv();
            assert!(to.push_range(&into, have));
            have += eventually(|| settled(two.recv(&to)))??;
        }
        assert_eq!(sink.xxh64(0, LEN, 0)?, hash);
        eventually(|| (completions.load(Relaxed) == 1).then_some(()))
    }
}
