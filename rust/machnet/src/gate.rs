//! One caller at a time for each direction: a second one is refused, and nothing breaks.
use crate::patience::{nap, yielded};
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// A value that one thread at a time may use.
pub struct Gate<T> {
    busy: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through `Inside`, of which `busy` lets one exist at a time; acquire and release of
// `busy` order what one thread did before what the next does.
unsafe impl<T: Send> Sync for Gate<T> {}

/// The right to use the value; ends when dropped. Made only for a caller that got in, since dropping it opens the gate. A `&mut T` to the
/// compiler: else threads that share one would share a `T` that is not `Sync`.
pub struct Inside<'a, T>(&'a Gate<T>, PhantomData<&'a mut T>);

impl<T> Gate<T> {
    /// Around `value`.
    pub const fn new(value: T) -> Self {
        Self { busy: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Enters; `None` while a caller is inside, which may stay for ever. A visitor leaves soon, and is waited for.
    #[inline]
    pub fn enter(&self) -> Option<Inside<'_, T>> {
        match self.busy.compare_exchange(FREE, CALLER, Acquire, Relaxed) {
            Ok(_) => Some(Inside(self, PhantomData)),
            Err(VISITOR) => self.after_visitor(),
            Err(_) => None,
        }
    }

    #[cold]
    fn after_visitor(&self) -> Option<Inside<'_, T>> {
        // One that shares our core and is less urgent than we does not get it by our yielding.
        let mut yields = 0;
        loop {
            if yields < 100 {
                yielded()
            } else {
                nap()
            }
            yields += 1;
            match self.busy.compare_exchange(FREE, CALLER, Acquire, Relaxed) {
                Ok(_) => return Some(Inside(self, PhantomData)),
                Err(VISITOR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Enters on behalf of the other direction, for a look and never to wait there; `None` while anybody is inside.
    pub fn visit(&self) -> Option<Inside<'_, T>> {
        self.busy.compare_exchange(FREE, VISITOR, Acquire, Relaxed).is_ok().then(|| Inside(self, PhantomData))
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
        self.0.busy.store(FREE, Release);
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

const FREE: u32 = 0;
const CALLER: u32 = 1;
const VISITOR: u32 = 2;

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
        assert!(gate.visit().is_none() && gate.visit().is_none());
        *first += 1;
        drop(first);
        assert_eq!(*gate.enter().expect("nobody is inside"), 8);
    }

    #[test]
    fn a_visitor_turns_nobody_away() {
        let gate = Gate::new(0);
        let mut visitor = gate.visit().expect("nobody is inside");
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| *gate.enter().expect("a visitor leaves"));
            *visitor = 7;
            drop(visitor);
            assert_eq!(caller.join().expect("the caller"), 7);
        });
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
