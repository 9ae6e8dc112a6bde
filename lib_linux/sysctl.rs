// SPDX-License-Identifier: GPL-2.0

//! Entries of `/proc/sys`.
//!
//! A [`Registration`] owns the table that it has registered, and frees it after the kernel has let
//! go of it. The values are [`Knob`]s: statics, and atomics.
//!
//! C header: [`include/linux/sysctl.h`](srctree/include/linux/sysctl.h)

use super::param::Knob;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    prelude::*, //
};

/// A folder of knobs in `/proc/sys`. Dropping it removes the folder; may sleep.
///
/// # Invariants
///
/// `header` stands for `table`, which is registered.
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
    /// Makes `knobs` appear as files of these names in `/proc/sys/<path>`, which the system's root
    /// may write. May sleep.
    ///
    /// # Errors
    ///
    /// - `ENOMEM`.
    /// - `EINVAL` if the kernel refuses the table, as when the names are taken. It logs why.
    pub(crate) fn new(path: &CStr, knobs: &[(&'static CStr, &'static Knob)]) -> Result<Self> {
        let mut table = KVec::with_capacity(knobs.len(), GFP_KERNEL)?;
        for (name, knob) in knobs {
            let (min, max) = knob.range();
            let entry = bindings::ctl_table {
                procname: name.as_char_ptr(),
                data: knob.as_ptr().cast(),
                // CAST: Four.
                maxlen: size_of::<c_int>() as c_int,
                mode: 0o644,
                proc_handler: Some(bindings::proc_dointvec_minmax),
                extra1: ptr::from_ref(min).cast_mut().cast(),
                extra2: ptr::from_ref(max).cast_mut().cast(),
                ..Default::default()
            };
            table.push(entry, GFP_KERNEL)?;
        }
        // SAFETY: `path` is a C string. The table is not moved or freed before it is unregistered;
        // all that it points to is static. The handler reads and writes one `c_int` at `data`, with
        // `READ_ONCE` and `WRITE_ONCE`, and only reads the range.
        let header = unsafe {
            bindings::register_sysctl_sz(path.as_char_ptr(), table.as_ptr(), table.len())
        };
        // INVARIANT: The table is registered unless null was returned.
        Ok(Self {
            header: NonNull::new(header).ok_or(EINVAL)?,
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
