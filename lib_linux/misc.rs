// SPDX-License-Identifier: GPL-2.0

//! Small things: randomness, hashing, copies of lists, processors, allocation scopes.
//!
//! No state of our own: nothing to protect, nothing to free.

use super::sys;
use kernel::{
    bindings,
    cpu,
    page::PAGE_SIZE,
    prelude::*,
    sync::SpinLock, //
};

/// A random number that nobody can guess. Any context.
///
/// # Examples
///
/// ```
/// assert!(random_u64() != random_u64());
/// ```
pub(crate) fn random_u64() -> u64 {
    // SAFETY: `get_random_u64` has no preconditions.
    unsafe { bindings::get_random_u64() }
}

/// SipHash-2-4 of `words` under `key`, for tables whose keys strangers choose. Any context.
///
/// The words are hashed in the processor's byte order: the result is not for other machines.
///
/// # Examples
///
/// ```
/// assert_eq!(siphash([1, 2], &[3]), siphash([1, 2], &[3]));
/// assert!(siphash([1, 2], &[3]) != siphash([1, 3], &[3]));
/// ```
pub(crate) fn siphash(key: [u64; 2], words: &[u64]) -> u64 {
    let [key0, key1] = key;
    // SAFETY: `words` is valid for reads of `words.len()` words during the call.
    unsafe { sys::socklnd_helper_siphash(words.as_ptr(), words.len(), key0, key1) }
}

/// Copies of the elements that match, in their order, taken at one moment. May sleep; the lock is not held
/// while memory is allocated.
///
/// # Errors
///
/// `ENOMEM`.
///
/// # Examples
///
/// ```
/// use kernel::{new_spinlock, sync::SpinLock};
///
/// let mut numbers = KVec::new();
/// for number in 1..=5 {
///     numbers.push(number, GFP_KERNEL)?;
/// }
/// let list: Pin<KBox<SpinLock<KVec<u32>>>> = KBox::pin_init(new_spinlock!(numbers), GFP_KERNEL)?;
/// let odd = cloned_where(&list, |number| number % 2 == 1)?;
/// assert_eq!(&odd[..], &[1, 3, 5]);
/// ```
pub(crate) fn cloned_where<T: Clone>(
    list: &SpinLock<KVec<T>>,
    matching: impl Fn(&T) -> bool,
) -> Result<KVec<T>> {
    let mut found = KVec::new();
    loop {
        let count = list.lock().len();
        // Memory first; if there are more by then, once again.
        found.reserve(count, GFP_KERNEL)?;
        let list = list.lock();
        if list.len() <= count {
            for element in list.iter().filter(|element| matching(element)) {
                let _ = found.push_within_capacity(element.clone());
            }
            return Ok(found);
        }
    }
}

/// How much memory the machine has, in bytes. Any context.
pub(crate) fn memory_nob() -> usize {
    // SAFETY: Reads a counter.
    let pages = unsafe { sys::socklnd_helper_totalram_pages() };
    // CAST: Both have the machine's word size.
    (pages as usize).saturating_mul(PAGE_SIZE)
}

/// The processors that were online when the iterator reached them. Any context.
///
/// Processors may come and go at any time, so this is a hint and no promise.
///
/// # Examples
///
/// ```
/// assert!(online_cpus().count() >= 1);
/// assert!(online_cpus().count() <= possible_cpus().count());
/// ```
pub(crate) fn online_cpus() -> impl Iterator<Item = u32> {
    (0..cpu::nr_cpu_ids()).filter(|&cpu| is_cpu_online(cpu))
}

/// All processors that there are, and that may come while the system runs. Any context.
pub(crate) fn possible_cpus() -> impl Iterator<Item = u32> {
    // SAFETY: `cpu` is less than `nr_cpu_ids`.
    (0..cpu::nr_cpu_ids()).filter(|&cpu| unsafe { sys::socklnd_helper_cpu_possible(cpu) })
}

/// How far two processors are apart, as far as caches and memory are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CpuDistance {
    /// They are one.
    Same,
    /// Two threads of one core.
    Core,
    /// Two cores of one NUMA node.
    Node,
    /// All else.
    Far,
}

/// How far two processors are apart; one that does not exist is far from all. Any context.
///
/// # Examples
///
/// ```
/// assert_eq!(cpu_distance(0, 0), CpuDistance::Same);
/// assert_eq!(cpu_distance(0, u32::MAX), CpuDistance::Far);
/// assert!(CpuDistance::Core < CpuDistance::Node);
/// ```
pub(crate) fn cpu_distance(a: u32, b: u32) -> CpuDistance {
    if a >= cpu::nr_cpu_ids() || b >= cpu::nr_cpu_ids() {
        return CpuDistance::Far;
    }
    if a == b {
        return CpuDistance::Same;
    }
    // SAFETY: The function accepts any numbers.
    if unsafe { sys::socklnd_helper_cpus_share_core(a, b) } {
        return CpuDistance::Core;
    }
    // SAFETY: It is the number of a processor.
    let node_a = unsafe { sys::socklnd_helper_cpu_to_node(a) };
    // SAFETY: As above.
    let node_b = unsafe { sys::socklnd_helper_cpu_to_node(b) };
    if node_a == node_b {
        CpuDistance::Node
    } else {
        CpuDistance::Far
    }
}

/// Whether `cpu` is the number of a processor that is online. Any context.
///
/// # Examples
///
/// ```
/// let first = online_cpus().next().ok_or(ENODEV)?;
/// assert!(is_cpu_online(first));
/// assert!(!is_cpu_online(u32::MAX));
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn is_cpu_online(cpu: u32) -> bool {
    // SAFETY: The function accepts any number.
    unsafe { sys::socklnd_helper_cpu_online(cpu) }
}

/// Runs `f` so that no allocation in it, however deep, enters a file system to free memory.
///
/// For the doors through which threads come in that hold what a file system waits for, or take
/// it inside: kernel threads, requests of administrators, senders. Thread context.
///
/// # Examples
///
/// ```
/// let memory = memalloc_nofs(|| {
///     assert_memalloc_nofs();
///     KVec::<u8>::with_capacity(100, GFP_KERNEL)
/// })?;
/// assert!(memory.capacity() >= 100);
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn memalloc_nofs<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: Sets a flag of the current task.
    let flags = unsafe { sys::socklnd_helper_memalloc_nofs_save() };
    let result = f();
    // SAFETY: `flags` come from the matching call above, in the same task; as this function takes a
    // closure and kernel code does not unwind, such scopes are properly nested.
    unsafe { sys::socklnd_helper_memalloc_nofs_restore(flags) };
    result
}

/// Complains, in kernels with `CONFIG_DEBUG_ATOMIC_SLEEP`, if the caller may not sleep: if it holds a
/// spinlock, or is not in thread context. For functions that sleep in some cases only, or take a lock
/// that is outside of all spinlocks. Costs nothing in other kernels, unlike [`might_sleep`].
///
/// [`might_sleep`]: kernel::task::might_sleep
///
/// # Examples
///
/// ```
/// fn may_wait() {
///     assert_may_sleep();
/// }
/// may_wait();
/// ```
#[track_caller]
#[inline(always)]
pub(crate) fn assert_may_sleep() {
    #[cfg(CONFIG_DEBUG_ATOMIC_SLEEP)]
    kernel::task::might_sleep();
}

/// Complains, in kernels with Rust's debug assertions, if the current thread has come in by a door
/// without [`memalloc_nofs`]. For functions that allocate with, or before, a lock that those take
/// whom a file system waits for. Thread context.
pub(crate) fn assert_memalloc_nofs() {
    #[cfg(debug_assertions)]
    kernel::warn_on!(!is_memalloc_nofs());
}

/// Whether that is in force for the current thread.
#[cfg(any(debug_assertions, CONFIG_KUNIT = "y"))]
pub(crate) fn is_memalloc_nofs() -> bool {
    // SAFETY: Sets a flag of the current task.
    let flags = unsafe { sys::socklnd_helper_memalloc_nofs_save() };
    // SAFETY: As in `memalloc_nofs`.
    unsafe { sys::socklnd_helper_memalloc_nofs_restore(flags) };
    // It says what was set by that.
    flags == 0
}

#[kunit_tests(socklnd_lib_linux_misc)]
mod tests {
    use super::*;

    #[test]
    fn siphash_matches_the_reference() {
        // The vectors of the algorithm's authors: key 00 01 .. 0f, input 00 01 ..; 0 and 8 bytes.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        let word = u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(siphash(key, &[word]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn the_current_cpu_is_online() {
        let cpu = cpu::CpuId::current().as_u32();
        assert!(online_cpus().any(|online| online == cpu));
        assert!(!is_cpu_online(u32::MAX));
    }

    #[test]
    fn processors_are_some_way_apart() {
        for cpu in online_cpus() {
            assert_eq!(cpu_distance(cpu, cpu), CpuDistance::Same);
            assert_eq!(cpu_distance(cpu, u32::MAX), CpuDistance::Far);
            for other in online_cpus().filter(|other| *other != cpu) {
                assert_ne!(cpu_distance(cpu, other), CpuDistance::Same);
                assert_eq!(cpu_distance(cpu, other), cpu_distance(other, cpu));
            }
        }
    }
}
