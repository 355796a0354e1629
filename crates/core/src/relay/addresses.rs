//! The addresses of a host name.

use std::sync::{Arc, PoisonError, RwLock};

use crate::net::Address;

/// The addresses of a host name, in the order in which they are tried.
pub struct Addresses(RwLock<Arc<[Address]>>);

impl Addresses {
    /// These addresses, in this order.
    pub fn new(addresses: &[Address]) -> Self {
        Self(RwLock::new(addresses.into()))
    }

    /// The current list.
    pub fn get(&self) -> Arc<[Address]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the list. The address that is first now stays first if the new list has it. Ignores an empty list.
    pub fn set(&self, mut addresses: Vec<Address>) {
        if addresses.is_empty() {
            return;
        }
        let first = self.get().first().cloned();
        let at = addresses.iter().position(|address| Some(address) == first.as_ref()).unwrap_or(0);
        addresses.rotate_left(at);
        self.store(addresses);
    }

    /// Moves an address that could be connected to to the front.
    pub(super) fn prefer(&self, reached: &Address) {
        let addresses = self.get();
        if addresses.first() != Some(reached)
            && let Some(at) = addresses.iter().position(|address| address == reached)
        {
            let mut order = addresses.to_vec();
            order.rotate_left(at);
            self.store(order);
        }
    }

    fn store(&self, addresses: Vec<Address>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reached_address_stays_first_when_the_name_is_resolved_again() {
        let list = |ports: std::ops::Range<u16>| -> Vec<_> {
            ports.map(|port| Address::Tcp(([127, 0, 0, 1], port).into())).collect()
        };
        let initial = list(1..4);
        let addresses = Addresses::new(&initial);
        addresses.prefer(&initial[1]);
        assert_eq!(*addresses.get(), [initial[1].clone(), initial[2].clone(), initial[0].clone()]);
        addresses.set(list(2..5));
        assert_eq!(*addresses.get(), list(2..5));
        addresses.set(list(7..9));
        addresses.set(Vec::new());
        assert_eq!(*addresses.get(), list(7..9));
    }
}
