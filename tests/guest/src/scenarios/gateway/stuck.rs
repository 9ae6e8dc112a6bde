// SPDX-License-Identifier: GPL-2.0

//! Receivers that don't read.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    LIMIT, await_large, bench, dial_across, forwarding, large, make_gateway, move_across, nid1,
    other_side,
};
use crate::command::Job;
use crate::lab::Lab;
use crate::node::{Bench, Node, Op, check_bench};
use crate::pace;
use crate::peer::{BULK_OUT, Conn, Hello, Listener, Message, inverse, nid};
use crate::port::note;
use crate::scenarios::traffic::lasting;
use crate::scenarios::versions::set;
use crate::wait;
use crate::worker::{Over, Worker};

/// Bytes of the payload of most messages here.
const SIZE: usize = 20_000;

/// A number about a gateway's pool of small buffers.
fn small(gateway: &Node, name: &str) -> Result<u64> {
    let routing = gateway.socklctl(&["show", "routing"])?;
    routing["small"][name].as_u64().context("no such number")
}

/// A message to a scripted receiver, with a number.
fn numbered(from: Ipv4Addr, to: Ipv4Addr, number: u64, size: usize) -> Vec<u8> {
    let mut message = Message::put(from, to, 7, number, vec![number as u8; size]);
    message.src = nid1(from);
    message.bytes()
}

/// The number of a message, in which all must be right.
fn number_of(message: &Message, to: Ipv4Addr) -> Result<u64> {
    let number = u64::from_le_bytes(message.body[16..24].try_into()?);
    ensure!(message.dest == nid(to), "wrong NID: {:x}", message.dest);
    let right = message.payload.iter().all(|byte| *byte == number as u8);
    ensure!(right, "wrong contents of message {number}");
    Ok(number)
}

/// Answers a greeting of a node.
fn welcome(listener: &Listener) -> Result<Conn> {
    let (mut conn, hello) = listener.accept_greeting(LIMIT)?;
    conn.send(&Hello::new(conn.from, conn.to, inverse(hello.conn_type)).bytes())?;
    Ok(conn)
}

/// Reads so many messages from all of these connections, and sees that no more come. Gives the numbers
/// that came by each, of which none is there twice. Each message must pass the `check`.
fn read_numbered(
    conns: Vec<Conn>,
    to: Ipv4Addr,
    expected: usize,
    check: impl Fn(&Message) -> Result<()> + Sync,
) -> Result<Vec<Vec<u64>>> {
    let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let read = |mut conn: Conn| -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let Some(message) = conn.receive_message_within(Duration::from_millis(100))? else {
                continue;
            };
            check(&message)?;
            ensure!(message.payload.len() == SIZE, "wrong length");
            numbers.push(number_of(&message, to)?);
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(numbers)
    };
    thread::scope(|scope| {
        let all_over = Over(&over);
        let readers = conns.into_iter().map(|conn| scope.spawn(|| read(conn)));
        let readers: Vec<_> = readers.collect();
        let (mut before, mut progress) = (0, Ok(()));
        while progress.is_ok() && before < expected {
            progress = wait::until(LIMIT, "messages that come", || {
                let now = count.load(Ordering::Relaxed);
                let failed = readers.iter().any(|reader| reader.is_finished());
                ensure!(now > before || failed, "{now} of {expected} are there");
                before = if failed { expected } else { now };
                Ok(())
            });
        }
        wait::quiet_time(Duration::from_millis(300));
        drop(all_over);
        let mut all = Vec::new();
        for reader in readers {
            all.push(reader.join().map_err(|_| anyhow!("a reader panicked"))??);
        }
        progress?;
        let mut numbers = all.concat();
        ensure!(
            numbers.len() == expected,
            "{} messages arrived, not {expected}",
            numbers.len()
        );
        numbers.sort_unstable();
        numbers.dedup();
        ensure!(numbers.len() == expected, "some came twice: {numbers:?}");
        Ok(all)
    })
}

/// Memory that is there for the asking, in KiB.
fn available() -> Result<i64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let (_, rest) = memory.split_once("MemAvailable:").context("no such line")?;
    let number = rest.split_whitespace().next().context("no number")?;
    Ok(number.parse()?)
}

/// Transfers between a client and a server through a gateway.
struct Traffic {
    client: Node,
    server: Node,
}

impl Traffic {
    fn new(client: &Node, gateway: &Node, server: &Node) -> Result<Traffic> {
        let client = move_across(client)?;
        client.ni_add()?;
        let by = format!("{}@tcp1", other_side(gateway));
        client.socklctl(&["route", "add", "tcp", &by])?;
        server.ni_add()?;
        server.socklctl(&["route", "add", "tcp1", &gateway.nid()])?;
        let server = server.clone();
        Ok(Traffic { client, server })
    }

    fn start(&self, load: &Bench) -> Result<Job> {
        self.client.start_bench(&self.server, load)
    }
}

/// How fast one goes compared with another, at the same time, as the machine has other things to do as
/// well.
fn compare(one: &Traffic, other: &Traffic, load: &Bench) -> Result<f64> {
    const TIMES: usize = 3;
    let rate = |job: Job| -> Result<f64> {
        let result = check_bench(job.wait(load.limit + LIMIT)?, load)?;
        result["messages_per_second"].as_f64().context("no rate")
    };
    let mut ratios = Vec::new();
    for _ in 0..TIMES {
        let jobs = (one.start(load)?, other.start(load)?);
        let rates = (rate(jobs.0)?, rate(jobs.1)?);
        note(&format!("messages/s: {:.0} and {:.0}", rates.0, rates.1));
        ratios.push(rates.0 / rates.1);
    }
    ratios.sort_by(f64::total_cmp);
    ratios.get(TIMES / 2).copied().context("no ratios")
}

/// One receiver does not read: it uses only some of the buffers, its senders wait, and others are
/// as fast as through an idle gateway. No more memory is allocated meanwhile, and a connection that
/// ends while it waits returns everything. When the receiver reads, all messages arrive in order.
pub fn stuck_receiver(lab: &mut Lab) -> Result<()> {
    /// Many times what the gateway's buffers and those of the sockets hold.
    const MESSAGES: usize = 800;
    const BUFFERS: u64 = 8;
    /// An eighth and two.
    const ITS_BUFFERS: u64 = 3;
    set("large_router_buffers", BUFFERS)?;
    // Nobody is given up for the time that it takes to look at the others.
    set("sock_timeout", 86_400)?;
    let (stuck, gateway) = (lab.node(0), lab.node(1));
    make_gateway(gateway)?;
    make_gateway(lab.node(3))?;
    let sender = move_across(lab.node(2))?;
    let others = Traffic::new(lab.node(4), gateway, lab.node(5))?;
    let free = Traffic::new(lab.node(6), lab.node(3), lab.node(7))?;
    let _services = [others.server.serve()?, free.server.serve()?];
    // Long enough for a rate, however fast the machine is.
    let mut load = bench(Op::Put, SIZE, 20);
    load.count = lasting(
        &free.client,
        &free.server,
        &load,
        Duration::from_millis(500),
    )?;
    let before = compare(&others, &free, &load)?;
    note(&format!("{before:.2} of the rate elsewhere"));

    let listener = Listener::new(&stuck.space, stuck.addr)?;
    listener.narrow(65536)?;
    let first = dial_across(&sender, sender.addr, gateway, BULK_OUT)?;
    first.be_patient()?;
    let (from, to) = (sender.addr, stuck.addr);
    let sending = Worker::start(first, move |mut first| -> Result<Conn> {
        for number in 0..MESSAGES {
            first.send(&numbered(from, to, number as u64, SIZE))?;
        }
        Ok(first)
    });
    let conns = [0; 3].map(|_| welcome(&listener));
    let is_stuck = |waiting| -> Result<()> {
        await_large(gateway, "waiting", waiting)?;
        await_large(gateway, "busy", ITS_BUFFERS)
    };
    is_stuck(1)?;

    // Somebody else sends there too, waits, and dies.
    let second = Ipv4Addr::new(10, 1, 0, 33);
    sender
        .space
        .ip(&format!("addr add {second}/24 dev eth0\n"))?;
    wait::quiet_time(Duration::from_millis(500));
    is_stuck(1)?;
    let mut doomed = dial_across(&sender, second, gateway, BULK_OUT)?;
    doomed.send(&numbered(second, to, 9999, SIZE))?;
    await_large(gateway, "waiting", 2)?;
    compare(&others, &free, &load)?;
    let memory = available()?;
    let mut ratio = 0.0;
    for _ in 0..8 {
        ratio = compare(&others, &free, &load)?.max(ratio);
        if ratio >= 0.8 {
            break;
        }
    }
    note(&format!("others go on at {ratio:.2} of their rate"));
    ensure!(ratio >= 0.8, "others are slowed down to {ratio:.2}");
    // The stuck receiver's messages alone are 16 MB. The checkers need some for themselves.
    let used = memory - available()?;
    ensure!(used < 8 << 10, "{used} KiB were used up meanwhile");
    doomed.reset()?;
    is_stuck(1)?;
    ensure!(
        large(gateway, "buffers")? == BUFFERS,
        "the number of buffers changed"
    );

    // The first ones may have gone over another connection, while that for bulk data was made.
    let conns: Vec<Conn> = conns.into_iter().collect::<Result<_>>()?;
    let check = |message: &Message| {
        ensure!(message.src == nid1(from), "wrong NID: {:x}", message.src);
        Ok(())
    };
    for numbers in read_numbered(conns, to, MESSAGES, check)? {
        ensure!(numbers.is_sorted(), "out of order: {numbers:?}");
    }
    let sent = sending.join()?;
    await_large(gateway, "busy", 0)?;
    await_large(gateway, "waiting", 0)?;
    ensure!(forwarding(gateway, "failed")? == 0, "something failed");
    drop(sent?);
    Ok(())
}

/// Connections are closed while they wait for a buffer, while they fill one, and while its message
/// is being sent: each buffer is returned once, and complete messages arrive.
pub fn dying_conns(lab: &mut Lab) -> Result<()> {
    // More than the gateway's sockets hold, so that it has to take a buffer before all is there.
    const LONG: usize = 1 << 20;
    set("large_router_buffers", 8)?;
    set("rx_buffer_size", 65536)?;
    let (receiver, gateway) = (lab.node(0), lab.node(1));
    make_gateway(gateway)?;
    let sender = move_across(lab.node(2))?;
    let to = receiver.addr;
    let mut last = 100;
    let mut another = || -> Result<Conn> {
        last += 1;
        let from = Ipv4Addr::new(10, 1, 0, last);
        sender.space.ip(&format!("addr add {from}/24 dev eth0\n"))?;
        dial_across(&sender, from, gateway, BULK_OUT)
    };
    let message = |conn: &Conn, number| numbered(conn.from, to, number, SIZE);
    let state = |busy, waiting| -> Result<()> {
        await_large(gateway, "waiting", waiting)?;
        await_large(gateway, "busy", busy)
    };
    // It gets no further than the greeting for now.
    let listener = Listener::new(&receiver.space, to)?;
    let mut on_its_way = another()?;
    on_its_way.send(&message(&on_its_way, 1))?;
    let (mut greeted, hello) = listener.accept_greeting(LIMIT)?;
    state(1, 0)?;
    on_its_way.reset()?;

    let mut filling = another()?;
    let bytes = numbered(filling.from, to, 2, LONG);
    filling.send(&bytes[..bytes.len() / 2])?;
    state(2, 0)?;
    filling.reset()?;
    state(1, 0)?;
    ensure!(forwarding(gateway, "failed")? == 1, "not counted as failed");

    let mut keeper = another()?;
    for number in [3, 4] {
        keeper.send(&message(&keeper, number))?;
    }
    state(3, 0)?;
    let (mut waiting, mut second) = (another()?, another()?);
    waiting.send(&message(&waiting, 5))?;
    state(3, 1)?;
    second.send(&message(&second, 6))?;
    state(3, 2)?;
    waiting.reset()?;
    state(3, 1)?;

    greeted.send(&Hello::new(to, greeted.to, inverse(hello.conn_type)).bytes())?;
    let mut conns = vec![greeted];
    for _ in 0..2 {
        conns.push(welcome(&listener)?);
    }
    let mut numbers = read_numbered(conns, to, 4, |_| Ok(()))?.concat();
    numbers.sort_unstable();
    ensure!(numbers == [1, 3, 4, 6], "{numbers:?} arrived");
    state(0, 0)?;
    ensure!(forwarding(gateway, "msgs")? == 4, "wrong count");
    ensure!(forwarding(gateway, "failed")? == 1, "more failed");
    Ok(())
}

/// A receiver reads so slowly that others wait for the only buffer for several times the timeout.
/// Neither they nor the receiver are given up.
pub fn long_wait(lab: &mut Lab) -> Result<()> {
    const LONG: usize = 1 << 20;
    let timeout = Duration::from_secs(pace::scaled(4));
    set("sock_timeout", timeout.as_secs())?;
    set("typed_conns", 0)?;
    set("buffer_size", 65536)?;
    set("small_router_buffers", 1)?;
    let (slow, gateway) = (lab.node(0), lab.node(1));
    make_gateway(gateway)?;
    let sender = move_across(lab.node(2))?;
    let listener = Listener::new(&slow.space, slow.addr)?;
    listener.narrow(65536)?;
    let (from, to) = (sender.addr, slow.addr);
    let mut first = dial_across(&sender, from, gateway, BULK_OUT)?;
    first.send(&numbered(from, to, 1, LONG))?;
    // Behind it, on the only connection.
    first.send(&numbered(from, to, 2, 100))?;
    let mut reader = welcome(&listener)?;
    let frame = numbered(from, to, 1, 0).len();
    reader.receive(frame)?;

    // Its message is no more than a header, so that nothing but the wait speaks for it.
    let patient = Ipv4Addr::new(10, 1, 0, 33);
    sender
        .space
        .ip(&format!("addr add {patient}/24 dev eth0\n"))?;
    let mut second = dial_across(&sender, patient, gateway, BULK_OUT)?;
    second.send(&numbered(patient, to, 3, 0))?;
    let is_waiting = |waiting: u64| -> Result<()> {
        let nid = format!("{patient}@tcp1");
        let conns = gateway.list(&["conn", "list"])?;
        ensure!(
            conns.iter().any(|conn| conn["nid"] == nid.as_str()),
            "who waits was given up"
        );
        let now = small(gateway, "waiting")?;
        ensure!(now == waiting, "{now} wait instead of {waiting}");
        Ok(())
    };
    wait::until(LIMIT, "wait for the buffer", || is_waiting(1))?;
    let mut read = 0;
    let started = Instant::now();
    while started.elapsed() < 3 * timeout {
        let piece = (16 << 10).min(LONG - read - 1);
        if piece == 0 {
            bail!("all was read too early");
        }
        let bytes = reader.receive(piece)?;
        ensure!(bytes.iter().all(|byte| *byte == 1), "wrong contents");
        read += piece;
        wait::quiet_time(timeout / 12);
        is_waiting(1)?;
    }
    note(&format!("{read} bytes were read meanwhile"));
    reader.receive(LONG - read)?;
    for (number, length) in [(2, 100), (3, 0)] {
        let message = reader.receive_message()?;
        ensure!(number_of(&message, to)? == number, "another message came");
        ensure!(message.payload.len() == length, "wrong length");
    }
    wait::until(LIMIT, "end of the wait", || {
        is_waiting(0)?;
        let busy = small(gateway, "busy")?;
        ensure!(busy == 0, "{busy} buffers are busy");
        Ok(())
    })
}
