// SPDX-License-Identifier: GPL-2.0

//! A BPF program that puts connections into a map of sockets as they are made, for all of the machine, as
//! service meshes and observers do.

use std::ffi::{c_int, c_long, c_uint};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;

use crate::command::run;

unsafe extern "C" {
    /// From the C library that the standard library is linked with.
    fn syscall(number: c_long, ...) -> c_long;
}

/// The number of bpf() on x86-64.
const SYS_BPF: c_long = 321;

const SOON: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/tmp/cgroups";

// From `linux/bpf.h`.
const MAP_CREATE: c_int = 0;
const PROG_LOAD: c_int = 5;
const PROG_ATTACH: c_int = 8;
const PROG_DETACH: c_int = 9;
const MAP_TYPE_SOCKHASH: u32 = 18;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;
const PSEUDO_MAP_FD: u8 = 1;
const SOCK_HASH_UPDATE: i32 = 70;

/// What a connection is at the moment at which it is put into the map.
#[derive(Clone, Copy)]
pub enum When {
    /// Made by this machine.
    Active = 4,
    /// Made by somebody else, and not accepted yet.
    Passive = 5,
}

/// A call of bpf() whose result is a number.
fn bpf(command: c_int, fields: &[(usize, u32)], pointers: &[(usize, u64)]) -> Result<c_int> {
    let mut attr = [0_u8; 128];
    for (at, value) in fields {
        attr[*at..*at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    for (at, value) in pointers {
        attr[*at..*at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    // SAFETY: the structure is read during the call, and so is what callers have it point to.
    let result = unsafe { syscall(SYS_BPF, command, attr.as_mut_ptr(), attr.len() as c_uint) };
    c_int::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| {
            let why = std::io::Error::last_os_error();
            anyhow::Error::from(Errno::from_io_error(&why).unwrap_or(Errno::IO))
        })
}

/// As [`bpf`], for a new descriptor.
fn bpf_fd(command: c_int, fields: &[(usize, u32)], pointers: &[(usize, u64)]) -> Result<OwnedFd> {
    let fd = bpf(command, fields, pointers)?;
    // SAFETY: the descriptor is new, so it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One instruction.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let [offset0, offset1] = offset.to_ne_bytes();
    let [a, b, c, d] = value.to_ne_bytes();
    [code, from << 4 | to, offset0, offset1, a, b, c, d]
}

/// The program, at work until this is dropped.
pub struct SockOps {
    program: OwnedFd,
    _map: OwnedFd,
    _cgroups: Cgroups,
}

/// The tree of control groups, mounted until this is dropped.
struct Cgroups;

impl Cgroups {
    fn mount() -> Result<Cgroups> {
        fs::create_dir_all(CGROUPS)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup2", "none", CGROUPS]);
        run(&mut mount, "", SOON)?.checked("mount cgroup2")?;
        Ok(Cgroups)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(CGROUPS), "", SOON);
    }
}

impl SockOps {
    /// Puts each connection of this kind into a map.
    pub fn attach(when: When) -> Result<SockOps> {
        let cgroups = Cgroups::mount()?;
        // Both ports are the key.
        let sizes = [(0, MAP_TYPE_SOCKHASH), (4, 8), (8, 4), (12, 1000)];
        let map = bpf_fd(MAP_CREATE, &sizes, &[]).context("a map of sockets")?;
        let code = [
            instruction(0xbf, 6, 1, 0, 0),
            // The event; others are let pass.
            instruction(0x61, 2, 6, 0, 0),
            instruction(0x55, 2, 0, 11, when as i32),
            // The key, on the stack.
            instruction(0x61, 3, 6, 64, 0),
            instruction(0x63, 10, 3, -8, 0),
            instruction(0x61, 3, 6, 68, 0),
            instruction(0x63, 10, 3, -4, 0),
            instruction(0xbf, 1, 6, 0, 0),
            instruction(0x18, 2, PSEUDO_MAP_FD, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(0xbf, 3, 10, 0, 0),
            instruction(0x07, 3, 0, 0, -8),
            instruction(0xb7, 4, 0, 0, 0),
            instruction(0x85, 0, 0, 0, SOCK_HASH_UPDATE),
            instruction(0xb7, 0, 0, 0, 1),
            instruction(0x95, 0, 0, 0, 0),
        ];
        let license = c"GPL";
        let program = bpf_fd(
            PROG_LOAD,
            &[(0, PROG_TYPE_SOCK_OPS), (4, u32::try_from(code.len())?)],
            &[
                (8, code.as_ptr().expose_provenance() as u64),
                (16, license.as_ptr().expose_provenance() as u64),
            ],
        )
        .context("a program for sockets")?;
        let this = SockOps {
            program,
            _map: map,
            _cgroups: cgroups,
        };
        this.command(PROG_ATTACH).context("attaching the program")?;
        Ok(this)
    }

    fn command(&self, command: c_int) -> Result<()> {
        let root = File::open(CGROUPS)?;
        let target = u32::try_from(root.as_raw_fd())?;
        let program = u32::try_from(self.program.as_raw_fd())?;
        let fields = [(0, target), (4, program), (8, CGROUP_SOCK_OPS)];
        bpf(command, &fields, &[]).map(drop)
    }
}

impl Drop for SockOps {
    fn drop(&mut self) {
        let _ = self.command(PROG_DETACH);
    }
}
