//! Files that are mapped into memory.

use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{Buffer, Uint8Array};
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::mapped_file::{MapOptions, MappedFile};
use zerosend_sys::memory::{Advice, MapMode};

use crate::engine::convert::{numbers, parse_enum};
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::{Engine, lane_for, with};

impl Kind for Arc<MappedFile> {
    const NAME: &'static str = "a mapped file";
    const RELEASED: &'static str = "the mapped file is closed";
}

/// How a file is mapped.
#[napi(object)]
pub struct MapSettings {
    #[napi(ts_type = "'read' | 'private' | 'shared'")]
    pub mode: String,
    /// Bytes. Absent: the whole file.
    pub length: Option<f64>,
    /// Read all pages when it is opened.
    pub populate: bool,
}

numbers! {
    /// How much of a mapping is in memory.
    pub struct MappedPages from zerosend_core::mapped_file::MappedResidency {
        /// Bytes in a page.
        page_size,
        /// Pages of the mapping.
        pages,
        /// Pages of the mapping that are in memory.
        resident,
    }
}

/// Opens and maps a file. The event of `request` has its handle.
#[napi]
pub fn open_mapped(env: &Env, request: f64, path: String, settings: MapSettings) -> napi::Result<()> {
    with(env, |engine| {
        let options = MapOptions {
            mode: parse_enum("mode", &settings.mode, MODES)?,
            length: settings.length.map(|bytes| bytes as u64),
            populate: settings.populate,
        };
        let path = PathBuf::from(path);
        let volume = Volume::of_path(&path);
        let lane = if options.populate { Lane::Long } else { Lane::Short };
        engine.run(lane, volume, request, move || Ok(Payload::handle(Arc::new(MappedFile::open(&path, &options)?))));
        Ok(())
    })
}

/// Length of the mapping in bytes.
#[napi]
pub fn mapped_size(env: &Env, file: f64) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.mapped(file)?.size() as f64))
}

/// Copies bytes. The event of `request` has a `Buffer` as its value.
#[napi]
pub fn read_mapped(env: &Env, request: f64, file: f64, offset: f64, length: f64) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.mapped(file)?.clone();
        engine.run(lane_for(length), file.volume(), request, move || {
            Ok(Payload::value(Buffer::from(file.read_at(offset as u64, length as u64)?)))
        });
        Ok(())
    })
}

/// Writes a copy of `bytes`, which is made during the call. Then `request` completes, without a value.
#[napi]
pub fn write_mapped(env: &Env, request: f64, file: f64, offset: f64, bytes: Uint8Array) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.mapped(file)?.clone();
        let bytes = bytes.to_vec();
        engine.run(lane_for(bytes.len() as f64), file.volume(), request, move || {
            file.write_at(offset as u64, &bytes).map(|()| Payload::empty())
        });
        Ok(())
    })
}

/// Writes changed pages to the disk, or with `wait: false` starts to. Then `request` completes, without a value.
#[napi]
pub fn flush_mapped(env: &Env, request: f64, file: f64, wait: bool) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.mapped(file)?.clone();
        engine.run(Lane::Long, file.volume(), request, move || file.flush(wait).map(|()| Payload::empty()));
        Ok(())
    })
}

/// Tells the kernel how the mapping will be used: madvise(2).
#[napi]
pub fn advise_mapped(
    env: &Env,
    file: f64,
    #[napi(ts_arg_type = "'sequential' | 'random' | 'willneed' | 'dontneed' | 'hugepage'")] advice: String,
) -> napi::Result<()> {
    with(env, |engine| engine.mapped(file)?.advise(parse_enum("advice", &advice, ADVICE)?))
}

/// How much of the mapping is in memory: mincore(2).
#[napi]
pub fn mapped_residency(env: &Env, file: f64) -> napi::Result<MappedPages> {
    with(env, |engine| Ok(engine.mapped(file)?.residency()?.into()))
}

impl Engine {
    fn mapped(&mut self, handle: f64) -> Result<&Arc<MappedFile>> {
        self.handles.objects.get(handle).map(|file| &*file)
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
