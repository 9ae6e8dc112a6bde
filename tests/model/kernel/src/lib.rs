// SPDX-License-Identifier: GPL-2.0

//! As much of the `kernel` crate as the files of the module that are tried here use.
//!
//! The atomics, the locks and the wake-ups are loom's, which goes through the orders that the
//! threads' steps can have. What costs no ordering in the kernel gives none here.

/// What every file imports.
pub mod prelude {
    pub use crate::{new_condvar, pin_init, PinInit};
    pub use macros::{kunit_tests, pin_data};
}

pub mod list;
pub mod sync;

/// Time, of which there is none here.
pub mod time {
    /// A time as the timer counts it.
    pub type Jiffies = u64;

    /// As many jiffies.
    #[must_use]
    pub fn msecs_to_jiffies(ms: u32) -> Jiffies {
        ms.into()
    }
}

/// Makes a value, here at once.
pub trait PinInit<T> {
    /// The value.
    fn init(self) -> T;
}

impl<T> PinInit<T> for T {
    fn init(self) -> T {
        self
    }
}

/// A struct from its fields' initializers.
#[macro_export]
macro_rules! pin_init {
    ($type:ident { $($field:ident <- $value:expr),* $(,)? }) => { $type { $($field: $value),* } };
}

/// A [`sync::CondVar`].
#[macro_export]
macro_rules! new_condvar {
    ($name:literal) => {
        $crate::sync::CondVar::new()
    };
}

/// A [`sync::SpinLockIrq`].
#[macro_export]
macro_rules! new_spinlock_irq {
    ($value:expr, $name:literal $(,)?) => {
        $crate::sync::SpinLockIrq::new($value)
    };
}
