//! Mirrors of relays into files.

use napi::Env;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::relay::MirrorDestination;

use super::RelayHandle;
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::with;

impl Kind for MirrorDestination {
    const NAME: &'static str = "a mirror";
    const RELEASED: &'static str = "the mirror is closed";
}

/// Opens the file of a mirror; where the name has variables, prepares a file for each connection. The event of `request` has
/// its handle.
#[napi]
pub fn open_mirror(env: &Env, request: f64, name: String, mode: u32) -> napi::Result<()> {
    with(env, |engine| {
        // It may read a directory with many files.
        engine.run(Lane::Long, Volume::of_path(name.as_ref()), request, move || {
            MirrorDestination::file(&name, mode).map(Payload::handle)
        });
        Ok(())
    })
}

/// Opens the files of all mirrors of a relay again, after they were renamed. Then `request` completes, without a value or
/// with the first error; mirrors after one that fails are opened too.
#[napi]
pub fn reopen_mirrors(env: &Env, relay: f64, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        let mirrors = engine.handles.objects.get::<RelayHandle>(relay)?.relay.mirrors();
        engine.run(Lane::Short, Volume::NONE, request, move || {
            let reopened: Vec<_> = mirrors.iter().map(MirrorDestination::reopen).collect();
            reopened.into_iter().collect::<Result<()>>()?;
            Ok(Payload::empty())
        });
        Ok(())
    })
}
