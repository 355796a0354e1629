//! Native objects that JavaScript refers to by number.
//!
//! A handle names one object for as long as the environment lives: numbers are not used twice. The remainder of a handle
//! divided by 4 is the registry that issued it. Transfers and sites, which requests for small files look up, have typed
//! registries; all other kinds share one that checks the type of the object.

use std::any::Any;
use std::collections::BTreeMap;

use zerosend_core::transfer::Transfer;
use zerosend_core::{Code, Error, Result};

use crate::engine::static_site::StaticSite;

/// A type whose values have handles.
pub trait Kind: 'static {
    /// Its name in error messages, with the article: `a cache`.
    const NAME: &'static str;
    /// The message of the error for a handle that was released.
    const RELEASED: &'static str;
}

const STEP: u64 = 4;
const OBJECTS: u64 = 0;
const TRANSFERS: u64 = 1;
const SITES: u64 = 2;

/// Objects by handle.
pub struct Registry<T: ?Sized> {
    objects: BTreeMap<u64, Box<T>>,
    next: u64,
}

impl<T: ?Sized> Registry<T> {
    fn new(remainder: u64) -> Self {
        // 0 is not a handle: JavaScript uses it for "none".
        Self { objects: BTreeMap::new(), next: remainder + STEP }
    }

    fn insert(&mut self, object: Box<T>) -> f64 {
        let handle = self.next;
        self.next += STEP;
        self.objects.insert(handle, object);
        handle as f64
    }

    /// Whether this registry issued `handle`.
    fn issued(&self, handle: f64) -> bool {
        handle as u64 % STEP == self.next % STEP
    }
}

impl<T: Kind> Registry<T> {
    /// Stores `object` and returns its handle.
    pub fn register(&mut self, object: T) -> f64 {
        self.insert(Box::new(object))
    }

    pub fn get(&mut self, handle: f64) -> Result<&mut T> {
        if !self.issued(handle) {
            return Err(wrong_kind::<T>(handle));
        }
        self.objects.get_mut(&(handle as u64)).map(|object| &mut **object).ok_or_else(released::<T>)
    }

    /// Removes the object and returns it.
    pub fn remove(&mut self, handle: f64) -> Result<T> {
        self.get(handle)?;
        self.objects.remove(&(handle as u64)).map(|object| *object).ok_or_else(released::<T>)
    }
}

impl Registry<dyn Any> {
    /// Stores `object` and returns its handle.
    pub fn register<T: Kind>(&mut self, object: T) -> f64 {
        self.insert(Box::new(object))
    }

    pub fn get<T: Kind>(&mut self, handle: f64) -> Result<&mut T> {
        if !self.issued(handle) {
            return Err(wrong_kind::<T>(handle));
        }
        let object = self.objects.get_mut(&(handle as u64)).ok_or_else(released::<T>)?;
        object.downcast_mut().ok_or_else(|| wrong_kind::<T>(handle))
    }

    /// Removes the object and returns it. An object of another kind stays.
    pub fn remove<T: Kind>(&mut self, handle: f64) -> Result<T> {
        self.get::<T>(handle)?;
        let object = self.objects.remove(&(handle as u64)).ok_or_else(released::<T>)?;
        object.downcast().map(|object| *object).map_err(|_| wrong_kind::<T>(handle))
    }

    /// Whether `handle` names an object of this kind.
    pub fn is<T: Kind>(&self, handle: f64) -> bool {
        self.objects.get(&(handle as u64)).is_some_and(|object| object.is::<T>())
    }
}

/// The registries of one environment.
pub struct Handles {
    pub transfers: Registry<Transfer>,
    pub sites: Registry<StaticSite>,
    pub objects: Registry<dyn Any>,
}

impl Default for Handles {
    fn default() -> Self {
        Self { transfers: Registry::new(TRANSFERS), sites: Registry::new(SITES), objects: Registry::new(OBJECTS) }
    }
}

impl Handles {
    /// Drops the object of any kind. Handles that were released before are ignored.
    pub fn release(&mut self, handle: f64) {
        let number = handle as u64;
        match number % STEP {
            TRANSFERS => drop(self.transfers.objects.remove(&number)),
            SITES => drop(self.sites.objects.remove(&number)),
            _ => drop(self.objects.objects.remove(&number)),
        }
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.transfers.objects.len() + self.sites.objects.len() + self.objects.objects.len()
    }
}

fn wrong_kind<T: Kind>(handle: f64) -> Error {
    Error::new(Code::InvalidArgument, format!("not {}: {handle}", T::NAME))
}

fn released<T: Kind>() -> Error {
    Error::new(Code::Closed, T::RELEASED)
}

impl Kind for Transfer {
    const NAME: &'static str = "a transfer";
    const RELEASED: &'static str = "the transfer has ended or was released";
}

impl Kind for StaticSite {
    const NAME: &'static str = "a site";
    const RELEASED: &'static str = "the site was released";
}
