//! Files as memory.

use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::mapped_file::{MapOptions, MappedFile};
use zerosend_core::{Code, Error, Result};
use zerosend_sys::memory::{Advice, MapMode};

use crate::engine::{Engine, Held, lane_for, with};
use crate::events::Answer;
use crate::site::one_of;

/// How a file is to be mapped.
#[napi(object)]
pub struct MapSettings {
    #[napi(ts_type = "'read' | 'private' | 'shared'")]
    pub mode: String,
    /// Bytes; all of the file when absent.
    pub length: Option<f64>,
    pub populate: bool,
}

/// How much of a mapping is in memory.
#[napi(object, object_from_js = false)]
pub struct MappedPages {
    /// Bytes of a page.
    pub page_size: f64,
    /// Pages of the mapping.
    pub pages: f64,
    /// How many of them are in memory.
    pub resident: f64,
}

/// Opens and maps a file: the event of `request` has its `token`.
#[napi]
pub fn open_mapped(env: &Env, request: f64, path: String, settings: MapSettings) -> napi::Result<()> {
    with(env, |engine| {
        let options = MapOptions {
            mode: one_of("mode", &settings.mode, MODES)?,
            length: settings.length.map(|bytes| bytes as u64),
            populate: settings.populate,
        };
        let path = PathBuf::from(path);
        let volume = Volume::of_path(&path);
        let lane = if options.populate { Lane::Long } else { Lane::Short };
        engine.run(lane, volume, request, move || MappedFile::open(&path, &options).map(Answer::Mapped));
        Ok(())
    })
}

/// Bytes mapped.
#[napi]
pub fn mapped_size(env: &Env, token: f64) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.mapped(token)?.size() as f64))
}

/// Copies bytes: the event of `request` has them.
#[napi]
pub fn read_mapped(env: &Env, request: f64, token: f64, offset: f64, length: f64) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.mapped(token)?;
        engine.run(lane_for(length), file.volume(), request, move || {
            file.read_at(offset as u64, length as u64).map(Answer::Bytes)
        });
        Ok(())
    })
}

/// Writes a copy of `bytes`, which is made at the call.
#[napi]
pub fn write_mapped(env: &Env, request: f64, token: f64, offset: f64, bytes: Uint8Array) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.mapped(token)?;
        let bytes = bytes.to_vec();
        engine.run(lane_for(bytes.len() as f64), file.volume(), request, move || {
            file.write_at(offset as u64, &bytes).map(|()| Answer::Ended)
        });
        Ok(())
    })
}

/// Writes changed pages to the disk.
#[napi]
pub fn flush_mapped(env: &Env, request: f64, token: f64, wait: bool) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.mapped(token)?;
        engine.run(Lane::Long, file.volume(), request, move || file.flush(wait).map(|()| Answer::Ended));
        Ok(())
    })
}

/// Says how it will be used.
#[napi]
pub fn advise_mapped(
    env: &Env,
    token: f64,
    #[napi(ts_arg_type = "'sequential' | 'random' | 'willneed' | 'dontneed' | 'hugepage'")] advice: String,
) -> napi::Result<()> {
    with(env, |engine| engine.mapped(token)?.advise(one_of("advice", &advice, ADVICE)?))
}

/// How much of it is in memory.
#[napi]
pub fn mapped_residency(env: &Env, token: f64) -> napi::Result<MappedPages> {
    with(env, |engine| {
        let residency = engine.mapped(token)?.residency()?;
        Ok(MappedPages {
            page_size: residency.page_size as f64,
            pages: residency.pages as f64,
            resident: residency.resident as f64,
        })
    })
}

impl Engine {
    fn mapped(&mut self, token: f64) -> Result<Arc<MappedFile>> {
        match self.held.get_mut(token as Token) {
            Some(Held::Mapped(file)) => Ok(file.clone()),
            _ => Err(Error::new(Code::Closed, "the mapped file is closed")),
        }
    }
}

const MODES: &[(&str, MapMode)] =
    &[("read", MapMode::Read), ("private", MapMode::Private), ("shared", MapMode::Shared)];
const ADVICE: &[(&str, Advice)] = &[
    ("sequential", Advice::Sequential),
    ("random", Advice::Random),
    ("willneed", Advice::WillNeed),
    ("dontneed", Advice::DontNeed),
    ("hugepage", Advice::HugePage),
];
