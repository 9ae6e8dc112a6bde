// SPDX-License-Identifier: GPL-2.0

//! Tests of sockets, over the loopback device of the initial network namespace, which must be up.

use super::{
    super::{
        iov::BvecBuf,
        misc,
        page::{
            PageFrag,
            PageRange,
            Pages,
            RecvBuf, //
        },
        thread::{
            self,
            KThread, //
        },
    },
    *, //
};
use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};
use kernel::{
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Counts events. The two sizes make two types, of different layout.
struct Events<const PADDING: usize> {
    _padding: [u64; PADDING],
    data: Atomic<u32>,
    space: Atomic<u32>,
    state: Atomic<u32>,
}

impl<const PADDING: usize> Events<PADDING> {
    fn new() -> Result<Arc<Self>> {
        let events = Self {
            _padding: [0; PADDING],
            data: Atomic::new(0),
            space: Atomic::new(0),
            state: Atomic::new(0),
        };
        Ok(Arc::new(events, GFP_KERNEL)?)
    }

    fn total(&self) -> u32 {
        self.data.load(Relaxed) + self.space.load(Relaxed) + self.state.load(Relaxed)
    }
}

impl<const PADDING: usize> SocketEvents for Events<PADDING> {
    fn data_ready(this: ArcBorrow<'_, Self>) {
        this.data.add(1, Relaxed);
    }

    fn write_space(this: ArcBorrow<'_, Self>) {
        this.space.add(1, Relaxed);
    }

    fn state_change(this: ArcBorrow<'_, Self>) {
        this.state.add(1, Relaxed);
    }
}

impl<const PADDING: usize> Arrivals for Events<PADDING> {
    fn arrived(this: ArcBorrow<'_, Self>) {
        this.data.add(1, Relaxed);
    }
}

/// Tries something again until it succeeds or five seconds are over.
pub(crate) fn eventually<R>(mut f: impl FnMut() -> Option<R>) -> Result<R> {
    for _ in 0..5000 {
        if let Some(result) = f() {
            return Ok(result);
        }
        fsleep(Delta::from_millis(1));
    }
    Err(ETIMEDOUT)
}

/// What is not `EAGAIN`.
pub(crate) fn settled<R>(result: Result<R>) -> Option<Result<R>> {
    match result {
        Err(e) if e == EAGAIN => None,
        result => Some(result),
    }
}

/// A socket that listens on a port of the loopback address.
pub(crate) fn listener(family: Family) -> Result<Socket> {
    let socket = Socket::new_tcp(&Net::current(), family)?;
    socket.set_kernel_defaults();
    let addr = match family {
        Family::Inet => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        Family::Inet6 => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    };
    socket.bind(&addr)?;
    socket.listen(8)?;
    Ok(socket)
}

/// Takes a connection that nobody else in the kernel has taken.
fn accept(listener: &Socket) -> Option<Result<Socket>> {
    match listener.accept() {
        Ok(Some(Accepted::Socket(socket))) => Some(Ok(socket)),
        Ok(Some(Accepted::Owned { .. })) => Some(Err(EBUSY)),
        Ok(None) => None,
        Err(e) => Some(Err(e)),
    }
}

fn connect_to(listener: &Socket) -> Result<(Socket, Socket)> {
    let addr = listener.local_addr()?;
    let active = Socket::new_tcp(&Net::current(), Family::of(addr.ip()))?;
    active.connect(&addr)?;
    let passive = eventually(|| accept(listener))??;
    eventually(|| active.is_established().then_some(()))?;
    Ok((active, passive))
}

/// Two sockets, connected with each other.
pub(crate) fn pair() -> Result<(Socket, Socket)> {
    connect_to(&listener(Family::Inet)?)
}

fn recv_exactly(socket: &Socket, to: &mut [u8]) -> Result {
    let mut have = 0;
    while have < to.len() {
        let nob = eventually(|| settled(socket.recv_bytes(&mut to[have..])))??;
        if nob == 0 {
            return Err(EPIPE);
        }
        have += nob;
    }
    Ok(())
}

/// Sends until there is no room.
fn fill(socket: &Socket) -> Result<usize> {
    let chunk = [0; 512];
    let mut sent = 0;
    loop {
        match socket.send_bytes(&chunk) {
            Ok(nob) => sent += nob,
            Err(e) if e == EAGAIN => return Ok(sent),
            Err(e) => return Err(e),
        }
    }
}

/// Throws away `len` bytes.
pub(crate) fn drain(socket: &Socket, len: usize) -> Result {
    let mut left = len;
    while left > 0 {
        left -= eventually(|| settled(socket.discard(left)))??;
    }
    Ok(())
}

/// Where the callbacks of an idle socket are.
fn callbacks(socket: &Socket) -> [Option<usize>; 3] {
    let mut now = sys::socklnd_sk_callbacks::default();
    // SAFETY: The socket is valid, and nobody changes its callbacks meanwhile.
    unsafe { sys::socklnd_helper_sk_get_callbacks(socket.sk(), &mut now) };
    [now.data_ready, now.write_space, now.state_change].map(|callback| callback.map(|f| f as usize))
}

#[kunit_tests(socklnd_lib_linux_socket)]
mod suite {
    use super::*;

    #[test]
    fn connect_accept_and_addresses() -> Result {
        for family in [Family::Inet, Family::Inet6] {
            let listener = listener(family)?;
            assert!(listener.state() == TcpState::Listen);
            assert!(listener.accept()?.is_none());
            let (active, passive) = connect_to(&listener)?;
            assert!(active.peer_addr()? == listener.local_addr()?);
            assert!(passive.peer_addr()? == active.local_addr()?);
            assert!(passive.is_established());
            assert!(passive.incoming_cpu().is_some());
            assert!(listener.peer_addr().is_err());
        }
        Ok(())
    }

    #[test]
    fn bytes_both_ways_and_the_end() -> Result {
        let (one, two) = pair()?;
        let mut buf = [0; 16];
        assert!(matches!(two.recv_bytes(&mut buf), Err(e) if e == EAGAIN));
        assert!(matches!(two.recv_bytes(&mut []), Err(e) if e == EINVAL));
        assert_eq!(one.send_bytes(b"hello")?, 5);
        recv_exactly(&two, &mut buf[..5])?;
        assert!(&buf[..5] == b"hello");
        assert_eq!(two.send_bytes(b"0123456789")?, 10);
        eventually(|| settled(one.discard(4)))??;
        recv_exactly(&one, &mut buf[..6])?;
        assert!(&buf[..6] == b"456789");
        one.close_gracefully();
        assert_eq!(eventually(|| settled(two.recv_bytes(&mut buf)))??, 0);
        assert!(two.state() == TcpState::CloseWait);
        Ok(())
    }

    #[test]
    fn lists_of_pieces() -> Result {
        let (one, two) = pair()?;
        let len = 100_000;
        let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        pages.fill_pattern(0, len, 1)?;
        let payload = PageRange::new(pages.clone(), 0, len)?;
        let header = PageFrag::alloc(72)?.filled(&[0xaa; 72])?;
        let sink = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        let into = PageRange::new(sink.clone(), 0, len)?;
        let mut got = RecvBuf::alloc(72)?;
        let (mut tx, mut rx) = (BvecBuf::with_capacity(64)?, BvecBuf::with_capacity(64)?);

        let (mut sent, mut have) = (0, 0);
        while have < 72 + len {
            if sent < 72 + len {
                let mut from = tx.start();
                assert!(from.push_frag(&header, sent));
                assert!(from.push_range(&payload, sent.saturating_sub(72)));
                assert_eq!(from.len_bytes(), 72 + len - sent);
                sent += settled(one.send(&from, More::None))
                    .transpose()?
                    .unwrap_or(0);
            }
            let mut to = rx.start_recv();
            assert!(to.push_buf(&mut got, have, 72));
            assert!(to.push_range(&into, have.saturating_sub(72)));
            have += eventually(|| settled(two.recv(&to)))??;
        }
        assert!(got.as_slice() == [0xaa; 72]);
        assert_eq!(sink.xxh64(0, len, 0)?, pages.xxh64(0, len, 0)?);
        // Nothing behind it, and nothing to receive into.
        assert!(matches!(two.recv(&rx.start_recv()), Err(e) if e == EINVAL));
        assert!(matches!(two.discard(1), Err(e) if e == EAGAIN));
        Ok(())
    }

    #[test]
    fn what_is_followed_by_more_waits_for_it() -> Result {
        let piece = PageFrag::alloc(72)?.filled(&[0xaa; 72])?;
        let mut tx = BvecBuf::with_capacity(4)?;
        let mut send = |socket: &Socket, more| {
            let mut from = tx.start();
            assert!(from.push_frag(&piece, 0));
            socket.send(&from, more)
        };
        let mut held = false;
        // TCP waits for a fraction of a second only, which may be over before we look.
        for _ in 0..5 {
            let (one, two) = pair()?;
            one.set_nodelay(true);
            assert_eq!(send(&one, More::Follows)?, 72);
            held |= !two.has_input();
            assert_eq!(send(&one, More::None)?, 72);
            let mut got = [0; 144];
            recv_exactly(&two, &mut got)?;
            assert!(got == [0xaa; 144]);
        }
        assert!(held);
        Ok(())
    }

    #[test]
    fn memory_that_waits_for_no_file_system() -> Result {
        let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
        socket.set_kernel_defaults();
        assert_eq!(socket.allocation(), sys::GFP_NOFS);
        Ok(())
    }

    #[test]
    fn options() -> Result {
        let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
        for on in [true, false, true] {
            socket.set_nodelay(on);
            assert_eq!(socket.nodelay(), on);
        }
        let (sndbuf, rcvbuf) = (socket.sndbuf(), socket.rcvbuf());
        socket.set_buffers(100_000, 0);
        assert_eq!((socket.sndbuf(), socket.rcvbuf()), (200_000, rcvbuf));
        socket.set_buffers(0, 50_000);
        assert_eq!((socket.sndbuf(), socket.rcvbuf()), (sndbuf, 100_000));
        socket.set_buffers(0, 0);
        assert_eq!((socket.sndbuf(), socket.rcvbuf()), (sndbuf, rcvbuf));
        socket.set_buffers(usize::MAX, 1);
        assert!(socket.sndbuf() > 2_000_000_000);
        assert!(socket.rcvbuf() > 1);
        assert!(socket.set_keepalive(30, 5, 6).is_ok());
        assert_eq!(socket.keepalive(), (30, 5, 6));
        assert!(socket.set_keepalive(0, 0, 0).is_ok());
        assert_eq!(socket.keepalive(), (0, 5, 6));
        assert!(socket.set_keepalive(-1, 5, 5).is_err());
        assert!(socket.set_keepalive(30, 0, 5).is_err());
        assert!(socket.set_keepalive(30, 5, 128).is_err());
        socket.set_tos(0xff);
        assert_eq!(socket.tos(), 0xfc);
        socket.set_tos(0);
        assert_eq!(socket.tos(), 0);
        assert!(socket.take_error().is_none());
        assert!(socket.state() == TcpState::Close);
        Ok(())
    }

    #[test]
    fn inherited_from_the_listener() -> Result {
        let listener = listener(Family::Inet)?;
        listener.set_buffers(70_000, 80_000);
        listener.set_nodelay(true);
        let (_active, passive) = connect_to(&listener)?;
        assert_eq!((passive.sndbuf(), passive.rcvbuf()), (140_000, 160_000));
        assert!(passive.nodelay());
        Ok(())
    }

    #[test]
    fn a_port_can_be_used_again() -> Result {
        let listener = listener(Family::Inet)?;
        let addr = listener.local_addr()?;
        let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
        assert!(matches!(socket.bind(&addr), Err(e) if e == EADDRINUSE));
        // What the listener leaves behind is in TIME_WAIT, for this side closes first.
        let (active, passive) = connect_to(&listener)?;
        passive.close_gracefully();
        assert_eq!(eventually(|| settled(active.recv_bytes(&mut [0])))??, 0);
        active.close_gracefully();
        drop(listener);
        socket.set_reuseaddr(true);
        socket.bind(&addr)?;
        socket.listen(1)
    }

    #[test]
    fn a_listener_and_its_connections() -> Result {
        let events = Events::<0>::new()?;
        let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = ListeningSocket::new(socket, 8, events.clone())?;
        let addr = listener.local_addr()?;
        let active = Socket::new_tcp(&Net::current(), Family::Inet)?;
        active.connect(&addr)?;
        eventually(|| (events.total() > 0).then_some(()))?;
        // What a connection inherits is TCP's own, also while nobody has accepted it.
        eventually(|| active.is_established().then_some(()))?;
        active.send_bytes(b"early")?;
        let passive = eventually(|| accept(&listener))??;
        assert!(callbacks(&passive) == callbacks(&active));
        let before = events.total();
        let own = Events::<1>::new()?;
        let passive = passive.hook(own.clone());
        active.send_bytes(b"late")?;
        let mut buf = [0; 9];
        recv_exactly(&passive, &mut buf)?;
        assert!(&buf == b"earlylate");
        eventually(|| (own.data.load(Relaxed) > 0).then_some(()))?;
        assert_eq!(events.total(), before);
        // A connection that nobody accepts, and a listener that goes.
        let active = Socket::new_tcp(&Net::current(), Family::Inet)?;
        active.connect(&addr)?;
        eventually(|| (events.total() > before).then_some(()))?;
        drop(listener);
        assert!(Arc::into_unique_or_drop(events).is_some());
        eventually(|| active.failure()).map(drop)
    }

    #[test]
    fn a_socket_is_claimed_from_beginning_to_end() -> Result {
        let claim = |socket: &Socket| {
            // SAFETY: The socket is valid.
            Owner::from_raw(unsafe { sys::socklnd_helper_sk_claim(socket.sk()) })
        };
        let (one, two) = pair()?;
        assert!(claim(&one) == Some(Owner::Other));
        assert!(claim(&two) == Some(Owner::Other));
        let hooked = one.hook(Events::<0>::new()?);
        assert!(claim(&hooked) == Some(Owner::Other));
        let one = hooked.unhook();
        assert!(claim(&one) == Some(Owner::Other));
        // Nobody's any more, which only this test can see.
        // SAFETY: The socket is valid.
        unsafe { sys::socklnd_helper_sk_disclaim(two.sk()) };
        assert!(claim(&two).is_none());
        Ok(())
    }

    #[test]
    fn write_space_comes_when_there_is_room() -> Result {
        let (one, two) = pair()?;
        one.set_buffers(20_000, 0);
        let events = Events::<0>::new()?;
        let one = one.hook(events.clone());
        for _ in 0..4 {
            let sent = fill(&one)?;
            // Events that came while it was being filled tell of room that is used up.
            let before = events.space.load(Relaxed);
            if one.has_send_space() {
                // The other side's kernel was faster than we.
                drain(&two, sent)?;
                continue;
            }
            assert!(one.wmem_queued() > 0);
            // What was sent is only acknowledged when the receiver reads.
            drain(&two, sent)?;
            eventually(|| one.has_send_space().then_some(()))?;
            eventually(|| (events.space.load(Relaxed) > before).then_some(()))?;
        }
        Ok(())
    }

    #[test]
    fn a_refused_connection() -> Result {
        let addr = listener(Family::Inet)?.local_addr()?;
        let events = Events::<0>::new()?;
        let socket = Socket::new_tcp(&Net::current(), Family::Inet)?.hook(events.clone());
        match socket.connect(&addr) {
            Ok(_) => {
                let error = eventually(|| socket.take_error())?;
                assert!(error == ECONNREFUSED);
                assert!(events.state.load(Relaxed) > 0);
            }
            // The answer may come before the call returns.
            Err(e) => assert!(e == ECONNREFUSED),
        }
        assert!(!socket.is_established());
        Ok(())
    }

    #[test]
    fn an_aborted_connection() -> Result {
        let (one, two) = pair()?;
        let events = Events::<0>::new()?;
        let two = two.hook(events.clone());
        one.abort();
        let error = eventually(|| two.take_error())?;
        assert!(error == ECONNRESET);
        assert!(events.state.load(Relaxed) > 0);
        assert!(two.state() == TcpState::Close);
        Ok(())
    }

    #[test]
    fn graceful_close_delivers_everything() -> Result {
        let (one, two) = pair()?;
        let sent = fill(&one)?;
        one.close_gracefully();
        drain(&two, sent)?;
        assert_eq!(eventually(|| settled(two.recv_bytes(&mut [0])))??, 0);
        Ok(())
    }

    #[test]
    fn no_event_after_unhook() -> Result {
        let (one, two) = pair()?;
        let events = Events::<0>::new()?;
        let two = two.hook(events.clone());
        one.send_bytes(b"1")?;
        eventually(|| (events.data.load(Relaxed) > 0).then_some(()))?;
        let two = two.unhook();
        let total = events.total();
        one.send_bytes(b"2")?;
        let mut buf = [0; 2];
        recv_exactly(&two, &mut buf)?;
        one.abort();
        eventually(|| two.take_error())?;
        assert_eq!(events.total(), total);
        assert!(Arc::into_unique_or_drop(events).is_some());
        Ok(())
    }

    #[test]
    fn hook_and_unhook_under_traffic() -> Result {
        let (one, two) = pair()?;
        let stop = Arc::new(Atomic::new(false), GFP_KERNEL)?;
        let arg = (one, stop.clone());
        let last_cpu = misc::online_cpus().last();
        let sender = KThread::spawn(c"socklnd_test", last_cpu, arg, |(one, stop)| {
            while !stop.load(Relaxed) {
                match one.send_bytes(&[0; 1000]) {
                    Ok(_) => {}
                    Err(e) if e == EAGAIN => fsleep(Delta::from_millis(1)),
                    Err(_) => return,
                }
                thread::cond_resched();
            }
        })?;
        let (small, big) = (Events::<0>::new()?, Events::<9>::new()?);
        let mut two = two;
        for _ in 0..2000 {
            let hooked = two.hook(small.clone());
            let _ = hooked.discard(1_500);
            two = hooked.unhook();
            let hooked = two.hook(big.clone());
            let _ = hooked.discard(1_500);
            two = hooked.unhook();
        }
        // Nothing stops the traffic; the hooks just have to have met some of it.
        let hooked = two.hook(small.clone());
        let before = small.total();
        eventually(|| {
            let _ = hooked.discard(1 << 20);
            (small.total() > before + 10).then_some(())
        })?;
        stop.store(true, Relaxed);
        drop(sender);
        drop(hooked);
        assert!(Arc::into_unique_or_drop(small).is_some());
        assert!(Arc::into_unique_or_drop(big).is_some());
        Ok(())
    }
}
