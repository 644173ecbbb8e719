//! One caller at a time for each direction: whoever comes second is told so, and nothing breaks.
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};

/// A value that one thread at a time may use.
pub struct Gate<T> {
    busy: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through `Inside`, of which `busy` lets one exist at a time; acquire and release of
// `busy` order what one thread did before what the next does.
unsafe impl<T: Send> Sync for Gate<T> {}

/// The right to use the value; ends when dropped.
pub struct Inside<'a, T>(&'a Gate<T>);

impl<T> Gate<T> {
    /// Around `value`.
    pub const fn new(value: T) -> Self {
        Self { busy: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Enters; `None` while somebody is inside.
    #[inline]
    pub fn enter(&self) -> Option<Inside<'_, T>> {
        (self.busy.swap(1, Acquire) == 0).then_some(Inside(self))
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while this `Inside` exists no other does.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Inside<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; and `&mut self` makes this the only reference that came out of it.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Inside<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.busy.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_caller_is_told_and_the_next_comes_in() {
        let gate = Gate::new(7);
        let mut first = gate.enter().expect("nobody is inside");
        assert!(gate.enter().is_none());
        *first += 1;
        drop(first);
        assert_eq!(*gate.enter().expect("nobody is inside"), 8);
    }
}
