//! Access logs.

use std::path::Path;

use napi::Env;
use napi_derive::napi;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::server::access_log::{AccessLog, Format, LogFile};
use zerosend_core::thread;

use crate::engine::convert::parse_enum;
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::with;

impl Kind for AccessLog {
    const NAME: &'static str = "an access log";
    const RELEASED: &'static str = "the access log is closed";
}

/// Opens an access log: the file at `path`, created with `mode`, or standard output when `path` is absent. The event of
/// `request` has its handle.
#[napi]
pub fn open_log(
    env: &Env,
    request: f64,
    #[napi(ts_arg_type = "'common' | 'combined' | 'json'")] format: String,
    path: Option<String>,
    mode: u32,
) -> napi::Result<()> {
    with(env, |engine| {
        let format = parse_enum("log", &format, FORMATS)?;
        let volume = path.as_deref().map_or(Volume::NONE, |path| Volume::of_path(path.as_ref()));
        engine.run(Lane::Short, volume, request, move || {
            let file = match path {
                Some(path) => LogFile::open(Path::new(&path), mode),
                None => LogFile::standard_output(),
            }?;
            let log = AccessLog::lines(format, file).map_err(|error| thread::failed("for the log", &error))?;
            Ok(Payload::handle(log))
        });
        Ok(())
    })
}

/// Opens the file of the access log of a server again, after it was renamed. Then `request` completes, without a value.
#[napi]
pub fn reopen_log(env: &Env, server: f64, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        let log = engine.server(server)?.server.log().cloned();
        let volume = log.as_ref().and_then(|log| log.path()).map_or(Volume::NONE, Volume::of_path);
        engine.run(Lane::Short, volume, request, move || {
            log.map_or(Ok(()), |log| log.reopen())?;
            Ok(Payload::empty())
        });
        Ok(())
    })
}

const FORMATS: &[(&str, Format)] =
    &[("common", Format::Common), ("combined", Format::Combined), ("json", Format::Json)];
