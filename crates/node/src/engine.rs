//! The state of one JavaScript environment.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{Function, JsObjectValue, Object};
use napi_derive::napi;
use zerosend_core::reactor::registry::{Registry, Token};
use zerosend_core::reactor::{JobHandle, Reactor};
use zerosend_core::transfer::Transfer;
use zerosend_core::{Code, Error, Result};

use crate::error;
use crate::events::{Answer, Event, Events};
use crate::site::HeldSite;

/// What a token can name.
pub enum Held {
    Transfer(Box<Transfer>),
    Site(Arc<HeldSite>),
    /// A duplicate of a descriptor that bytes will be sent to.
    Target(OwnedFd),
}

/// Transfers, targets and pending requests of one JavaScript environment. Used on its thread only.
#[napi]
pub struct Engine {
    pub(crate) events: Events,
    pub(crate) held: Registry<Held>,
    /// Jobs of the reactor by the number of their request.
    pub(crate) jobs: HashMap<u64, JobHandle>,
}

#[napi]
impl Engine {
    /// `wake` is called, with nothing, when `takeEvents` has something to give.
    #[napi(constructor)]
    pub fn new(env: &Env, wake: Function<'_, (), ()>) -> napi::Result<Self> {
        let events = Events::default();
        let wake =
            wake.build_threadsafe_function::<()>().weak::<true>().callee_handled::<false>().build_callback(|_| Ok(()))?;
        events.open(wake);
        // Hooks run last in, first out: this one before the thread-safe function itself goes.
        env.add_env_cleanup_hook(events.clone(), |events| events.close())?;
        Ok(Self { events, held: Registry::default(), jobs: HashMap::new() })
    }

    /// All events since the last call, in order: `{ request }` and what it has to say.
    #[napi(ts_return_type = "Array<{ request: number; error?: NodeJS.ErrnoException; token?: number; progress?: number; report?: TransferReport; answer?: SiteAnswer }>")]
    pub fn take_events<'env>(&mut self, env: &'env Env) -> napi::Result<Vec<Object<'env>>> {
        let events = self.events.take();
        events.into_iter().map(|event| self.deliver(env, event)).collect()
    }

    /// Lets go of what `token` names. Unknown and used tokens are ignored.
    #[napi]
    pub fn release(&mut self, token: f64) {
        self.held.remove(token as Token);
    }

    /// How many transfers and targets are held, for tests and statistics.
    #[napi]
    pub fn held_count(&self) -> u32 {
        self.held.len() as u32
    }
}

impl Engine {
    pub(crate) fn hold(&mut self, held: Held) -> Result<Token> {
        self.held
            .insert(held)
            .map_err(|_| Error::new(Code::Limit, "too many transfers at once; wait for some of them to end"))
    }

    pub(crate) fn transfer(&mut self, token: f64) -> Result<&mut Transfer> {
        match self.held.get_mut(token as Token) {
            Some(Held::Transfer(transfer)) => Ok(transfer),
            _ => Err(Error::new(Code::Closed, "the transfer has ended or was released")),
        }
    }

    fn deliver<'env>(&mut self, env: &'env Env, event: Event) -> napi::Result<Object<'env>> {
        let mut object = Object::new(env)?;
        object.set_named_property("request", event.request)?;
        if !matches!(event.answer, Ok(Answer::Progress(_))) {
            self.jobs.remove(&(event.request as u64));
        }
        match event.answer {
            Err(failure) => object.set_named_property("error", error::to_object(env, &failure)?)?,
            Ok(Answer::Warmed(token, until)) => {
                if let Ok(transfer) = self.transfer(token as f64) {
                    transfer.warmed(until);
                }
            }
            Ok(Answer::Transfer(transfer)) => match self.hold(Held::Transfer(transfer)) {
                Ok(token) => object.set_named_property("token", token as f64)?,
                Err(failure) => object.set_named_property("error", error::to_object(env, &failure)?)?,
            },
            Ok(Answer::Outcome(site, outcome)) => match self.answer(&site, *outcome) {
                Ok(answer) => object.set_named_property("answer", answer)?,
                Err(failure) => object.set_named_property("error", error::to_object(env, &failure)?)?,
            },
            Ok(Answer::Progress(bytes)) => object.set_named_property("progress", bytes as f64)?,
            Ok(Answer::Report(report)) => {
                object.set_named_property("report", crate::transfer::TransferReport::from(report))?;
            }
        }
        Ok(object)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.events.close();
        for job in self.jobs.values() {
            Reactor::global().cancel(job);
        }
    }
}
