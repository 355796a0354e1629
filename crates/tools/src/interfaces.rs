//! Network interfaces and their offload features.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use zerosend_core::error::{Error, Result};
use zerosend_sys::features::{Offload, offload};

/// A network interface. `None`: the driver does not report the feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, for example `eth0`.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is the loopback interface, which has no hardware to offload to.
    pub loopback: bool,
    /// Scatter-gather: it sends packets from several pages. Without it the kernel copies the pages of a file into one buffer.
    pub scatter_gather: Option<bool>,
    /// It computes checksums of sent packets. Without it the CPU reads every byte.
    pub transmit_checksum: Option<bool>,
    /// It verifies checksums of received packets.
    pub receive_checksum: Option<bool>,
    /// It divides larger packets into TCP segments (TSO).
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
        let feature = |offload_kind| offload(any.as_fd(), &name, offload_kind).ok();
        all.push(Interface {
            up: flags.contains(InterfaceFlags::IFF_UP),
            loopback: flags.contains(InterfaceFlags::IFF_LOOPBACK),
            scatter_gather: feature(Offload::ScatterGather),
            transmit_checksum: feature(Offload::TransmitChecksum),
            receive_checksum: feature(Offload::ReceiveChecksum),
            segmentation: feature(Offload::Segmentation),
            name,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
