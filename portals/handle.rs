// SPDX-License-Identifier: GPL-2.0

//! Names for objects that others give back to us.
//!
//! A peer answers an operation by the name that it was given, and may do so late, twice, or with a
//! name that it made up. So a name is the index of a slot together with how often that slot has
//! been used: it is good for one use of one slot, and looking up any other gives nothing.
//!
//! A [`HandleTable`] has no lock of its own; whoever owns it protects it. It never allocates, so
//! that it can live under a spinlock: room is made outside and brought in by
//! [`HandleTable::enlarge`].

use kernel::prelude::*;

/// Bits of a name that are the slot's index.
const INDEX_BITS: u32 = 16;

/// Where the list of free slots ends. Too large to be an index.
const END: u32 = u32::MAX;

enum State<T> {
    /// Not in use; the next free one.
    Free(u32),
    Used(T),
}

/// Room for one object.
pub(super) struct Slot<T> {
    /// How often the slot has been emptied. At one use a nanosecond 48 bits last for 3 days, and
    /// then a name would have to be kept that long to be mistaken.
    generation: u64,
    state: State<T>,
}

/// Objects by name.
pub(super) struct HandleTable<T> {
    slots: KVVec<Slot<T>>,
    free: u32,
    live: usize,
}

impl<T> HandleTable<T> {
    /// The most objects that a table can hold.
    pub(super) const MAX: usize = 1 << INDEX_BITS;

    /// An empty table without room.
    pub(super) const fn new() -> Self {
        Self {
            slots: KVVec::new(),
            free: END,
            live: 0,
        }
    }

    /// How many objects are in it.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// How many there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity().min(Self::MAX)
    }

    /// Replaces the room with `room` if that is larger; what is left over is in `room` afterwards,
    /// to be dropped with no lock held.
    pub(super) fn enlarge(&mut self, room: &mut KVVec<Slot<T>>) {
        if room.capacity() <= self.slots.capacity() || !room.is_empty() {
            return;
        }
        for slot in self.slots.drain_all() {
            // There is more room than before.
            let _ = room.push_within_capacity(slot);
        }
        core::mem::swap(&mut self.slots, room);
    }

    fn name(index: u32, generation: u64) -> u64 {
        (generation << INDEX_BITS) | u64::from(index)
    }

    fn slot(&mut self, name: u64) -> Option<(u32, &mut Slot<T>)> {
        // CAST: masked to 16 bits.
        let index = (name & (Self::MAX as u64 - 1)) as u32;
        let slot = self.slots.get_mut(index as usize)?;
        (Self::name(index, slot.generation) == name).then_some((index, slot))
    }

    /// Puts `object` in and names it; gives it back if there is no room.
    pub(super) fn insert(&mut self, object: T) -> core::result::Result<u64, T> {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            if let State::Free(next) = slot.state {
                let name = Self::name(self.free, slot.generation);
                slot.state = State::Used(object);
                self.free = next;
                self.live += 1;
                return Ok(name);
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
        self.live += 1;
        // CAST: less than `MAX`.
        Ok(Self::name(index as u32, 0))
    }

    /// The object of that name, if it is still there.
    pub(super) fn get_mut(&mut self, name: u64) -> Option<&mut T> {
        match &mut self.slot(name)?.1.state {
            State::Used(object) => Some(object),
            State::Free(_) => None,
        }
    }

    /// Takes out the object of that name. The name is good for nothing afterwards.
    pub(super) fn remove(&mut self, name: u64) -> Option<T> {
        let free = self.free;
        let (index, slot) = self.slot(name)?;
        if let State::Free(_) = slot.state {
            return None;
        }
        let State::Used(object) = core::mem::replace(&mut slot.state, State::Free(free)) else {
            return None;
        };
        // What does not fit into a name must not count as a difference between two.
        slot.generation = slot.generation.wrapping_add(1) & (u64::MAX >> INDEX_BITS);
        self.free = index;
        self.live -= 1;
        Some(object)
    }

    /// Takes out the first object from slot `*at` on for which `which` holds, and moves `*at` there.
    pub(super) fn remove_next(&mut self, at: &mut usize, which: impl Fn(&T) -> bool) -> Option<T> {
        while let Some(slot) = self.slots.get(*at) {
            if let State::Used(object) = &slot.state {
                if which(object) {
                    // CAST: less than `MAX`.
                    let name = Self::name(*at as u32, slot.generation);
                    return self.remove(name);
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
        table.enlarge(&mut KVVec::with_capacity(capacity, GFP_KERNEL)?);
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
    fn a_stale_name_finds_nothing() -> Result {
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
    fn a_made_up_name_finds_nothing() -> Result {
        let mut table = table(4)?;
        let name = table.insert(1).map_err(|_| ENOSPC)?;
        for bit in 0..64 {
            assert_eq!(table.remove(name ^ (1 << bit)), None);
        }
        assert_eq!(table.remove(u64::MAX), None);
        assert_eq!(table.len(), 1);
        Ok(())
    }

    #[test]
    fn full_and_enlarged() -> Result {
        let mut table = table(2)?;
        let room = table.capacity();
        let first = table.insert(0).map_err(|_| ENOSPC)?;
        for i in 1..room {
            assert!(table.insert(i as u32).is_ok());
        }
        assert_eq!(table.insert(7), Err(7));
        table.enlarge(&mut KVVec::with_capacity(room * 2, GFP_KERNEL)?);
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
