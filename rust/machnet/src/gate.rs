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
        // Made only by whoever got in: an `Inside` that is dropped opens the gate.
        (self.busy.swap(1, Acquire) == 0).then(|| Inside(self))
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

/// A value that is set once and then read by anybody.
pub struct Once<T> {
    set: AtomicU32,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: `value` is written before `set` is 1 and read only after; `&T` goes to several threads, `T` comes from one.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// Not yet set.
    pub const fn new() -> Self {
        Self { set: AtomicU32::new(UNSET), value: UnsafeCell::new(None) }
    }

    /// Sets it; a second time changes nothing.
    pub fn set(&self, value: T) {
        if self.set.compare_exchange(UNSET, SETTING, Acquire, Acquire).is_ok() {
            // SAFETY: the exchange lets one caller in, once; readers wait for `SET`.
            unsafe { *self.value.get() = Some(value) };
            self.set.store(SET, Release);
        }
    }

    /// The value, once it is set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.set.load(Acquire) != SET {
            return None;
        }
        // SAFETY: `SET` was stored after the last write there will be.
        unsafe { (*self.value.get()).as_ref() }
    }
}

const UNSET: u32 = 0;
const SETTING: u32 = 1;
const SET: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_caller_is_told_and_the_next_comes_in() {
        let gate = Gate::new(7);
        let mut first = gate.enter().expect("nobody is inside");
        assert!(gate.enter().is_none());
        assert!(gate.enter().is_none(), "who was turned away has opened the gate");
        *first += 1;
        drop(first);
        assert_eq!(*gate.enter().expect("nobody is inside"), 8);
    }

    #[test]
    fn a_value_is_set_once() {
        let once = Once::new();
        assert_eq!(once.get(), None);
        once.set(1);
        once.set(2);
        assert_eq!(once.get(), Some(&1));
    }
}
