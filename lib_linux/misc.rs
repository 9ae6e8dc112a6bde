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

/// An unpredictable random number. Any context.
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

/// SipHash-2-4 of `words` under `key`, for hash tables whose keys other machines choose. Any context.
///
/// The words are hashed in the processor's byte order: other machines may get other results.
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

/// Clones the elements that match, in their order, under one hold of the lock. May sleep; the lock is
/// not held while memory is allocated. `matching` and `T::clone` must not sleep.
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
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn cloned_where<T: Clone>(
    list: &SpinLock<KVec<T>>,
    matching: impl Fn(&T) -> bool,
) -> Result<KVec<T>> {
    let mut found = KVec::new();
    loop {
        let count = list.lock().len();
        // Memory is allocated without the lock. If the list has grown by then, try again.
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

/// The machine's memory in bytes, as `totalram_pages` counts it. Any context.
///
/// # Examples
///
/// ```
/// use kernel::page::PAGE_SIZE;
///
/// assert!(memory_nob() > PAGE_SIZE);
/// assert_eq!(memory_nob() % PAGE_SIZE, 0);
/// ```
pub(crate) fn memory_nob() -> usize {
    // SAFETY: Reads a counter.
    let pages = unsafe { sys::socklnd_helper_totalram_pages() };
    // CAST: Both have the size of a word.
    (pages as usize).saturating_mul(PAGE_SIZE)
}

/// The processors that were online when the iterator reached them. Any context.
///
/// Processors may be plugged and unplugged at any time, so the result is only a hint.
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

/// The processors that are online or may become so while the system runs. Any context.
///
/// # Examples
///
/// ```
/// let is_possible = |cpu| possible_cpus().any(|other| other == cpu);
/// assert!(online_cpus().all(is_possible));
/// ```
pub(crate) fn possible_cpus() -> impl Iterator<Item = u32> {
    // SAFETY: `cpu` is less than `nr_cpu_ids`.
    (0..cpu::nr_cpu_ids()).filter(|&cpu| unsafe { sys::socklnd_helper_cpu_possible(cpu) })
}

/// How far apart two processors are in terms of caches and memory; the least distance is first.
///
/// # Examples
///
/// ```
/// // The processor nearest to a given one.
/// let cpu = online_cpus().next().ok_or(ENODEV)?;
/// let nearest = possible_cpus().min_by_key(|&other| cpu_distance(cpu, other));
/// assert_eq!(nearest, Some(cpu));
/// assert!(CpuDistance::Same < CpuDistance::Core);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CpuDistance {
    /// It is the same processor.
    Same,
    /// Two hardware threads of one core.
    Core,
    /// Two cores of one NUMA node.
    Node,
    /// Different NUMA nodes, or one of them does not exist.
    Far,
}

/// How far apart two processors are. Any context.
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

/// Runs `f` with `memalloc_nofs_save` in force: no allocation in it enters a file system to reclaim
/// memory.
///
/// For the entry points of threads that hold, or take inside, a lock that a file system waits for:
/// kernel threads, requests of administrators, senders. Thread context.
///
/// # Examples
///
/// ```
/// let memory = memalloc_nofs(|| KVec::<u8>::with_capacity(100, GFP_KERNEL))?;
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

/// Whether a module of this name is loaded now, or about to be. May sleep.
///
/// # Examples
///
/// ```
/// assert!(is_module_loaded(c"ksocklnd"));
/// assert!(!is_module_loaded(c"ksocklnd_of_others"));
/// ```
pub(crate) fn is_module_loaded(name: &CStr) -> bool {
    // SAFETY: `name` is a C string.
    unsafe { sys::socklnd_helper_is_module_loaded(name.as_char_ptr()) }
}

/// Warns, in kernels with `CONFIG_DEBUG_ATOMIC_SLEEP`, if the caller must not sleep: if it holds a
/// spinlock, or is not in thread context. For functions that only sleep in some cases, or that take a
/// lock which precedes all spinlocks in the lock order. Unlike [`might_sleep`] it costs nothing in
/// other kernels.
///
/// [`might_sleep`]: kernel::task::might_sleep
///
/// # Examples
///
/// ```
/// fn value(cached: Option<u32>) -> Result<KBox<u32>> {
///     assert_may_sleep();
///     Ok(KBox::new(cached.unwrap_or(7), GFP_KERNEL)?)
/// }
///
/// assert_eq!(*value(None)?, 7);
/// # Ok::<(), Error>(())
/// ```
#[track_caller]
#[inline(always)]
pub(crate) fn assert_may_sleep() {
    #[cfg(CONFIG_DEBUG_ATOMIC_SLEEP)]
    kernel::task::might_sleep();
}

/// Warns, in kernels with Rust's debug assertions, if [`memalloc_nofs`] is not in force for the
/// current thread. For functions that allocate while they hold a lock that a file system may wait
/// for, or shortly before they take it. Thread context.
///
/// # Examples
///
/// ```
/// fn allocate() -> Result<KBox<u32>> {
///     assert_memalloc_nofs();
///     Ok(KBox::new(7, GFP_KERNEL)?)
/// }
///
/// assert_eq!(*memalloc_nofs(allocate)?, 7);
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn assert_memalloc_nofs() {
    #[cfg(debug_assertions)]
    kernel::warn_on!(!is_memalloc_nofs());
}

/// Whether [`memalloc_nofs`] is in force for the current thread. Thread context.
///
/// # Examples
///
/// ```
/// assert!(memalloc_nofs(is_memalloc_nofs));
/// assert!(!is_memalloc_nofs());
/// ```
#[cfg(any(debug_assertions, CONFIG_KUNIT = "y"))]
pub(crate) fn is_memalloc_nofs() -> bool {
    // SAFETY: Sets a flag of the current task.
    let flags = unsafe { sys::socklnd_helper_memalloc_nofs_save() };
    // SAFETY: As in `memalloc_nofs`.
    unsafe { sys::socklnd_helper_memalloc_nofs_restore(flags) };
    // The result is the flag if this call has set it, and zero if it was set before.
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
