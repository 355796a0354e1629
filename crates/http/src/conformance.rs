/// Which rules apply where RFC 9110 and `@fastify/static` differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conformance {
    /// RFC 9110.
    #[default]
    Rfc9110,
    /// The behavior of `@fastify/static` 10, byte for byte, so that replacing the plugin changes nothing.
    FastifyStatic,
}
