/** Which rules apply where RFC 9110 and `@fastify/static` differ. The counterpart of `crates/http/src/conformance.rs`. */
export type Conformance = 'fastify-static' | 'rfc9110';
