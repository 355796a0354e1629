//! What network interfaces do by themselves.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use zerosend_core::error::{Error, Result};
use zerosend_sys::features::{Offload, offload};

/// A network interface. `None`: it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, `eth0`.
    pub name: String,
    /// It is up.
    pub up: bool,
    /// It is the loopback, where nothing is offloaded to a card because nothing leaves.
    pub loopback: bool,
    /// It takes packets from memory in several pieces: without that the kernel copies a file's pages together before they go out.
    pub scatter_gather: Option<bool>,
    /// It makes checksums of what is sent: without that the processor reads every byte after all.
    pub transmit_checksum: Option<bool>,
    /// It checks checksums of what is received.
    pub receive_checksum: Option<bool>,
    /// It cuts TCP segments from larger packets (TSO).
    pub segmentation: Option<bool>,
}

/// All interfaces by name; see `getifaddrs(3)` and `netdevice(7)`.
pub fn interfaces() -> Result<Vec<Interface>> {
    let addresses = getifaddrs().map_err(|errno| Error::system("getifaddrs", errno))?;
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .or_else(|_| socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))
        .map_err(|errno| Error::system("socket", errno))?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for address in addresses {
        let (name, flags) = (address.interface_name, address.flags);
        if !seen.insert(name.clone()) {
            continue;
        }
        let ask = |what| offload(any.as_fd(), &name, what).ok();
        all.push(Interface {
            up: flags.contains(InterfaceFlags::IFF_UP),
            loopback: flags.contains(InterfaceFlags::IFF_LOOPBACK),
            scatter_gather: ask(Offload::ScatterGather),
            transmit_checksum: ask(Offload::TransmitChecksum),
            receive_checksum: ask(Offload::ReceiveChecksum),
            segmentation: ask(Offload::Segmentation),
            name,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
