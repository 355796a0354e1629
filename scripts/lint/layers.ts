/** Which folder may import from which; each line names what is below. What is not listed is not allowed, and circles never are. */
export const ALLOWED: Record<string, Record<string, readonly string[]>> = {
  'crates/core/src': {},
  'crates/http/src': {},
  'crates/sys/src': {},
  'crates/tools/src': {},
  'crates/node/src': {},
  lib: {},
};
