// SPDX-License-Identifier: GPL-2.0

//! Handles: numbers for objects, which a peer sends back.
//!
//! A peer answers an operation by the handle that it was given. It may do so late, twice, or with a handle
//! that it made up. So a handle is the index of a slot together with the number of times that the slot has
//! been emptied: it is valid for one use of one slot.
//!
//! A [`HandleTable`] has no lock; its owner protects it. It never allocates, so that it can be used under
//! a spinlock: memory is allocated outside and passed to [`HandleTable::grow`].

use kernel::prelude::*;

/// Bits of a handle that are the slot's index.
const INDEX_BITS: u32 = 16;

/// The end of the list of free slots. Too large to be an index.
const END: u32 = u32::MAX;

enum State<T> {
    /// Free; the index of the next free slot.
    Free(u32),
    Used(T),
}

/// Room for one object.
pub(super) struct Slot<T> {
    /// How often the slot has been emptied. At one use per nanosecond, 48 bits overflow after 3 days, and a
    /// handle that old would have to be used then.
    generation: u64,
    state: State<T>,
}

/// Objects by handle.
pub(super) struct HandleTable<T> {
    slots: KVVec<Slot<T>>,
    /// The first free slot.
    free: u32,
    len: usize,
}

impl<T> HandleTable<T> {
    /// The most objects that a table can hold.
    pub(super) const MAX: usize = 1 << INDEX_BITS;

    /// An empty table without memory.
    pub(super) const fn new() -> Self {
        Self {
            slots: KVVec::new(),
            free: END,
            len: 0,
        }
    }

    /// The number of objects in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of objects that there is memory for.
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity().min(Self::MAX)
    }

    /// Moves the slots to `room` if that is larger. The smaller memory is in `room` afterwards, to be dropped with
    /// no lock held.
    pub(super) fn grow(&mut self, room: &mut KVVec<Slot<T>>) {
        if room.capacity() <= self.slots.capacity() || !room.is_empty() {
            return;
        }
        for slot in self.slots.drain_all() {
            // There is more room than before.
            let _ = room.push_within_capacity(slot);
        }
        core::mem::swap(&mut self.slots, room);
    }

    fn handle(index: u32, generation: u64) -> u64 {
        (generation << INDEX_BITS) | u64::from(index)
    }

    fn slot(&mut self, handle: u64) -> Option<(u32, &mut Slot<T>)> {
        // CAST: masked to 16 bits.
        let index = (handle & (Self::MAX as u64 - 1)) as u32;
        let slot = self.slots.get_mut(index as usize)?;
        (Self::handle(index, slot.generation) == handle).then_some((index, slot))
    }

    /// Adds `object` and returns its handle; returns the object if there is no room.
    pub(super) fn insert(&mut self, object: T) -> core::result::Result<u64, T> {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            if let State::Free(next) = slot.state {
                let handle = Self::handle(self.free, slot.generation);
                slot.state = State::Used(object);
                self.free = next;
                self.len += 1;
                return Ok(handle);
            }
        }
        let index = self.slots.len();
        if index >= self.capacity() {
            return Err(object);
        }
        let slot = Slot {
            generation: 0,
            state: State::Used(object),
        };
        // There is room, so this can't fail.
        let _ = self.slots.push_within_capacity(slot);
        self.len += 1;
        // CAST: less than `MAX`.
        Ok(Self::handle(index as u32, 0))
    }

    /// The object with this handle, if it has not been removed.
    pub(super) fn get_mut(&mut self, handle: u64) -> Option<&mut T> {
        match &mut self.slot(handle)?.1.state {
            State::Used(object) => Some(object),
            State::Free(_) => None,
        }
    }

    /// Removes the object with this handle, which is not valid any more.
    pub(super) fn remove(&mut self, handle: u64) -> Option<T> {
        let free = self.free;
        let (index, slot) = self.slot(handle)?;
        if let State::Free(_) = slot.state {
            return None;
        }
        let State::Used(object) = core::mem::replace(&mut slot.state, State::Free(free)) else {
            return None;
        };
        // Only as many bits as fit into a handle.
        slot.generation = slot.generation.wrapping_add(1) & (u64::MAX >> INDEX_BITS);
        self.free = index;
        self.len -= 1;
        Some(object)
    }

    /// Removes the first object that `matches`, from slot `*at` on. Sets `*at` to its slot.
    pub(super) fn remove_next(
        &mut self,
        at: &mut usize,
        matches: impl Fn(&T) -> bool,
    ) -> Option<T> {
        while let Some(slot) = self.slots.get(*at) {
            if let State::Used(object) = &slot.state {
                if matches(object) {
                    // CAST: less than `MAX`.
                    let handle = Self::handle(*at as u32, slot.generation);
                    return self.remove(handle);
                }
            }
            *at += 1;
        }
        None
    }
}

#[kunit_tests(socklnd_portals_handle)]
mod tests {
    use super::*;

    fn table(capacity: usize) -> Result<HandleTable<u32>> {
        let mut table = HandleTable::new();
        table.grow(&mut KVVec::with_capacity(capacity, GFP_KERNEL)?);
        Ok(table)
    }

    #[test]
    fn insert_and_remove() -> Result {
        let mut table = table(4)?;
        let a = table.insert(1).map_err(|_| ENOSPC)?;
        let b = table.insert(2).map_err(|_| ENOSPC)?;
        assert!(a != b);
        assert_eq!(table.len(), 2);
        assert_eq!(table.get_mut(a).copied(), Some(1));
        assert_eq!(table.remove(a), Some(1));
        assert_eq!(table.remove(b), Some(2));
        assert_eq!(table.len(), 0);
        Ok(())
    }

    #[test]
    fn a_stale_handle_finds_nothing() -> Result {
        let mut table = table(1)?;
        let old = table.insert(1).map_err(|_| ENOSPC)?;
        assert_eq!(table.remove(old), Some(1));
        assert_eq!(table.remove(old), None);
        let new = table.insert(2).map_err(|_| ENOSPC)?;
        assert!(old != new);
        assert_eq!(table.get_mut(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.remove(new), Some(2));
        Ok(())
    }

    #[test]
    fn a_made_up_handle_finds_nothing() -> Result {
        let mut table = table(4)?;
        let handle = table.insert(1).map_err(|_| ENOSPC)?;
        for bit in 0..64 {
            assert_eq!(table.remove(handle ^ (1 << bit)), None);
        }
        assert_eq!(table.remove(u64::MAX), None);
        assert_eq!(table.len(), 1);
        Ok(())
    }

    #[test]
    fn full_and_grown() -> Result {
        let mut table = table(2)?;
        let room = table.capacity();
        let first = table.insert(0).map_err(|_| ENOSPC)?;
        for i in 1..room {
            assert!(table.insert(i as u32).is_ok());
        }
        assert_eq!(table.insert(7), Err(7));
        table.grow(&mut KVVec::with_capacity(room * 2, GFP_KERNEL)?);
        assert!(table.insert(7).is_ok());
        assert_eq!(table.remove(first), Some(0));
        Ok(())
    }

    #[test]
    fn removes_those_that_match() -> Result {
        let mut table = table(8)?;
        for i in 0..8 {
            assert!(table.insert(i).is_ok());
        }
        let mut at = 0;
        let mut sum = 0;
        while let Some(i) = table.remove_next(&mut at, |i| i % 2 == 1) {
            sum += i;
        }
        assert_eq!(sum, 1 + 3 + 5 + 7);
        assert_eq!(table.len(), 4);
        Ok(())
    }
}
