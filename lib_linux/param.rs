// SPDX-License-Identifier: GPL-2.0

//! Whole numbers that an administrator can set: module parameters, entries of `/proc/sys`, and
//! files in debugfs.
//!
//! A [`Knob`] is a static, so it lives as long as the module, and an atomic, so readers need no
//! lock. Parameter, sysctl and debugfs file share the value and its range. Changes are serialised by
//! the kernel's lock for this module's parameters, [`ChangeGuard`].
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use super::sys;
use kernel::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::NotThreadSafe, //
};

/// A number with a range, or one of several words, that an administrator can set.
///
/// # Invariants
///
/// The value is within `min..=max`. If there are words, each number of the range has one.
///
/// # Examples
///
/// ```
/// static FAULTS: Knob = Knob::new(2, 0..=10);
/// static LIMIT: Knob = Knob::new(8, 1..=64).or_nearest();
/// static POLICY: Knob = Knob::with_words(1, &["secure", "all"]).on_change(|| {
///     pr_info!("the policy is {} now\n", POLICY.get());
///     Ok(())
/// });
///
/// assert_eq!((FAULTS.get(), LIMIT.get(), POLICY.get()), (2, 8, 1));
/// // A fault that is to happen twice.
/// assert!(FAULTS.count_down());
/// assert!(FAULTS.count_down());
/// assert!(!FAULTS.count_down());
/// ```
pub(crate) struct Knob {
    value: Atomic<c_int>,
    min: c_int,
    max: c_int,
    words: &'static [&'static str],
    outside: Outside,
    changed: Option<fn() -> Result>,
}

/// What happens to a number outside of the range when the module is inserted. Later it is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    /// The module is not inserted.
    Refused,
    /// The nearest number is taken, with a line in the kernel's log.
    Nearest,
}

/// Whether all parameters that were given at the module's insertion have been set.
static INSERTED: Atomic<bool> = Atomic::new(false);

/// To be called by the module's `init`, when all parameters that were given at its insertion have been
/// set: from now on [`Knob::or_nearest`] has no effect, and numbers out of range are refused. Any
/// context.
///
/// # Examples
///
/// ```
/// static LIMIT: Knob = Knob::new(8, 1..=64).or_nearest();
///
/// insertion_is_over();
/// // To set 65 is an error now, and before it would have set 64.
/// assert_eq!(LIMIT.get(), 8);
/// ```
pub(crate) fn insertion_is_over() {
    INSERTED.store(true, Relaxed);
}

/// Held while knobs are changed.
///
/// # Invariants
///
/// The current thread holds the lock of this module's parameters.
#[must_use]
pub(super) struct ChangeGuard(NotThreadSafe);

impl ChangeGuard {
    /// Takes the lock. May sleep.
    pub(super) fn new() -> Self {
        // SAFETY: Takes a mutex that exists as long as the module. The current thread does not hold it:
        // when the kernel holds it, for a module parameter, it calls `set_knob`, which does not come
        // here.
        unsafe { sys::socklnd_helper_param_lock() };
        // INVARIANT: Just taken.
        Self(NotThreadSafe)
    }
}

impl Drop for ChangeGuard {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { sys::socklnd_helper_param_unlock() };
    }
}

impl Knob {
    /// A number from a range.
    pub(crate) const fn new(default: c_int, range: core::ops::RangeInclusive<c_int>) -> Self {
        let (min, max) = (*range.start(), *range.end());
        // PANIC: At build time only, as are those below.
        assert!(min <= default && default <= max);
        // INVARIANT: Just checked.
        Self {
            value: Atomic::new(default),
            min,
            max,
            words: &[],
            outside: Outside::Refused,
            changed: None,
        }
    }

    /// Makes the nearest number of the range of one that is out of range when the module is inserted:
    /// files that were written for another driver may have such numbers, and should not keep the
    /// module from being inserted.
    pub(crate) const fn or_nearest(mut self) -> Self {
        self.outside = Outside::Nearest;
        self
    }

    /// Calls `changed` after each change, also before the module is initialised. If it fails, the old
    /// value is set again, `changed` is called once more, to undo what it may have done, and the change
    /// fails with the first error. It may sleep.
    pub(crate) const fn on_change(mut self, changed: fn() -> Result) -> Self {
        self.changed = Some(changed);
        self
    }

    /// One of several words; the value is a word's index, from zero.
    pub(crate) const fn with_words(default: c_int, words: &'static [&'static str]) -> Self {
        // CAST: The number of words is small.
        let count = words.len() as c_int;
        assert!(0 <= default && default < count);
        // INVARIANT: Just checked.
        Self {
            value: Atomic::new(default),
            min: 0,
            max: count - 1,
            words,
            outside: Outside::Refused,
            changed: None,
        }
    }

    /// The value now. Any context.
    pub(crate) fn get(&self) -> c_int {
        self.value.load(Relaxed)
    }

    /// Decrements the value, unless it is the lowest one. Returns whether it did. Any context; not for
    /// knobs with [`Self::on_change`], whose function is not called.
    pub(crate) fn count_down(&self) -> bool {
        let mut value = self.get();
        while value > self.min {
            // INVARIANT: It is above the lowest value.
            match self.value.cmpxchg(value, value - 1, Relaxed) {
                Ok(_) => return true,
                Err(now) => value = now,
            }
        }
        false
    }

    /// Changes the value; the caller holds the lock of this module's parameters. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is out of range, and those of the function of [`Self::on_change`].
    pub(super) fn set(&self, value: c_int) -> Result {
        if !(self.min..=self.max).contains(&value) {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked.
        let old = self.value.xchg(value, Relaxed);
        match self.changed {
            Some(changed) => changed().inspect_err(|_| {
                // INVARIANT: The old value was within the range, too.
                self.value.store(old, Relaxed);
                // The caller gets the first error; this one is dropped.
                let _ = changed();
            }),
            None => Ok(()),
        }
    }

    /// Changes the value to that of another module's parameter, or to the nearest in the range. Any
    /// context; not for knobs with [`Self::on_change`], whose function is not called.
    ///
    /// # Examples
    ///
    /// ```
    /// static PORT: Knob = Knob::new(988, 1..=65_535);
    ///
    /// PORT.follow(989);
    /// assert_eq!(PORT.get(), 989);
    /// PORT.follow(0);
    /// assert_eq!(PORT.get(), 1);
    /// ```
    #[allow(
        dead_code,
        reason = "for message layers that have parameters of their own"
    )]
    pub(crate) fn follow(&self, value: c_int) {
        // INVARIANT: Within the range.
        self.value.store(value.clamp(self.min, self.max), Relaxed);
    }

    /// The addresses of the lowest and the highest value.
    pub(super) fn range(&self) -> (&c_int, &c_int) {
        (&self.min, &self.max)
    }

    /// As [`Self::set`], from a text, see [`Self::read`].
    pub(super) fn parse(&self, text: &CStr) -> Result {
        self.set(self.read(text)?)
    }

    /// Parses a text: one of the words, or a number in C's notation, which may be out of range. `EINVAL`
    /// if it is neither.
    fn read(&self, text: &CStr) -> Result<c_int> {
        let trimmed = text.to_bytes().trim_ascii();
        let word = self
            .words
            .iter()
            .position(|word| word.as_bytes() == trimmed);
        if let Some(value) = word.and_then(|index| c_int::try_from(index).ok()) {
            return Ok(value);
        }
        let mut value = 0;
        // SAFETY: `text` is a C string, and `value` may be written to.
        to_result(unsafe { bindings::kstrtoint(text.as_char_ptr(), 0, &mut value) })
            .map_err(|_| EINVAL)?;
        Ok(value)
    }

    /// The number that is set for `value` when the module is inserted: `value` itself, or the nearest
    /// one in the range.
    fn admitted(&self, value: c_int) -> c_int {
        match self.outside {
            Outside::Refused => value,
            // In C, a switch is on with any number but 0.
            Outside::Nearest if (self.min, self.max) == (0, 1) => c_int::from(value != 0),
            Outside::Nearest => value.clamp(self.min, self.max),
        }
    }

    /// The word for the value now, if it has one.
    fn word(&self) -> Option<&'static str> {
        let index = usize::try_from(self.get()).ok()?;
        self.words.get(index).copied()
    }
}

/// The operations of a module parameter whose argument is a [`Knob`].
#[doc(hidden)]
pub(crate) static KNOB_OPS: bindings::kernel_param_ops = bindings::kernel_param_ops {
    flags: 0,
    set: Some(set_knob),
    get: Some(get_knob),
    free: None,
};

/// The [`Knob`] that is a parameter's argument.
///
/// # Safety
///
/// `param` must be valid and have been made by [`knobs!`].
unsafe fn knob_of(param: *const bindings::kernel_param) -> &'static Knob {
    // SAFETY: As this function's own requirement.
    let arg = unsafe { (*param).__bindgen_anon_1.arg };
    // SAFETY: `knobs!` puts the address of a static there.
    unsafe { &*arg.cast::<Knob>() }
}

/// Sets a parameter, when the module is inserted or by a write to `/sys`.
///
/// # Safety
///
/// Called by the kernel, which holds the lock of this module's parameters: `text` is null or a C
/// string, `param` a parameter made by [`knobs!`].
unsafe extern "C" fn set_knob(text: *const c_char, param: *const bindings::kernel_param) -> c_int {
    from_result(|| {
        if text.is_null() {
            return Err(EINVAL);
        }
        // SAFETY: By this function's requirement.
        let text = unsafe { CStr::from_char_ptr(text) };
        // SAFETY: By this function's requirement.
        let knob = unsafe { knob_of(param) };
        let wanted = knob.read(text)?;
        let value = match INSERTED.load(Relaxed) {
            true => wanted,
            false => knob.admitted(wanted),
        };
        knob.set(value)?;
        if value != wanted {
            // SAFETY: By this function's requirement.
            let name = unsafe { (*param).name };
            // SAFETY: `knobs!` puts the address of a static there.
            let name = unsafe { CStr::from_char_ptr(name) };
            pr_warn!("{name}={wanted} is out of range: {value} is taken\n");
        }
        Ok(0)
    })
}

/// Prints a parameter.
///
/// # Safety
///
/// Called by the kernel: `buffer` is a page, `param` a parameter made by [`knobs!`].
unsafe extern "C" fn get_knob(buffer: *mut c_char, param: *const bindings::kernel_param) -> c_int {
    // SAFETY: By this function's requirement.
    let knob = unsafe { knob_of(param) };
    match knob.word() {
        Some(word) => {
            // CAST: Words are short.
            let len = word.len() as c_int;
            // SAFETY: The buffer is a page; the format matches the arguments, and reads no more of
            // the word than it is long.
            unsafe {
                bindings::scnprintf(
                    buffer,
                    PAGE_SIZE,
                    c"%.*s\n".as_char_ptr(),
                    len,
                    word.as_ptr(),
                )
            }
        }
        // SAFETY: The buffer is a page; the format matches the argument.
        None => unsafe {
            bindings::scnprintf(buffer, PAGE_SIZE, c"%d\n".as_char_ptr(), knob.get())
        },
    }
}

/// For [`modinfo!`]: the bytes of a string, for a static in a section that programs read.
#[doc(hidden)]
pub(crate) const fn bytes_of<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut rest = text.as_bytes();
    let mut index = 0;
    while let [first, others @ ..] = rest {
        // PANIC: At build time only.
        bytes[index] = *first;
        rest = others;
        index += 1;
    }
    bytes
}

/// For [`knobs!`]: a string in the module's `.modinfo` section. The terminating zero is added.
#[doc(hidden)]
macro_rules! modinfo {
    ($($text:expr),+) => {
        const _: () = {
            const TEXT: &str = concat!($($text,)+ "\0");
            #[allow(unsafe_code)]
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static INFO: [u8; TEXT.len()] = $crate::lib_linux::param::bytes_of(TEXT);
        };
    };
}
pub(crate) use modinfo;

/// Makes module parameters that can be read and set while the module is in use.
///
/// Each is a static [`Knob`] with a default value, a number or `[A_CONSTANT]`, and a file in `/sys/module/.../parameters` with the
/// given mode. `in` stands for [`Knob::new`], `near` for [`Knob::or_nearest`], `of` for
/// [`Knob::with_words`], and the function behind `=>` is for [`Knob::on_change`].
///
/// # Examples
///
/// ```
/// knobs! {
///     /// Seconds until a send that makes no progress fails.
///     example_timeout: 50 in 1..=86400, 0o644, "seconds until a stuck send fails";
///     /// Whose connections are accepted.
///     example_accept: 0 of ["secure", "all"], 0o444, "who may connect: secure, all";
///     /// Nagle's algorithm.
///     example_nagle: 0 near 0..=1, 0o644, "delay small segments" => apply;
/// }
///
/// fn apply() -> Result {
///     pr_info!("Nagle's algorithm: {}\n", example_nagle.get());
///     Ok(())
/// }
///
/// assert_eq!((example_timeout.get(), example_accept.get()), (50, 0));
/// ```
macro_rules! knobs {
    ($($(#[$meta:meta])* $name:ident: $($default:literal)? $([$constant:path])? $kind:ident $range:expr, $mode:literal,
       $description:literal $(=> $changed:path)?;)+) => {
        $(
            $(#[$meta])*
            #[allow(non_upper_case_globals)]
            pub(crate) static $name: $crate::lib_linux::param::Knob =
                $crate::lib_linux::param::knobs!(@new $($default)? $($constant)?, $kind, $range)
                    $(.on_change($changed))?;

            $crate::lib_linux::param::modinfo!("parmtype=", stringify!($name), ":int");
            $crate::lib_linux::param::modinfo!("parm=", stringify!($name), ":", $description);

            const _: () = {
                #[allow(unsafe_code)]
                #[link_section = "__param"]
                #[used(compiler)]
                static PARAM: ::kernel::module_param::KernelParam =
                    ::kernel::module_param::KernelParam::new(::kernel::bindings::kernel_param {
                        name: ::kernel::str::as_char_ptr_in_const_context(
                            $crate::lib_linux::param::knobs!(@name $name)
                        ),
                        mod_: $crate::lib_linux::param::THIS_MODULE,
                        ops: &raw const $crate::lib_linux::param::KNOB_OPS,
                        perm: $mode,
                        level: -1,
                        flags: 0,
                        __bindgen_anon_1: ::kernel::bindings::kernel_param__bindgen_ty_1 {
                            arg: (&raw const $name).cast_mut().cast(),
                        },
                    });
            };
        )+
    };
    (@new $default:expr, in, $range:expr) => {
        $crate::lib_linux::param::Knob::new($default, $range)
    };
    (@new $default:expr, near, $range:expr) => {
        $crate::lib_linux::param::Knob::new($default, $range).or_nearest()
    };
    (@new $default:expr, of, $words:expr) => {
        $crate::lib_linux::param::Knob::with_words($default, &$words)
    };
    (@name $name:ident) => {{
        const NAME: &::kernel::prelude::CStr = $crate::lib_linux::param::c_str(
            concat!(stringify!($name), "\0")
        );
        NAME
    }};
}
pub(crate) use knobs;

/// For [`knobs!`]: a string that ends with a zero, as a C string.
#[doc(hidden)]
pub(crate) const fn c_str(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        // PANIC: At build time only.
        Err(_) => panic!("not a C string"),
    }
}

/// For [`knobs!`]: the module that the parameters belong to.
#[doc(hidden)]
pub(crate) const THIS_MODULE: *mut bindings::module =
    (&raw const bindings::__this_module).cast_mut();

#[kunit_tests(socklnd_lib_linux_param)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_range() {
        let knob = Knob::new(5, 1..=10);
        assert_eq!(knob.get(), 5);
        assert!(knob.parse(c"7\n").is_ok());
        assert_eq!(knob.get(), 7);
        assert!(knob.parse(c"0xa").is_ok());
        assert_eq!(knob.get(), 10);
        for text in [c"0", c"11", c"-1", c"99999999999", c"", c"x", c"1 2"] {
            assert!(knob.parse(text).is_err());
        }
        assert_eq!(knob.get(), 10);
        assert!(knob.word().is_none());
    }

    #[test]
    fn numbers_for_another_driver_do_not_keep_the_module_out() {
        let strict = Knob::new(5, 1..=10);
        assert_eq!(strict.admitted(11), 11);
        let knob = Knob::new(5, 1..=10).or_nearest();
        for (wanted, taken) in [(11, 10), (c_int::MAX, 10), (0, 1), (c_int::MIN, 1), (7, 7)] {
            assert_eq!(knob.admitted(wanted), taken);
        }
        let switch = Knob::new(0, 0..=1).or_nearest();
        for (wanted, taken) in [(0, 0), (1, 1), (2, 1), (-1, 1)] {
            assert_eq!(switch.admitted(wanted), taken);
        }
        // Once the module is there, numbers are not guessed at.
        assert!(knob.parse(c"11").is_err());
    }

    #[test]
    fn counting_down_ends() {
        let knob = Knob::new(2, 0..=2);
        assert!(knob.count_down());
        assert!(knob.count_down());
        assert!(!knob.count_down());
        assert_eq!(knob.get(), 0);
    }

    #[test]
    fn a_refused_change_is_undone() {
        let knob = Knob::new(5, 1..=10).on_change(|| Err(EBUSY));
        assert_eq!(knob.set(7), Err(EBUSY));
        assert_eq!(knob.set(11), Err(EINVAL));
        assert_eq!(knob.get(), 5);
        let knob = Knob::new(5, 1..=10).on_change(|| Ok(()));
        assert_eq!(knob.set(7), Ok(()));
        assert_eq!(knob.get(), 7);
    }

    #[test]
    fn what_was_changed_before_a_failure_is_changed_back() {
        static HALF: Knob = Knob::new(5, 1..=10).on_change(|| {
            APPLIED.store(HALF.get(), Relaxed);
            match HALF.get() {
                7 => Err(ENOMEM),
                _ => Ok(()),
            }
        });
        static APPLIED: Atomic<c_int> = Atomic::new(5);
        assert_eq!(HALF.set(6), Ok(()));
        assert_eq!(HALF.set(7), Err(ENOMEM));
        assert_eq!((HALF.get(), APPLIED.load(Relaxed)), (6, 6));
    }

    #[test]
    fn words_are_numbers_too() {
        let knob = Knob::with_words(1, &["secure", "all"]);
        assert!(knob.word() == Some("all"));
        assert!(knob.parse(c"secure\n").is_ok());
        assert_eq!(knob.get(), 0);
        assert!(knob.parse(c"1").is_ok());
        assert_eq!(knob.get(), 1);
        assert!(knob.parse(c"2").is_err());
        assert!(knob.parse(c"none").is_err());
        assert!(knob.word() == Some("all"));
    }
}
