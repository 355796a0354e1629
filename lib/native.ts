/**
 * Loads the binding, or remembers why it could not be loaded.
 *
 * The package must import everywhere, so a failure is thrown only when something needs the kernel.
 */
import { createRequire } from 'node:module';

import type * as Native from '#native';

import { failure } from './errors.js';

export type Binding = typeof Native;
export type NativeEvent = ReturnType<Binding['takeEvents']>[number];
export type TransferReport = Native.TransferReport;
export type PartOptions = Native.PartOptions;
export type SendingOptions = Native.SendingOptions;
export type SiteSettings = Native.SiteSettings;
export type SiteAnswer = Native.SiteAnswer;
export type RequestConditions = Native.RequestConditions;
export type LimitSettings = Native.LimitSettings;
export type MountSettings = Native.MountSettings;
export type ServerSettings = Native.ServerSettings;
export type CacheSettings = Native.CacheSettings;
export type CachedFileInfo = Native.CachedFileInfo;
export type MapSettings = Native.MapSettings;
export type DoorConnection = Native.DoorConnection;
export type DoorLogEntry = Native.DoorLogEntry;
export type DriveOptions = Native.DriveOptions;
export type AddressSettings = Native.AddressSettings;
export type RelaySettings = Native.RelaySettings;
export type RelayQuestion = Native.RelayQuestion;
export type MirrorSettings = Native.MirrorSettings;
export type JoinerSettings = Native.JoinerSettings;
export type JoinSettings = Native.JoinSettings;
export type JoinReport = Native.JoinReport;
export type ErrnoName = Native.ErrnoName;
export type BenchSample = Native.BenchSample;
export type ProbeReport = Native.ProbeReport;
export type MeasuredReport = Native.MeasuredReport;
export type PaceReport = Native.PaceReport;

let binding: Binding | undefined;
let reason: unknown;

if (process.platform === 'linux') {
  try {
    binding = createRequire(import.meta.url)('#native') as Binding;
  } catch (error) {
    reason = error;
  }
}

/** The binding, where there is one. */
export const native: Binding | undefined = binding;

/** The binding; throws `ERR_ZEROSEND_UNSUPPORTED` where there is none. */
export function requireNative(): Binding {
  if (binding !== undefined) return binding;
  const where = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') {
    throw failure('ERR_ZEROSEND_UNSUPPORTED', `zerosend needs Linux for this, and this is ${where}`);
  }
  const { glibcVersionRuntime } =
    (process.report?.getReport() as { header?: { glibcVersionRuntime?: string } })?.header ?? {};
  const libc = glibcVersionRuntime === undefined ? 'musl' : `glibc ${glibcVersionRuntime}`;
  throw failure(
    'ERR_ZEROSEND_UNSUPPORTED',
    `the native part of zerosend could not be loaded on ${where} with ${libc}; in a clone of the repository run "npm run build"`,
    { cause: reason },
  );
}
