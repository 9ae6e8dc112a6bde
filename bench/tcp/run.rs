// SPDX-License-Identifier: GPL-2.0

//! A run: its parameters, its two threads, its outcome.
//!
//! [`run`] owns both threads and waits for them. Each puts its result on its [`Desk`], which it
//! shares with [`run`] and which has a lock of its own.

use crate::{
    client,
    connection::{
        Connection,
        Counts,
        Events, //
    },
    lib_linux::{
        netns::Net,
        socket::{
            Accepted,
            Family,
            ListeningSocket,
            Socket, //
        },
        thread::KThread, //
    },
    server,
    spec::Spec, //
};
use core::net::{
    IpAddr,
    Ipv4Addr,
    SocketAddr, //
};
use kernel::{
    fmt,
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::msecs_to_jiffies, //
};

/// A run that takes longer has hung.
const LIMIT_MS: u32 = 120_000;

/// What came of a run.
pub(crate) struct Outcome {
    spec: Spec,
    client: End,
    server: End,
}

/// What came of one end.
#[derive(Clone, Copy)]
struct End {
    elapsed_ns: u64,
    counts: Counts,
    sndbuf: usize,
    rcvbuf: usize,
}

impl Outcome {
    /// Writes the figures as one line of JSON.
    pub(crate) fn write_json(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = &self.spec;
        let bytes = spec.size * spec.count;
        write!(
            f,
            "{{\"size\": {}, \"in_flight\": {}, \"messages\": {}, \"bytes\": {}, \"elapsed_ns\": {}",
            spec.size, spec.in_flight, spec.count, bytes, self.client.elapsed_ns
        )?;
        for (name, end) in [("client", &self.client), ("server", &self.server)] {
            let Counts {
                sends,
                recvs,
                waits,
            } = end.counts;
            write!(
                f,
                ", \"{}\": {{\"sends\": {}, \"recvs\": {}, \"waits\": {}, \"sndbuf\": {}, \"rcvbuf\": {}}}",
                name, sends, recvs, waits, end.sndbuf, end.rcvbuf
            )?;
        }
        writeln!(f, "}}")
    }
}

/// Where a thread puts its result.
#[pin_data]
struct Desk {
    #[pin]
    result: Mutex<Option<Result<End>>>,
    #[pin]
    done: CondVar,
}

impl Desk {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                result <- new_mutex!(None, "tcpbench_desk"),
                done <- new_condvar!("tcpbench_done"),
            }),
            GFP_KERNEL,
        )
    }

    fn put(&self, result: Result<End>) {
        *self.result.lock() = Some(result);
        self.done.notify_all();
    }

    /// Waits for the result. May sleep.
    fn take(&self) -> Result<End> {
        let mut left = msecs_to_jiffies(LIMIT_MS);
        let mut result = self.result.lock();
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            left = match self.done.wait_interruptible_timeout(&mut result, left) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => return Err(ETIMEDOUT),
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            }
        }
    }
}

/// What a thread starts with.
struct Work {
    conn: Connection,
    spec: Spec,
    desk: Arc<Desk>,
}

impl Work {
    fn finish(self, result: Result<u64>) {
        let (sndbuf, rcvbuf) = self.conn.buffers();
        self.desk.put(result.map(|elapsed_ns| End {
            elapsed_ns,
            counts: self.conn.counts(),
            sndbuf,
            rcvbuf,
        }));
    }
}

/// Sets what the driver sets on its sockets, in the same way. With the driver's default tunables,
/// TCP finds the sizes of the buffers by itself.
fn set_up(socket: &Socket) -> Result {
    socket.set_kernel_defaults();
    socket.set_nodelay(true);
    socket.set_buffers(0, 0);
    socket.set_keepalive(30, 5, 5)
}

/// Connects a client in one namespace with a server in the other. May sleep.
fn connect(client: &Net, server: &Net, addr: Ipv4Addr) -> Result<(Connection, Connection)> {
    let listener = Socket::new_tcp(server, Family::Inet)?;
    listener.bind(&SocketAddr::new(IpAddr::V4(addr), 0))?;
    let addr = listener.local_addr()?;
    let incoming = Events::new()?;
    let listener = ListeningSocket::new(listener, 1, incoming.clone())?;

    let socket = Socket::new_tcp(client, Family::Inet)?;
    set_up(&socket)?;
    let events = Events::new()?;
    let socket = socket.hook(events.clone());
    socket.connect(&addr)?;
    while !socket.is_established() {
        events.wait()?;
        events.take();
        if let Some(e) = socket.take_error() {
            return Err(e);
        }
    }
    let client = Connection::new(socket, events);

    let accepted = loop {
        incoming.take();
        match listener.accept()? {
            Some(Accepted::Socket(accepted)) => break accepted,
            Some(Accepted::Owned { .. }) => return Err(EBUSY),
            None => incoming.wait()?,
        }
    };
    set_up(&accepted)?;
    let events = Events::new()?;
    let server = Connection::new(accepted.hook(events.clone()), events);
    Ok((client, server))
}

/// Does what `spec` says and waits for its end. May sleep.
///
/// # Errors
///
/// `ETIMEDOUT` if it hangs, `EINTR` if there is a signal; those of sockets and threads.
pub(crate) fn run(client: &Net, server: &Net, spec: &Spec) -> Result<Outcome> {
    let (client, server) = connect(client, server, spec.server)?;
    let stops = [client.events().clone(), server.events().clone()];
    let work = |conn| {
        Desk::new().map(|desk| Work {
            conn,
            spec: *spec,
            desk,
        })
    };
    let (client, server) = (work(client)?, work(server)?);
    let (at_client, at_server) = (client.desk.clone(), server.desk.clone());

    let server = KThread::spawn(c"tcpbench_server", spec.server_cpu, server, |mut work| {
        let result = server::run(&mut work.conn, &work.spec);
        work.finish(result.map(|()| 0));
    })?;
    let client = KThread::spawn(c"tcpbench_client", spec.client_cpu, client, |mut work| {
        let result = client::run(&mut work.conn, &work.spec);
        work.finish(result);
    });
    let result = client.and_then(|client| {
        let result = at_client.take();
        // If all went well, they don't wait any more.
        stops.iter().for_each(|events| events.stop());
        drop(client);
        result
    });
    stops.iter().for_each(|events| events.stop());
    drop(server);
    Ok(Outcome {
        spec: *spec,
        client: result?,
        server: at_server.take()?,
    })
}
