// SPDX-License-Identifier: GPL-2.0

//! Entries of `/proc/sys`.
//!
//! A [`Registration`] owns the table that it has registered, and frees it after the kernel has
//! unregistered it. The values are [`Knob`]s: statics, and atomics.
//!
//! C header: [`include/linux/sysctl.h`](srctree/include/linux/sysctl.h)

use super::param::{
    ChangeGuard,
    Knob, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    error::from_result,
    prelude::*, //
};

/// A folder of [`Knob`]s in `/proc/sys`. Dropping it removes the folder; may sleep.
///
/// # Invariants
///
/// `header` is the registration of `_table`.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::param::Knob;
///
/// static TIMEOUT: Knob = Knob::new(50, 1..=86400);
///
/// // /proc/sys/socklnd_example/timeout
/// let registration = Registration::new(c"socklnd_example", &[(c"timeout", &TIMEOUT)])?;
/// assert_eq!(TIMEOUT.get(), 50);
/// drop(registration);
/// # Ok::<(), Error>(())
/// ```
#[must_use]
pub(crate) struct Registration {
    header: NonNull<bindings::ctl_table_header>,
    _table: KVec<bindings::ctl_table>,
}

// SAFETY: Any thread may end the registration.
unsafe impl Send for Registration {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl Sync for Registration {}

impl Registration {
    /// Makes `knobs` files of these names in `/proc/sys/<path>`, which root may write. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if the kernel refuses the table because the names are in use: the kernel does not
    /// return the reason, but logs it.
    pub(crate) fn new(path: &CStr, knobs: &[(&'static CStr, &'static Knob)]) -> Result<Self> {
        let mut table = KVec::with_capacity(knobs.len(), GFP_KERNEL)?;
        for (name, knob) in knobs {
            let (min, max) = knob.range();
            let entry = bindings::ctl_table {
                procname: name.as_char_ptr(),
                data: ptr::from_ref(*knob).cast_mut().cast(),
                // CAST: Four.
                maxlen: size_of::<c_int>() as c_int,
                mode: 0o644,
                proc_handler: Some(handle),
                extra1: ptr::from_ref(min).cast_mut().cast(),
                extra2: ptr::from_ref(max).cast_mut().cast(),
                ..Default::default()
            };
            table.push(entry, GFP_KERNEL)?;
        }
        // SAFETY: `path` is a C string. The table is not moved or freed before it is unregistered;
        // all that it points to is static. `handle` finds a `Knob` at `data`.
        let header = unsafe {
            bindings::register_sysctl_sz(path.as_char_ptr(), table.as_ptr(), table.len())
        };
        // INVARIANT: The table is registered unless null was returned.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _table: table,
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the table is registered. When this returns, nobody uses it
        // any more.
        unsafe { bindings::unregister_sysctl_table(self.header.as_ptr()) };
    }
}

/// `ctl_table.proc_handler`: reads or writes a knob.
///
/// # Safety
///
/// Called by the kernel: `table` is an entry made by [`Registration::new`], the other arguments are
/// fit for `proc_dointvec_minmax`.
unsafe extern "C" fn handle(
    table: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    from_result(|| {
        // SAFETY: By this function's requirement.
        let mut entry = unsafe { *table };
        // SAFETY: `Registration::new` put the address of a static there.
        let knob = unsafe { &*entry.data.cast::<Knob>() };
        let _one_at_a_time = (write != 0).then(ChangeGuard::new);
        let mut value = knob.get();
        entry.data = (&raw mut value).cast();
        // SAFETY: `entry` describes `value`; the range is static; the rest by our requirement.
        let ret = unsafe { bindings::proc_dointvec_minmax(&entry, write, buffer, len, pos) };
        if write != 0 && ret == 0 {
            knob.set(value)?;
        }
        Ok(ret)
    })
}
