// SPDX-License-Identifier: GPL-2.0

//! KUnit cases of a [`Pool`], with connections that only count how often they were woken.

use super::*;

#[kernel::macros::kunit_tests(socklnd_fwd_pool)]
mod suite {
    use super::*;
    use kernel::sync::atomic::Atomic;

    struct TestConn(Atomic<u32>);

    impl BlockedConn for TestConn {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A connection that asks for a buffer for one message at a time.
    struct Requester {
        conn: Arc<TestConn>,
        path: FwdPath,
        arrived: Arrived,
        request: FmbRequest,
    }

    impl Requester {
        fn new(path: &FwdPath) -> Result<Self> {
            Ok(Self {
                conn: Arc::new(TestConn(Atomic::new(0)), GFP_KERNEL)?,
                path: path.clone(),
                arrived: Arrived::All,
                request: FmbRequest::default(),
            })
        }

        fn wakes(&self) -> u32 {
            self.conn.0.load(Relaxed)
        }

        fn request(&mut self, pool: &Arc<Pool<TestConn>>) -> Grant<TestConn> {
            pool.request(
                self.conn.as_arc_borrow(),
                &self.path,
                self.arrived,
                &mut self.request,
            )
        }

        fn granted(&mut self, pool: &Arc<Pool<TestConn>>) -> Option<Fmb<TestConn>> {
            match self.request(pool) {
                Grant::Granted(fmb) => Some(fmb),
                _ => None,
            }
        }

        fn has_to_wait(&mut self, pool: &Arc<Pool<TestConn>>) -> bool {
            matches!(self.request(pool), Grant::Queued)
        }

        fn cancel(&mut self, pool: &Pool<TestConn>) {
            pool.cancel(&mut self.request);
        }
    }

    fn pool(capacity: usize) -> Result<Arc<Pool<TestConn>>> {
        let pool = Pool::new(0, 100)?;
        pool.open(capacity)?;
        Ok(pool)
    }

    /// A path of which no part is shared with another one, to a node that can be reached.
    fn new_path() -> Result<FwdPath> {
        let next_hop = FmbCredits::of_addr()?;
        next_hop.set_reached(true);
        Ok(FwdPath {
            addr: FmbCredits::of_addr()?,
            prev_hop: FmbCredits::of_addr()?,
            next_hop,
        })
    }

    /// Another path with the same next hop.
    fn path_to(path: &FwdPath) -> Result<FwdPath> {
        Ok(FwdPath {
            next_hop: path.next_hop.clone(),
            ..new_path()?
        })
    }

    /// The buffers with messages from its previous hop, and with messages to its next hop.
    fn held(path: &FwdPath) -> (isize, isize) {
        let usage = |credits: &FmbCredits| {
            let usage = credits.usage(0);
            usage.map_or((0, 0), |usage| {
                (usage.from.load(Relaxed), usage.to.load(Relaxed))
            })
        };
        (usage(&path.prev_hop).0, usage(&path.next_hop).1)
    }

    fn state(pool: &Pool<TestConn>) -> (usize, usize, usize) {
        let info = pool.info();
        (info.buffers, info.busy, info.waiting)
    }

    #[test]
    fn one_after_the_other() -> Result {
        let pool = pool(1)?;
        let mut holder = Requester::new(&new_path()?)?;
        let out = holder.granted(&pool);
        assert!(out.is_some());
        let mut requesters = [Requester::new(&new_path()?)?, Requester::new(&new_path()?)?];
        for requester in requesters.iter_mut() {
            // Asking again does not change the place in the queue.
            assert!(requester.has_to_wait(&pool) && requester.has_to_wait(&pool));
        }
        assert!(state(&pool) == (1, 1, 2));
        drop(out);
        let [one, other] = &mut requesters;
        let (first, second) = if one.wakes() == 1 {
            (one, other)
        } else {
            (other, one)
        };
        assert!((first.wakes(), second.wakes()) == (1, 0));
        // The buffer is granted to the first one, although that has not asked for it again yet.
        assert!(holder.has_to_wait(&pool));
        assert!(second.has_to_wait(&pool));
        let out = first.granted(&pool);
        assert!(out.is_some());
        drop(out);
        assert!(second.wakes() + holder.wakes() == 1);
        drop(second.granted(&pool));
        drop(holder.granted(&pool));
        drop(second.granted(&pool));
        for requester in [&mut holder, first, second] {
            requester.cancel(&pool);
        }
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn who_dies_waiting_gives_all_back() -> Result {
        let pool = pool(1)?;
        let mut holder = Requester::new(&new_path()?)?;
        let out = holder.granted(&pool);
        let path = new_path()?;
        // Both from the same address, so that the first one is the next.
        let (mut first, mut second) = (Requester::new(&path)?, Requester::new(&path)?);
        assert!(first.has_to_wait(&pool) && second.has_to_wait(&pool));
        drop(out);
        assert!(first.wakes() == 1);
        // Its connection ends before it asks for the buffer that it was granted.
        first.cancel(&pool);
        assert!(second.wakes() == 1);
        assert!(held(&path) == (1, 1));
        second.cancel(&pool);
        assert!(held(&path) == (0, 0));
        assert!(state(&pool) == (1, 0, 0));
        assert!(path.addr.is_unused());
        Ok(())
    }

    /// As many buffers as messages on this path get.
    fn take_all(pool: &Arc<Pool<TestConn>>, path: &FwdPath) -> Result<KVec<Fmb<TestConn>>> {
        let mut requester = Requester::new(path)?;
        let mut out = KVec::new();
        while let Some(fmb) = requester.granted(pool) {
            out.push(fmb, GFP_KERNEL)?;
        }
        requester.cancel(pool);
        Ok(out)
    }

    #[test]
    fn a_stuck_node_leaves_nearly_all_to_others() -> Result {
        for (capacity, one, two) in [(8, 3, 3), (16, 4, 4), (64, 10, 10), (2, 1, 1), (1, 1, 0)] {
            let pool = pool(capacity)?;
            let (stuck, other) = (new_path()?, new_path()?);
            let mut out = take_all(&pool, &stuck)?;
            assert!(out.len() == one);
            let mut requester = Requester::new(&stuck)?;
            assert!(requester.has_to_wait(&pool));
            // Its request does not hinder others.
            for _ in 0..100 {
                assert!(take_all(&pool, &other)?.len() == two);
            }
            assert!(requester.wakes() == 0);
            drop(out.pop());
            assert!(requester.wakes() == 1);
            assert!(requester.granted(&pool).is_some());
        }
        Ok(())
    }

    #[test]
    fn something_is_left_however_many_are_stuck() -> Result {
        let pool = pool(16)?;
        let mut out = KVec::new();
        for most in [4, 4, 4, 2, 1, 1, 0] {
            let stuck = take_all(&pool, &new_path()?)?;
            assert!(stuck.len() == most);
            out.push(stuck, GFP_KERNEL)?;
        }
        Ok(())
    }

    #[test]
    fn one_sender_gets_half() -> Result {
        let other = new_path()?;
        let addr = || -> Result<FwdPath> {
            Ok(FwdPath {
                addr: other.addr.clone(),
                ..new_path()?
            })
        };
        let prev_hop = || -> Result<FwdPath> {
            Ok(FwdPath {
                prev_hop: other.prev_hop.clone(),
                ..new_path()?
            })
        };
        // Whether it is one node, or many at one address.
        let paths: [&dyn Fn() -> Result<FwdPath>; 2] = [&addr, &prev_hop];
        for path in paths {
            let pool = pool(16)?;
            let mut out = KVec::new();
            for most in [4, 4, 0, 0] {
                let stuck = take_all(&pool, &path()?)?;
                assert!(stuck.len() == most);
                out.push(stuck, GFP_KERNEL)?;
            }
            assert!(take_all(&pool, &new_path()?)?.len() == 4);
        }
        Ok(())
    }

    #[test]
    fn what_is_unsure_gets_a_quarter() -> Result {
        let pool = pool(16)?;
        let mut out = KVec::new();
        for most in [4, 1, 0, 0] {
            let path = new_path()?;
            path.next_hop.set_reached(false);
            let stuck = take_all(&pool, &path)?;
            assert!(stuck.len() == most);
            out.push(stuck, GFP_KERNEL)?;
        }
        // So do messages that have not arrived, whatever node they go to.
        let mut part = Requester::new(&new_path()?)?;
        part.arrived = Arrived::Part;
        assert!(part.has_to_wait(&pool));
        part.cancel(&pool);
        // A message of low priority waits until those of normal priority have buffers.
        let lost = new_path()?;
        lost.next_hop.set_reached(false);
        let good = new_path()?;
        let mut full = take_all(&pool, &good)?;
        let (mut first, mut second) = (Requester::new(&lost)?, Requester::new(&good)?);
        assert!(first.has_to_wait(&pool) && second.has_to_wait(&pool));
        drop(full.pop());
        assert!((first.wakes(), second.wakes()) == (0, 1));
        drop(out.pop());
        drop(out.pop());
        drop(out.pop());
        assert!(first.wakes() == 1);
        // Its priority is that of the time when it asked.
        lost.next_hop.set_reached(true);
        drop(first.granted(&pool));
        drop(second.granted(&pool));
        Ok(())
    }

    #[test]
    fn addresses_take_turns() -> Result {
        let (one, other) = (new_path()?, new_path()?);
        for (crowded, good) in [(&one, &other), (&other, &one)] {
            let pool = pool(8)?;
            let path = |from: &FwdPath| FwdPath {
                next_hop: one.next_hop.clone(),
                ..from.clone()
            };
            let mut out = take_all(&pool, &path(crowded))?;
            // From one address a hundred wait for the node, and one more from another.
            let mut crowd = KVec::new();
            for _ in 0..100 {
                let prev_hop = FmbCredits::of_addr()?;
                let mut requester = Requester::new(&FwdPath {
                    prev_hop,
                    ..path(crowded)
                })?;
                assert!(requester.has_to_wait(&pool));
                crowd.push(requester, GFP_KERNEL)?;
            }
            let mut good = Requester::new(&path(good))?;
            assert!(good.has_to_wait(&pool));
            for _ in 0..2 {
                drop(out.pop());
            }
            assert!(good.wakes() == 1);
            drop(good.granted(&pool));
            for requester in crowd.iter_mut() {
                requester.cancel(&pool);
            }
            drop(out);
            assert!(state(&pool) == (8, 0, 0));
        }
        Ok(())
    }

    #[test]
    fn so_many_of_an_address_wait() -> Result {
        let pool = pool(1)?;
        let out = take_all(&pool, &new_path()?)?;
        let path = new_path()?;
        let mut waiting = KVec::new();
        for _ in 0..MAX_WAITING {
            let mut requester = Requester::new(&path)?;
            assert!(requester.has_to_wait(&pool));
            waiting.push(requester, GFP_KERNEL)?;
        }
        assert!(matches!(
            Requester::new(&path)?.request(&pool),
            Grant::QueueFull
        ));
        let mut other = Requester::new(&new_path()?)?;
        assert!(other.has_to_wait(&pool));
        other.cancel(&pool);
        for requester in waiting.iter_mut() {
            requester.cancel(&pool);
        }
        drop(out);
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn closed_and_open_again() -> Result {
        let pool = pool(4)?;
        let path = new_path()?;
        let mut requester = Requester::new(&path)?;
        let out = requester.granted(&pool);
        let second = requester.granted(&pool);
        let mut waiting = Requester::new(&path)?;
        assert!(waiting.has_to_wait(&pool));
        pool.close();
        // Only buffers in use are left, and are freed when they come back.
        assert!(waiting.wakes() == 1);
        assert!(matches!(waiting.request(&pool), Grant::Closed));
        assert!(state(&pool) == (2, 2, 0));
        drop(second);
        assert!(state(&pool) == (1, 1, 0));
        pool.open(3)?;
        assert!(state(&pool) == (3, 1, 0));
        // A buffer that was granted, and not asked for again, is freed with the pool too.
        let busy = new_path()?;
        let more = take_all(&pool, &busy)?;
        let mut late = Requester::new(&path_to(&busy)?)?;
        assert!(late.has_to_wait(&pool));
        drop(more);
        assert!(late.wakes() == 1);
        pool.close();
        assert!(matches!(late.request(&pool), Grant::Closed));
        assert!(state(&pool) == (1, 1, 0));
        drop(out);
        assert!(state(&pool) == (0, 0, 0));
        pool.open(0)?;
        assert!(requester.has_to_wait(&pool));
        pool.close();
        assert!(state(&pool) == (0, 0, 0));
        assert!(held(&path) == (0, 0));
        Ok(())
    }

    #[test]
    fn who_is_stuck_gives_way_to_others() -> Result {
        let pool = pool(1)?;
        let now = || Instant::now() + MAX_STUCK;
        let path = new_path()?;
        let mut holder = Requester::new(&path)?;
        let begun = Instant::now();
        let out = holder.granted(&pool).ok_or(EINVAL)?;
        assert!(pool.find_stuck(now()).is_none());
        let mut same = Requester::new(&path_to(&path)?)?;
        assert!(same.has_to_wait(&pool));
        let mut other = Requester::new(&new_path()?)?;
        assert!(other.has_to_wait(&pool));
        assert!(pool
            .find_stuck(begun + (MAX_STUCK - Delta::from_nanos(1)))
            .is_none());
        let receiving = |stuck| matches!(stuck, Some(Stuck::Receiving(conn)) if Arc::ptr_eq(&conn, &holder.conn));
        assert!(receiving(pool.find_stuck(now())));
        out.set_received();
        other.cancel(&pool);
        // Messages to the same node would not be sent any sooner.
        assert!(pool.find_stuck(now()).is_none());
        assert!(other.has_to_wait(&pool));
        let sending =
            |stuck| matches!(stuck, Some(Stuck::Sending(to)) if Arc::ptr_eq(&to, &path.next_hop));
        assert!(sending(pool.find_stuck(now())));
        same.cancel(&pool);
        other.cancel(&pool);
        drop(out);
        assert!(pool.find_stuck(now()).is_none());
        Ok(())
    }

    #[test]
    fn who_is_stuck_gives_way_whatever_the_priorities() -> Result {
        let pool = pool(1)?;
        let (one, other) = (new_path()?, new_path()?);
        // So that the queue begins and ends with messages to the node that is stuck.
        let (stuck, good) = if one.next_hop.id() < other.next_hop.id() {
            (one, other)
        } else {
            (other, one)
        };
        let out = Requester::new(&stuck)?.granted(&pool).ok_or(EINVAL)?;
        out.set_received();
        let mut first = Requester::new(&path_to(&stuck)?)?;
        let mut between = Requester::new(&good)?;
        let mut last = Requester::new(&path_to(&stuck)?)?;
        last.arrived = Arrived::Part;
        for requester in [&mut first, &mut between, &mut last] {
            assert!(requester.has_to_wait(&pool));
        }
        let found = pool.find_stuck(Instant::now() + MAX_STUCK);
        assert!(matches!(found, Some(Stuck::Sending(to)) if Arc::ptr_eq(&to, &stuck.next_hop)));
        for requester in [&mut first, &mut between, &mut last] {
            requester.cancel(&pool);
        }
        drop(out);
        Ok(())
    }
}
