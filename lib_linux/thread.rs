// SPDX-License-Identifier: GPL-2.0

//! Kernel threads.
//!
//! A [`KThread`] owns a thread; dropping it waits for the thread's end. The argument of the
//! thread's function is in a box. The thread owns the box as soon as it runs; if it was stopped
//! before that, the [`KThread`] owns and frees it.
//!
//! A file system may wait for any of these threads, for instance to write its pages back: so none of
//! their allocations enters a file system.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use super::{
    misc,
    sys, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// The function of a thread, and its argument.
struct Start<A> {
    f: fn(A),
    arg: A,
}

/// A running kernel thread; dropping it waits until the thread's function has returned.
///
/// The owner makes the function return before, by a means of its own: the drop only wakes the thread
/// from *interruptible* sleep. May sleep.
///
/// # Invariants
///
/// - `task` is a kernel thread, of which we hold a reference and which nobody else stops.
/// - `unstarted` comes from [`KBox::into_raw`] of the box of a [`Start<A>`], which belongs to us exactly
///   if the thread has ended without calling its function; `free` frees such a box.
///
/// # Examples
///
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
///
/// static SUM: AtomicU32 = AtomicU32::new(0);
/// let thread = KThread::spawn(c"example", None, 3, |arg| {
///     SUM.store(arg, Ordering::Relaxed);
/// })?;
/// while SUM.load(Ordering::Relaxed) == 0 {
///     cond_resched();
/// }
/// // Waits for its end. A thread that does not run yet would never call its function.
/// drop(thread);
/// # Ok::<(), Error>(())
/// ```
#[must_use]
pub(crate) struct KThread {
    task: NonNull<bindings::task_struct>,
    unstarted: NonNull<c_void>,
    free: unsafe fn(NonNull<c_void>),
}

// SAFETY: Any thread may stop a kernel thread and give up a reference to it. A box that was not
// taken may be freed by any thread because `A` is `Send`, which `spawn` asks for.
unsafe impl Send for KThread {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl Sync for KThread {}

impl KThread {
    /// Starts a thread that calls `f(arg)`. If `cpu` is given, the thread runs on that processor while
    /// it is online, and on others while it is not. May sleep.
    ///
    /// # Errors
    ///
    /// - `ENODEV` if there is no such processor, or it is not online.
    /// - `ENOMEM`, `EINTR`, and other errors of `kthread_create`.
    pub(crate) fn spawn<A: Send + 'static>(
        name: &CStr,
        cpu: Option<u32>,
        arg: A,
        f: fn(A),
    ) -> Result<Self> {
        let node = match cpu {
            Some(cpu) if !misc::is_cpu_online(cpu) => return Err(ENODEV),
            // SAFETY: `cpu` is the number of a processor.
            Some(cpu) => unsafe { sys::socklnd_helper_cpu_to_node(cpu) },
            None => bindings::NUMA_NO_NODE,
        };
        let start = KBox::into_raw(KBox::new(Start { f, arg }, GFP_KERNEL)?);
        // SAFETY: `run::<A>` is called with `start`, at most once. Format and argument match; both
        // are C strings that need not outlive the call.
        let task = unsafe {
            bindings::kthread_create_on_node(
                Some(run::<A>),
                start.cast(),
                node,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        };
        let task = match from_err_ptr(task) {
            Ok(task) => task,
            Err(e) => {
                // SAFETY: There is no thread, so the box is still ours.
                drop(unsafe { KBox::from_raw(start) });
                return Err(e);
            }
        };
        // SAFETY: The thread was created, and can't end before it is woken up.
        unsafe { bindings::get_task_struct(task) };
        // INVARIANT: We hold the reference taken above. `run::<A>` takes the box if and only if it
        // is called, and `free_start::<A>` frees it otherwise.
        let this = Self {
            // SAFETY: Not an error, and `kthread_create_on_node` never returns null.
            task: unsafe { NonNull::new_unchecked(task) },
            // SAFETY: Boxes are not null.
            unstarted: unsafe { NonNull::new_unchecked(start.cast()) },
            free: free_start::<A>,
        };
        if let Some(cpu) = cpu {
            // SAFETY: The thread has never been woken up, and `cpu` is the number of a processor.
            to_result(unsafe { sys::socklnd_helper_kthread_prefers(task, cpu) })?;
        }
        // SAFETY: We hold a reference to the thread.
        unsafe { bindings::wake_up_process(task) };
        Ok(this)
    }
}

impl Drop for KThread {
    fn drop(&mut self) {
        // SAFETY: By the type invariants we have a reference, which this call takes over, and
        // nobody else stops the thread.
        let ret = unsafe { bindings::kthread_stop_put(self.task.as_ptr()) };
        // `run` returns zero, so this comes from the kernel: `run` was never called.
        if ret == EINTR.to_errno() {
            // SAFETY: By the type invariants the box is ours in this case, and `free` is for it.
            unsafe { (self.free)(self.unstarted) };
        }
    }
}

/// The function that the kernel calls in the thread.
///
/// # Safety
///
/// `start` must come from [`KBox::into_raw`] of the box of a [`Start<A>`], of which the caller gives up
/// the ownership.
unsafe extern "C" fn run<A: Send + 'static>(start: *mut c_void) -> c_int {
    // SAFETY: As this function's own requirement.
    let start = unsafe { KBox::from_raw(start.cast::<Start<A>>()) };
    let Start { f, arg } = KBox::into_inner(start);
    misc::memalloc_nofs(|| f(arg));
    0
}

/// Frees the box of a thread whose function was never called.
///
/// # Safety
///
/// As [`run`].
unsafe fn free_start<A: Send + 'static>(start: NonNull<c_void>) {
    // SAFETY: As this function's own requirement.
    drop(unsafe { KBox::from_raw(start.as_ptr().cast::<Start<A>>()) });
}

/// Calls the scheduler if another thread should run. May sleep.
///
/// # Examples
///
/// ```
/// let mut sum = 0u64;
/// for number in 0..10_000 {
///     sum += number;
///     cond_resched();
/// }
/// assert_eq!(sum, 49_995_000);
/// ```
pub(crate) fn cond_resched() {
    // SAFETY: The caller may sleep; if it must not, the kernel only warns.
    unsafe { sys::socklnd_helper_cond_resched() };
}

#[kunit_tests(socklnd_lib_linux_thread)]
mod tests {
    use super::*;
    use kernel::{
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc,
            Completion, //
        },
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };

    /// Counts how often it is dropped.
    struct Arg(Arc<Atomic<u32>>);

    impl Drop for Arg {
        fn drop(&mut self) {
            self.0.add(1, Relaxed);
        }
    }

    #[test]
    fn runs_and_is_joined() -> Result {
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let cpu = misc::online_cpus().next();
        let thread = KThread::spawn(c"socklnd_test", cpu, done.clone(), |done| {
            done.complete_all();
        })?;
        done.wait_for_completion();
        drop(thread);
        // The thread's reference is gone.
        assert!(Arc::into_unique_or_drop(done).is_some());
        Ok(())
    }

    #[test]
    fn allocates_without_file_systems() -> Result {
        let seen = Arc::new(Atomic::new(false), GFP_KERNEL)?;
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let arg = (done.clone(), seen.clone());
        let thread = KThread::spawn(c"socklnd_test", None, arg, |(done, seen)| {
            seen.store(misc::is_memalloc_nofs(), Relaxed);
            done.complete_all();
        })?;
        // One that is told to end before it runs would see nothing.
        done.wait_for_completion();
        drop(thread);
        assert!(seen.load(Relaxed));
        Ok(())
    }

    #[test]
    fn drop_waits_for_the_end() -> Result {
        let ended = Arc::new(Atomic::new(false), GFP_KERNEL)?;
        let started = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let arg = (started.clone(), ended.clone());
        let thread = KThread::spawn(c"socklnd_test", None, arg, |(started, ended)| {
            started.complete_all();
            fsleep(Delta::from_millis(20));
            ended.store(true, Relaxed);
        })?;
        started.wait_for_completion();
        drop(thread);
        assert!(ended.load(Relaxed));
        Ok(())
    }

    #[test]
    fn argument_is_freed_once_if_stopped_at_once() -> Result {
        let freed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let mut ran = 0;
        for _ in 0..64 {
            let runs = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            let arg = (Arg(freed.clone()), runs.clone());
            drop(KThread::spawn(
                c"socklnd_test",
                None,
                arg,
                |(_arg, runs)| {
                    runs.add(1, Relaxed);
                },
            )?);
            ran += runs.load(Relaxed);
        }
        assert_eq!(freed.load(Relaxed), 64);
        pr_info!("{} of 64 threads ran before they were stopped\n", ran);
        Ok(())
    }

    #[test]
    fn refuses_a_processor_that_is_not_there() {
        let thread = KThread::spawn(c"socklnd_test", Some(u32::MAX), (), |()| {});
        assert!(matches!(thread, Err(e) if e == ENODEV));
    }
}
