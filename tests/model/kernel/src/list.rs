// SPDX-License-Identifier: GPL-2.0

//! Lists of shared objects, each in a list at most once.

use crate::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::collections::VecDeque;

/// Objects that know whether they are in a list.
pub trait ListArcSafe<const ID: u64> {
    /// Where the object keeps that.
    fn tracker(&self) -> &AtomicTracker<ID>;
}

/// Objects that can be in a list.
pub trait ListItem<const ID: u64>: ListArcSafe<ID> {}

/// Objects that can be put into a list by whoever shares them.
pub trait TryNewListArc<const ID: u64>: ListArcSafe<ID> {}

/// Whether there is a [`ListArc`] of an object. As weakly ordered as the kernel's own.
#[derive(Debug)]
pub struct AtomicTracker<const ID: u64>(AtomicBool);

impl<const ID: u64> AtomicTracker<ID> {
    /// There is none.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }
}

/// The reference by which a list holds an object.
#[derive(Debug)]
pub struct ListArc<T, const ID: u64>(Arc<T>);

impl<T: TryNewListArc<ID>, const ID: u64> ListArc<T, ID> {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// If there is one, `object` is given back.
    pub fn try_from_arc(object: Arc<T>) -> Result<Self, Arc<T>> {
        let claim =
            object
                .tracker()
                .0
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        match claim {
            Ok(_) => Ok(Self(object)),
            Err(_) => Err(object),
        }
    }

    /// Makes it an ordinary reference.
    #[must_use]
    pub fn into_arc(self) -> Arc<T> {
        self.0.tracker().0.store(false, Ordering::Release);
        self.0
    }
}

/// A list. Protected by what it is in.
#[derive(Debug)]
pub struct List<T, const ID: u64>(VecDeque<ListArc<T, ID>>);

impl<T, const ID: u64> List<T, ID> {
    /// Empty.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds an object at the end.
    pub fn push_back(&mut self, object: ListArc<T, ID>) {
        self.0.push_back(object);
    }

    /// Adds all objects of `other` at the end.
    pub fn push_all_back(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// Takes the first object.
    pub fn pop_front(&mut self) -> Option<ListArc<T, ID>> {
        self.0.pop_front()
    }

    /// The objects, from the first one on.
    pub fn iter(&self) -> impl Iterator<Item = Arc<T>> + '_ {
        self.0.iter().map(|object| object.0.clone())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
