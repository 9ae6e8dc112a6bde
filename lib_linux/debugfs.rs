// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs.
//!
//! A [`Dir`] owns a folder and all that is in it, and removes it when it is dropped. What the files
//! show is static. Unlike the `kernel` crate's files these hold the module while they are open:
//! debugfs calls the code behind a file once more when it is closed, long after its removal.
//!
//! Errors of debugfs are not reported, as is usual in the kernel: the module works without its
//! files.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use super::{
    param::{
        ChangeGuard,
        Knob,
        THIS_MODULE, //
    },
    sys, //
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    bindings,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    uaccess::UserSlice, //
};

/// A file that shows a text.
///
/// The function writes all of the text. It may sleep, and is called again with a larger buffer if
/// the text did not fit.
///
/// # Examples
///
/// ```
/// use kernel::seq_print;
///
/// static GREETING: Text = Text(|file| seq_print!(file, "hello\n"));
///
/// let dir = Dir::new(c"socklnd_example_text");
/// dir.text(c"greeting", &GREETING);
/// ```
pub(crate) struct Text(pub(crate) fn(&SeqFile));

/// A folder in debugfs, which only root may use. Dropping it waits for reads and writes of its files
/// that are under way, and removes it; may sleep.
///
/// # Invariants
///
/// `dentry` is a folder of our own, or an error that debugfs knows.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::param::Knob;
/// use kernel::seq_print;
///
/// static TEXT: Text = Text(|file| seq_print!(file, "hello\n"));
/// static KNOB: Knob = Knob::new(1, 0..=10);
///
/// let dir = Dir::new(c"socklnd_example");
/// dir.text(c"text", &TEXT);
/// dir.knob(c"knob", &KNOB);
/// assert_eq!(KNOB.get(), 1);
/// ```
#[must_use]
pub(crate) struct Dir {
    dentry: *mut bindings::dentry,
    _owns: PhantomData<bindings::dentry>,
}

// SAFETY: Any thread may remove the folder.
unsafe impl Send for Dir {}

// SAFETY: debugfs serialises what is done to a folder.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes a folder at the top of debugfs. May sleep.
    pub(crate) fn new(name: &CStr) -> Self {
        // SAFETY: `name` is a C string.
        let dentry = unsafe { sys::socklnd_helper_debugfs_create_dir(name.as_char_ptr()) };
        // INVARIANT: As made.
        Self {
            dentry,
            _owns: PhantomData,
        }
    }

    /// Adds a file that shows a text. May sleep.
    pub(crate) fn text(&self, name: &CStr, text: &'static Text) {
        let data = ptr::from_ref(text).cast_mut().cast();
        // SAFETY: The operations of a text find one at `data`.
        unsafe { self.add(name, 0o400, data, &TEXT_FILE) };
    }

    /// Adds a file by which a knob is read and set. May sleep.
    pub(crate) fn knob(&self, name: &CStr, knob: &'static Knob) {
        let data = ptr::from_ref(knob).cast_mut().cast();
        // SAFETY: The operations of a knob find one at `data`.
        unsafe { self.add(name, 0o600, data, &KNOB_FILE) };
    }

    /// Adds a file.
    ///
    /// # Safety
    ///
    /// `data` must be what `operations` want.
    unsafe fn add(
        &self,
        name: &CStr,
        mode: u16,
        data: *mut c_void,
        operations: &'static Operations,
    ) {
        // SAFETY: `name` is a C string; by the type invariants `dentry` is a folder or an error, and
        // debugfs passes that on; the operations are static, and `data` fits them.
        unsafe {
            sys::socklnd_helper_debugfs_create_file(
                name.as_char_ptr(),
                mode,
                self.dentry,
                data,
                &operations.0,
            )
        };
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is ours to remove, or an error, and then nothing is
        // done.
        unsafe { sys::socklnd_helper_debugfs_remove(self.dentry) };
    }
}

/// What debugfs calls.
struct Operations(bindings::file_operations);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Operations {}

static TEXT_FILE: Operations = Operations(bindings::file_operations {
    owner: THIS_MODULE,
    open: Some(open_text),
    ..SEQUENTIAL
});

static KNOB_FILE: Operations = Operations(bindings::file_operations {
    owner: THIS_MODULE,
    open: Some(open_knob),
    write: Some(write_knob),
    ..SEQUENTIAL
});

/// What is common to files that were opened by `single_open`.
const SEQUENTIAL: bindings::file_operations = bindings::file_operations {
    read: Some(bindings::seq_read),
    llseek: Some(bindings::seq_lseek),
    release: Some(bindings::single_release),
    ..pin_init::zeroed()
};

/// Opens a text.
///
/// # Safety
///
/// Called by debugfs for a file that [`Dir::text`] made.
unsafe extern "C" fn open_text(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The inode is valid.
    let data = unsafe { (*inode).i_private };
    // SAFETY: The file is being opened; `show_text` wants what `Dir::text` stored.
    unsafe { bindings::single_open(file, Some(show_text), data) }
}

/// Shows a text.
///
/// # Safety
///
/// Called for a file that [`open_text`] opened.
unsafe extern "C" fn show_text(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: The file is valid, and nobody else writes its members now.
    let data = unsafe { (*seq).private };
    // SAFETY: `Dir::text` stored the address of a static.
    let text = unsafe { &*data.cast::<Text>() };
    // SAFETY: The file is valid, and used by this thread alone until this returns.
    (text.0)(unsafe { SeqFile::from_raw(seq) });
    0
}

/// Opens a knob.
///
/// # Safety
///
/// Called by debugfs for a file that [`Dir::knob`] made.
unsafe extern "C" fn open_knob(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The inode is valid.
    let data = unsafe { (*inode).i_private };
    // SAFETY: The file is being opened; `show_knob` wants what `Dir::knob` stored.
    unsafe { bindings::single_open(file, Some(show_knob), data) }
}

/// The knob of an open file.
///
/// # Safety
///
/// `seq` must be valid, and of a file that [`open_knob`] opened.
unsafe fn knob_of(seq: *mut bindings::seq_file) -> &'static Knob {
    // SAFETY: By this function's requirement; the member does not change while the file is open.
    let data = unsafe { (*seq).private };
    // SAFETY: `Dir::knob` stored the address of a static.
    unsafe { &*data.cast::<Knob>() }
}

/// Shows a knob's value.
///
/// # Safety
///
/// Called for a file that [`open_knob`] opened.
unsafe extern "C" fn show_knob(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: As this function's own requirement.
    let knob = unsafe { knob_of(seq) };
    // SAFETY: The file is valid, and used by this thread alone until this returns.
    let file = unsafe { SeqFile::from_raw(seq) };
    seq_print!(file, "{}\n", knob.get());
    0
}

/// Room for a number with its line's end and a zero.
const NUMBER_SIZE: usize = 24;

/// Sets a knob.
///
/// # Safety
///
/// Called for a file that [`open_knob`] opened, with a buffer in user space.
unsafe extern "C" fn write_knob(
    file: *mut bindings::file,
    buffer: *const c_char,
    len: usize,
    _: *mut bindings::loff_t,
) -> isize {
    // SAFETY: The file is valid; `single_open` stored the sequence there.
    let seq = unsafe { (*file).private_data };
    // SAFETY: As this function's own requirement.
    let knob = unsafe { knob_of(seq.cast()) };
    match read_number(buffer, len).and_then(|text| {
        let text = CStr::from_bytes_until_nul(&text).map_err(|_| EINVAL)?;
        let _one_at_a_time = ChangeGuard::new();
        knob.parse(text)
    }) {
        // CAST: Not longer than the buffer.
        Ok(()) => len as isize,
        // CAST: A small number.
        Err(e) => e.to_errno() as isize,
    }
}

fn read_number(buffer: *const c_char, len: usize) -> Result<[u8; NUMBER_SIZE]> {
    let mut text = [0; NUMBER_SIZE];
    // The last byte stays zero.
    let to = text.get_mut(..len).filter(|to| to.len() < NUMBER_SIZE);
    let from = UserSlice::new(UserPtr::from_addr(buffer.addr()), len);
    from.reader().read_slice(to.ok_or(EINVAL)?)?;
    Ok(text)
}
