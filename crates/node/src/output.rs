//! Opening what logs, mirrors and splitters write to. Names are opened on the pool: a file system may take its time.

use napi::Env;
use napi_derive::napi;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::output;
use zerosend_core::relay::MirrorDestination;
use zerosend_core::server::access_log::{AccessLog, Format, LogFile};
use zerosend_core::{Error, Result, thread};

use crate::engine::with;
use crate::events::Answer;
use crate::site::one_of;

/// Opens a file, FIFO or terminal; a file is emptied (not that of `/dev/stdout` and the like), or made with `mode`. The answer to `request` is its token.
#[napi]
pub fn open_output(env: &Env, request: f64, path: String, mode: u32) -> napi::Result<()> {
    with(env, |engine| {
        engine.run(Lane::Short, Volume::of_path(path.as_ref()), request, move || {
            let opened = output::open(path.as_ref(), mode)?;
            if opened.is_file() && !opened.is_inherited() {
                nix::unistd::ftruncate(&opened, 0)
                    .map_err(|errno| Error::system("ftruncate", errno).with_path(&path))?;
            }
            Ok(Answer::Output(opened))
        });
        Ok(())
    })
}

/// Opens the file of a mirror, or prepares files for each connection where the name has variables. The answer to `request` is
/// its token.
#[napi]
pub fn open_mirror(env: &Env, request: f64, name: String, mode: u32) -> napi::Result<()> {
    with(env, |engine| {
        // It may read a directory with many files.
        engine.run(Lane::Long, Volume::of_path(name.as_ref()), request, move || {
            MirrorDestination::file(&name, mode).map(Answer::Mirror)
        });
        Ok(())
    })
}

/// Opens an access log: the file at `path`, made with `mode`, or the standard output. The answer to `request` is its token.
#[napi]
pub fn open_log(
    env: &Env,
    request: f64,
    #[napi(ts_arg_type = "'common' | 'combined' | 'json'")] format: String,
    path: Option<String>,
    mode: u32,
) -> napi::Result<()> {
    with(env, |engine| {
        let format = one_of("log", &format, FORMATS)?;
        let volume = path.as_deref().map_or(Volume::NONE, |path| Volume::of_path(path.as_ref()));
        engine.run(Lane::Short, volume, request, move || {
            let file = match path {
                Some(path) => LogFile::open(path.as_ref(), mode),
                None => LogFile::standard_output(),
            }?;
            AccessLog::lines(format, file).map(Answer::Log).map_err(|error| thread::failed("for the log", &error))
        });
        Ok(())
    })
}

/// Opens the access log of a server by its name again. `request` is answered when that is done.
#[napi]
pub fn reopen_log(env: &Env, token: f64, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        let log = engine.server(token)?.log().cloned();
        let volume = log.as_ref().and_then(|log| log.path()).map_or(Volume::NONE, Volume::of_path);
        engine
            .run(Lane::Short, volume, request, move || log.map_or(Ok(()), |log| log.reopen()).map(|()| Answer::Ended));
        Ok(())
    })
}

/// Opens the mirrors of a relay by their names again, all that can be. `request` is answered when that is done, with the first
/// failure.
#[napi]
pub fn reopen_mirrors(env: &Env, token: f64, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        let mirrors = engine.relay(token)?.relay.mirrors();
        engine.run(Lane::Short, Volume::NONE, request, move || {
            let reopened: Vec<_> = mirrors.iter().map(MirrorDestination::reopen).collect();
            reopened.into_iter().collect::<Result<()>>().map(|()| Answer::Ended)
        });
        Ok(())
    })
}

const FORMATS: &[(&str, Format)] =
    &[("common", Format::Common), ("combined", Format::Combined), ("json", Format::Json)];
