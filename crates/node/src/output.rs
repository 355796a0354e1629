//! Files, FIFOs and terminals that splitters write to.

use napi::Env;
use napi_derive::napi;
use zerosend_core::Error;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::output::{self, Output};

use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::with;

impl Kind for Output {
    const NAME: &'static str = "an output file";
    const RELEASED: &'static str = "the output file was closed";
}

/// Opens a file, FIFO or terminal for writing. A file is created with `mode`, or truncated unless it is inherited, as the
/// file behind `/dev/stdout` is. The event of `request` has its handle.
#[napi]
pub fn open_output(env: &Env, request: f64, path: String, mode: u32) -> napi::Result<()> {
    with(env, |engine| {
        engine.run(Lane::Short, Volume::of_path(path.as_ref()), request, move || {
            let opened = output::open(path.as_ref(), mode)?;
            if opened.is_file() && !opened.is_inherited() {
                nix::unistd::ftruncate(&opened, 0)
                    .map_err(|errno| Error::system("ftruncate", errno).with_path(&path))?;
            }
            Ok(Payload::handle(opened))
        });
        Ok(())
    })
}
