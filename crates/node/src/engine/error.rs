//! Core errors as JavaScript errors in Node's own shape: `code`, `errno`, `syscall`, `path`.

use napi::bindgen_prelude::{JsObjectValue, Object};
use napi::{Env, JsValue, Status};
use zerosend_core::Error;

/// Builds the JavaScript `Error` object.
pub fn to_object<'env>(env: &'env Env, error: &Error) -> napi::Result<Object<'env>> {
    let mut object = env.create_error(napi::Error::new(Status::GenericFailure, error.to_string()))?;
    object.set_named_property("code", error.code().as_str().as_ref())?;
    if let Some(errno) = error.errno() {
        // Negative, as in Node's own system errors.
        object.set_named_property("errno", -(errno as i32))?;
    }
    if let Some(syscall) = error.syscall() {
        object.set_named_property("syscall", syscall)?;
    }
    if let Some(path) = error.path() {
        object.set_named_property("path", path.to_string_lossy().as_ref())?;
    }
    if let Some(bytes) = error.bytes() {
        object.set_named_property("bytes", bytes as f64)?;
    }
    Ok(object)
}

/// Makes a napi error that throws that object.
pub fn throw(env: &Env, error: &Error) -> napi::Error {
    match to_object(env, error) {
        Ok(object) => napi::Error::from(object.to_unknown()),
        Err(failure) => failure,
    }
}
