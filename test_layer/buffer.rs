// SPDX-License-Identifier: GPL-2.0

//! Memory for the payloads of the message layer for tests.
//!
//! A [`Buffer`] belongs to the completion of its message. There is no lock.

use crate::{
    lib_linux::page::{
        Access,
        Kind,
        PageRange,
        Pages,
        Scattered, //
    },
    upper::Memory, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Lengths of payloads.
const LENS: [u32; 7] = [0, 1, 71, 2047, 5003, 9001, 66_000];

/// How memory is cut to pieces. The last makes more than fit in one call.
const CUTS: [usize; 4] = [4096, 1001, 4095, 97];

/// The length of the payload of a message, and the kind of memory that it is in.
pub(super) struct Recipe {
    pub(super) len: u32,
    pub(super) skip: usize,
    pub(super) cut: usize,
    /// `None`: pages of this module.
    pub(super) kind: Option<Kind>,
}

impl Recipe {
    /// Of the message with this number.
    pub(super) fn new(number: u64) -> Self {
        let pick = |of: usize| usize::try_from(number % of as u64).unwrap_or(0);
        Self {
            len: LENS.get(pick(LENS.len())).copied().unwrap_or(1),
            skip: pick(17),
            cut: CUTS.get(pick(CUTS.len())).copied().unwrap_or(4096),
            kind: match number % 5 {
                0 => None,
                1 | 4 => Some(Kind::Slab),
                2 => Some(Kind::Vmalloc),
                _ => Some(Kind::Pages),
            },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }
}

/// Memory for a payload, of some kind.
pub(super) enum Buffer {
    Own(PageRange),
    Foreign(Arc<Scattered>, usize),
}

impl Buffer {
    pub(super) fn new(recipe: &Recipe) -> Result<Self> {
        Ok(match recipe.kind {
            None => {
                let pages = Arc::new(Pages::alloc(recipe.skip + recipe.len())?, GFP_KERNEL)?;
                Self::Own(PageRange::new(pages, recipe.skip, recipe.len())?)
            }
            Some(kind) => {
                let len = recipe.skip + recipe.len() + 3;
                Self::Foreign(Scattered::new(kind, len, recipe.cut)?, recipe.skip)
            }
        })
    }

    pub(super) fn memory<A: Access>(&self, len: usize) -> Result<Memory<A>> {
        Ok(match self {
            Self::Own(range) => Memory::Pages(range.clone()),
            Self::Foreign(memory, skip) => Memory::Foreign(memory.range(*skip, len)?),
        })
    }

    pub(super) fn fill(&self, len: usize, number: u64) -> Result {
        match self {
            Self::Own(range) => range.pages().fill_pattern(range.offset(), len, number),
            Self::Foreign(memory, skip) => memory.fill_pattern(*skip, len, number),
        }
    }

    pub(super) fn is_intact(&self, len: usize, number: u64) -> Result<bool> {
        match self {
            Self::Own(range) => {
                let expected = Pages::alloc(len)?;
                expected.fill_pattern(0, len, number)?;
                let hash = range.pages().xxh64(range.offset(), len, 0)?;
                Ok(hash == expected.xxh64(0, len, 0)?)
            }
            Self::Foreign(memory, skip) => memory.is_intact(*skip, len, number),
        }
    }
}
