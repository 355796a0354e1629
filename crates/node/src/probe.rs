//! What the kernel supports, and which offloads the network interfaces have.

use napi::Env;
use napi_derive::napi;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_tools::{Interface, Mechanism, PipeLimits, Probe};

use crate::engine::convert::{ErrnoName, numbers};
use crate::engine::events::Payload;
use crate::engine::with;

/// The result of a probe.
#[napi(object, object_from_js = false)]
pub struct ProbeReport {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// Bytes in a page.
    pub page_size: f64,
    pub pipes: PipeLimitsReport,
    pub mechanisms: Vec<MechanismReport>,
    pub interfaces: Vec<InterfaceReport>,
}

numbers! {
    /// The limits of pipes; see pipe(7).
    pub struct PipeLimitsReport from PipeLimits {
        /// Capacity of a new pipe in bytes.
        default_size,
        /// Largest capacity that an unprivileged user may set, in bytes.
        max_size,
        /// Pages in the pipes of one user beyond which new pipes have one page; 0: no limit.
        user_pages_soft,
        /// Pages in the pipes of one user beyond which no pipe is created; 0: no limit.
        user_pages_hard,
    }
}

/// A mechanism of the kernel.
#[napi(object, object_from_js = false)]
pub struct MechanismReport {
    pub name: &'static str,
    pub available: bool,
    /// The system call that failed.
    pub syscall: Option<&'static str>,
    /// Its error.
    pub refusal: Option<ErrnoName>,
    /// The first kernel version that has it.
    pub since: &'static str,
    /// What zerosend uses it for, or why it does not.
    pub purpose: &'static str,
    /// What zerosend does without it. Absent: zerosend does not use it.
    pub without: Option<&'static str>,
}

/// A network interface. Absent offloads are unknown.
#[napi(object, object_from_js = false)]
pub struct InterfaceReport {
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    pub scatter_gather: Option<bool>,
    pub transmit_checksum: Option<bool>,
    pub receive_checksum: Option<bool>,
    pub segmentation: Option<bool>,
}

/// Tries each mechanism. The event of `request` has a `ProbeReport` as its value.
#[napi]
pub fn probe(env: &Env, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine
            .run(Lane::Long, Volume::NONE, request, || Ok(Payload::value(ProbeReport::from(zerosend_tools::probe()?))));
        Ok(())
    })
}

impl From<Probe> for ProbeReport {
    fn from(probe: Probe) -> Self {
        Self {
            kernel: probe.kernel,
            machine: probe.machine,
            page_size: probe.page_size as f64,
            pipes: probe.pipes.into(),
            mechanisms: probe.mechanisms.into_iter().map(MechanismReport::from).collect(),
            interfaces: probe.interfaces.into_iter().map(InterfaceReport::from).collect(),
        }
    }
}

impl From<Mechanism> for MechanismReport {
    fn from(mechanism: Mechanism) -> Self {
        Self {
            name: mechanism.name,
            available: mechanism.refusal.is_none(),
            syscall: mechanism.refusal.map(|refusal| refusal.syscall),
            refusal: mechanism.refusal.map(|refusal| refusal.errno.into()),
            since: mechanism.since,
            purpose: mechanism.purpose,
            without: mechanism.without,
        }
    }
}

impl From<Interface> for InterfaceReport {
    fn from(interface: Interface) -> Self {
        Self {
            name: interface.name,
            up: interface.up,
            loopback: interface.loopback,
            scatter_gather: interface.scatter_gather,
            transmit_checksum: interface.transmit_checksum,
            receive_checksum: interface.receive_checksum,
            segmentation: interface.segmentation,
        }
    }
}
