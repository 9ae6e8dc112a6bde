// SPDX-License-Identifier: GPL-2.0

//! Raw ioctls of the module's device.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::{self, Errno};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

use crate::family;
use crate::node::{Bench, Node, Op};

/// Opens the device.
pub fn open() -> Result<File> {
    let path = "/dev/socklnd";
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {path}"))
}

/// A request with any number and any argument.
struct Raw {
    number: Opcode,
    argument: *mut c_void,
}

// SAFETY: what the kernel writes goes to where `argument` points. `with_buffer` makes that a buffer
// as large as any request's structure can be; `with_address` takes addresses that are not this
// program's memory, so the kernel must refuse them.
unsafe impl Ioctl for Raw {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> io::Result<()> {
        Ok(())
    }
}

/// The size of a structure has 14 bits in a request's number.
pub const BUFFER: usize = 1 << 14;

/// Makes a request with this buffer as its structure.
pub fn with_buffer(device: &File, number: u32, buffer: &mut [u8; BUFFER]) -> Result<(), Errno> {
    let raw = Raw {
        number: number as Opcode,
        argument: buffer.as_mut_ptr().cast(),
    };
    // SAFETY: the buffer is as large as the number can say, and lives through the call.
    unsafe { ioctl(device, raw) }
}

/// Makes a request with an address at which nothing may be read or written.
pub fn with_address(device: &File, number: u32, address: usize) -> Result<(), Errno> {
    let raw = Raw {
        number: number as Opcode,
        argument: std::ptr::without_provenance_mut(address),
    };
    // SAFETY: callers pass addresses of the kernel or of the first page, where this program has no
    // memory that could be changed.
    unsafe { ioctl(device, raw) }
}

/// A request's number as the kernel's _IOC() makes it.
pub const fn number(direction: u32, kind: u32, index: u32, size: u32) -> u32 {
    direction << 30 | size << 16 | kind << 8 | index
}

/// The type of the module's requests, and their numbers with the sizes of their structures.
const TYPE: u32 = 0xbb;
const READ: u32 = 2;
const WRITE: u32 = 1;
pub const VERSION: u32 = number(READ, TYPE, 0x00, 40);
pub const MYNID: u32 = number(READ | WRITE, TYPE, 0x01, 32);
pub const STATS: u32 = number(READ | WRITE, TYPE, 0x02, 56);
pub const NI_ADD: u32 = number(WRITE, TYPE, 0x10, 32);
pub const NI_DEL: u32 = number(WRITE, TYPE, 0x11, 32);
pub const NI_LIST: u32 = number(READ | WRITE, TYPE, 0x12, 56);
pub const NI_SET: u32 = number(WRITE, TYPE, 0x13, 32);
pub const IF_ADD: u32 = number(WRITE, TYPE, 0x18, 56);
pub const IF_DEL: u32 = number(WRITE, TYPE, 0x19, 56);
pub const IF_LIST: u32 = number(READ | WRITE, TYPE, 0x1a, 56);
pub const PEER_ADD: u32 = number(WRITE, TYPE, 0x20, 80);
pub const PEER_DEL: u32 = number(READ | WRITE, TYPE, 0x21, 80);
pub const PEER_LIST: u32 = number(READ | WRITE, TYPE, 0x22, 56);
pub const ROUTE_ADD: u32 = number(WRITE, TYPE, 0x28, 88);
pub const ROUTE_DEL: u32 = number(READ | WRITE, TYPE, 0x29, 88);
pub const ROUTE_LIST: u32 = number(READ | WRITE, TYPE, 0x2a, 56);
pub const ROUTE_NOTIFY: u32 = number(WRITE, TYPE, 0x2b, 56);
pub const ROUTING_SET: u32 = number(WRITE, TYPE, 0x2c, 16);
pub const ROUTING_GET: u32 = number(READ | WRITE, TYPE, 0x2d, 56);
pub const CONN_CLOSE: u32 = number(READ | WRITE, TYPE, 0x30, 80);
pub const CONN_LIST: u32 = number(READ | WRITE, TYPE, 0x31, 56);
pub const CONN_PUSH: u32 = number(READ | WRITE, TYPE, 0x32, 80);
pub const CONN_REGISTER: u32 = number(WRITE, TYPE, 0x33, 64);
pub const PING: u32 = number(READ | WRITE, TYPE, 0x40, 592);
pub const SERVICE: u32 = number(READ | WRITE, TYPE, 0x41, 32);
pub const BENCH: u32 = number(READ | WRITE, TYPE, 0x42, 144);

/// Requests that only read.
pub const LISTS: [u32; 6] = [STATS, NI_LIST, IF_LIST, PEER_LIST, ROUTE_LIST, CONN_LIST];
/// Requests that change or send something.
pub const CHANGES: [u32; 17] = [
    NI_ADD,
    NI_DEL,
    NI_SET,
    IF_ADD,
    IF_DEL,
    PEER_ADD,
    PEER_DEL,
    ROUTE_ADD,
    ROUTE_DEL,
    ROUTE_NOTIFY,
    ROUTING_SET,
    CONN_CLOSE,
    CONN_PUSH,
    CONN_REGISTER,
    PING,
    SERVICE,
    BENCH,
];

/// A buffer of zeros with these fields in it.
pub fn buffer(fields: &[(usize, &[u8])]) -> Box<[u8; BUFFER]> {
    let mut buffer = Box::new([0; BUFFER]);
    for (at, bytes) in fields {
        buffer[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    buffer
}

/// The bytes of a NID on network tcp0.
pub fn nid(addr: Ipv4Addr) -> [u8; 24] {
    let mut nid = [0; 24];
    nid[0] = 2;
    match family::real(addr, 0).ip() {
        IpAddr::V4(addr) => {
            nid[4] = 4;
            nid[8..12].copy_from_slice(&addr.octets());
        }
        IpAddr::V6(addr) => {
            nid[4] = 6;
            nid[8..24].copy_from_slice(&addr.octets());
        }
    }
    nid
}

/// Hands a socket over, for the only NI: one that the other node has connected, or this one,
/// for a connection of this type to that node.
pub fn register(
    device: &File,
    fd: i32,
    conn_type: u32,
    peer: Option<Ipv4Addr>,
) -> Result<(), Errno> {
    let peer = peer.map(nid).unwrap_or_default();
    let mut buffer = buffer(&[
        (24, &peer),
        (48, &fd.to_ne_bytes()),
        (52, &conn_type.to_ne_bytes()),
    ]);
    with_buffer(device, CONN_REGISTER, &mut buffer)
}

/// Asks for a transfer of one message of any size.
pub fn bench(device: &File, to: Ipv4Addr, op: u32, size: u32) -> Result<(), Errno> {
    let mut buffer = buffer(&[
        (24, &nid(to)),
        (48, &op.to_ne_bytes()),
        (56, &size.to_ne_bytes()),
        (60, &1_u32.to_ne_bytes()),
        (64, &1_u64.to_ne_bytes()),
        (72, &5000_u32.to_ne_bytes()),
    ]);
    with_buffer(device, BENCH, &mut buffer)?;
    // The request itself went well: how the message did is in its result.
    first_error(&buffer).map_or(Ok(()), Err)
}

/// Pings a node.
pub fn ping(device: &File, to: &Node, limit: Duration) -> Result<(), Errno> {
    let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    let mut buffer = buffer(&[
        (24, &nid(to.addr)),
        (26, &to.network.to_ne_bytes()),
        (48, &limit.to_ne_bytes()),
    ]);
    with_buffer(device, PING, &mut buffer)
}

/// Offers the service that transfers go to, on all NIs, until the file is closed.
pub fn serve(device: &File) -> Result<(), Errno> {
    with_buffer(device, SERVICE, &mut buffer(&[]))
}

/// What became of a transfer's messages.
#[derive(Debug)]
pub struct Moved {
    /// They arrived.
    pub messages: u64,
    /// They failed, or could not be counted.
    pub errors: u64,
    /// What the first of these failed with.
    pub first_error: Option<Errno>,
    /// They arrived with wrong contents, or once more than they were sent.
    pub wrong: u64,
}

/// Asks for a verified transfer.
pub fn transfer(device: &File, to: &Node, bench: &Bench) -> Result<Moved, Errno> {
    let op: u32 = if bench.op == Op::Put { 1 } else { 2 };
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes();
    let limit = u32::try_from(bench.limit.as_millis()).unwrap_or(u32::MAX);
    let mut buffer = buffer(&[
        (24, &nid(to.addr)),
        (26, &to.network.to_ne_bytes()),
        (48, &op.to_ne_bytes()),
        (52, &1_u32.to_ne_bytes()),
        (56, &small(bench.size)),
        (60, &small(bench.in_flight)),
        (64, &(bench.count as u64).to_ne_bytes()),
        (72, &limit.to_ne_bytes()),
    ]);
    with_buffer(device, BENCH, &mut buffer)?;
    Ok(Moved {
        messages: u64::from_ne_bytes(bytes(&buffer, 80)),
        errors: u64::from_ne_bytes(bytes(&buffer, 104)),
        first_error: first_error(&buffer),
        wrong: u64::from_ne_bytes(bytes(&buffer, 112)),
    })
}

/// What the first message failed with, in the result of a transfer.
fn first_error(buffer: &[u8; BUFFER]) -> Option<Errno> {
    match i32::from_ne_bytes(bytes(buffer, 76)) {
        0 => None,
        code => Some(Errno::from_raw_os_error(code)),
    }
}

/// The bytes of a number in a result.
fn bytes<const LEN: usize>(buffer: &[u8; BUFFER], at: usize) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&buffer[at..at + LEN]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the C compiler makes them from the kernel's header.
    #[test]
    fn numbers() {
        assert_eq!(number(3, 0x54, 0x30, 4), 0xc004_5430);
        assert_eq!(VERSION, 0x8028_bb00);
        assert_eq!(NI_ADD, 0x4020_bb10);
        assert_eq!(BENCH, 0xc090_bb42);
    }
}
