/** For each folder, the folders it may import from. Other imports and import cycles are not allowed. */
export const ALLOWED: Record<string, Record<string, readonly string[]>> = {
  'crates/core/src': {
    fs: ['error', 'io'],
    cache: ['error', 'failpoint', 'stats', 'io', 'transfer', 'fs'],
    static_site: ['error', 'io', 'transfer', 'fs', 'cache'],
  },
  'crates/http/src': {
    etag: ['conformance'],
    range: ['conformance'],
    negotiation: ['conformance'],
    headers: ['range'],
    head_writer: ['headers'],
    mime: ['mime_table'],
    route: ['path'],
    caching: ['glob', 'headers'],
    conditional: ['conformance', 'date', 'etag'],
    request: ['path', 'conditional'],
    site: ['conformance', 'path', 'date', 'headers', 'mime', 'range', 'negotiation', 'caching', 'conditional'],
  },
  'crates/sys/src': {},
  'crates/tools/src': {},
  'crates/node/src': {
    ffi: [],
    // The state of an environment: handles, events, the guard around each call.
    engine: ['ffi'],
    descriptor: ['ffi', 'engine'],
    transfer: ['ffi', 'engine', 'descriptor'],
    parts: ['engine', 'descriptor'],
    pages: ['ffi', 'engine', 'parts'],
    raw: ['ffi', 'engine', 'descriptor', 'pages'],
    receive: ['engine', 'descriptor', 'transfer'],
    site: ['engine'],
    server: ['engine', 'descriptor', 'site'],
    relay: ['engine', 'descriptor'],
    shm: ['engine', 'descriptor'],
    cache: ['engine'],
    mapped_file: ['engine'],
    output: ['engine'],
    pipe: ['engine'],
    page_cache: ['engine'],
    probe: ['engine'],
    bench: ['engine'],
  },
  lib: {
    // Types, and the list of methods.
    types: [],
    util: [],
    // The only folder that uses internals of Node and Fastify.
    node: ['util'],
    // The engine for other platforms than Linux.
    streams: ['types', 'util'],
    runtime: ['types', 'util', 'node', 'streams'],
    cache: ['types', 'util', 'runtime'],
    // Shared by the file server and the front door.
    server: ['types', 'util', 'runtime', 'cache'],
    static: ['types', 'util', 'node', 'runtime', 'cache', 'server'],
    frontdoor: ['types', 'util', 'node', 'runtime', 'cache', 'server', 'static'],
    api: ['types', 'util', 'node', 'runtime', 'cache', 'server', 'static'],
    // The entry point `zerosend/fastify`.
    fastify: ['types', 'server', 'static', 'frontdoor'],
    install: ['util', 'runtime'],
    cli: ['types', 'util', 'runtime', 'static', 'api', 'install', 'fastify'],
  },
};
