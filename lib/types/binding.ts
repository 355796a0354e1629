/** Types of the native binding, which `lib/runtime/native.ts` loads, and of the part of it that `lib/streams` implements too. */
import type * as Native from '#native';

export type Binding = typeof Native;

/** The result of a request, or a report of its progress. */
export type NativeEvent = ReturnType<Binding['takeEvents']>[number];

/** The functions that static serving calls. */
export type StaticEngine = Pick<
  Binding,
  | 'openSite'
  | 'respond'
  | 'respondLater'
  | 'describePending'
  | 'keepPending'
  | 'release'
  | 'mergeVary'
  | 'take'
  | 'prefetch'
  | 'remaining'
>;
