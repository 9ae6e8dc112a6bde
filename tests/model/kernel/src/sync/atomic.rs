// SPDX-License-Identifier: GPL-2.0

//! Atomics with the orderings of the kernel's memory model.

use loom::sync::atomic::{fence, AtomicU32, Ordering};
use std::marker::PhantomData;

/// Reads see what was written before the value that was read.
#[derive(Clone, Copy, Debug)]
pub struct Acquire;
/// All that comes before is before all that comes after, for everybody.
#[derive(Clone, Copy, Debug)]
pub struct Full;
/// Says nothing about other memory.
#[derive(Clone, Copy, Debug)]
pub struct Relaxed;

/// An ordering.
pub trait Order {
    /// What it is to loom.
    const ORDER: Ordering;
    /// Whether fences belong to it.
    const FENCES: bool = false;
}

impl Order for Acquire {
    const ORDER: Ordering = Ordering::Acquire;
}

/// As the memory model has it: nothing moves into the operation or across it.
impl Order for Full {
    const ORDER: Ordering = Ordering::AcqRel;
    const FENCES: bool = true;
}

impl Order for Relaxed {
    const ORDER: Ordering = Ordering::Relaxed;
}

/// An ordering that a load can have.
pub trait LoadOrder: Order {}
impl LoadOrder for Acquire {}
impl LoadOrder for Relaxed {}

/// An atomic number.
#[derive(Debug)]
pub struct Atomic<T> {
    value: AtomicU32,
    kind: PhantomData<T>,
}

impl Atomic<u32> {
    /// A number.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self {
            value: AtomicU32::new(value),
            kind: PhantomData,
        }
    }

    /// Reads it.
    pub fn load<O: LoadOrder>(&self, _: O) -> u32 {
        self.value.load(O::ORDER)
    }

    /// Replaces `old` by `new`.
    ///
    /// # Errors
    ///
    /// If it is not `old`, says what it is, and orders nothing.
    pub fn cmpxchg<O: Order>(&self, old: u32, new: u32, _: O) -> Result<u32, u32> {
        if O::FENCES {
            fence(Ordering::SeqCst);
        }
        let result = self
            .value
            .compare_exchange(old, new, O::ORDER, Ordering::Relaxed);
        if O::FENCES && result.is_ok() {
            fence(Ordering::SeqCst);
        }
        result
    }
}
