//! The content codings that a client accepts, RFC 9110 section 12.5.3, and `Vary`.

use super::conformance::Conformance;

/// A content coding of precompressed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Encoding {
    /// The name in `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The suffix of the file name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Br => ".br",
            Self::Gzip => ".gz",
            Self::Deflate => ".deflate",
        }
    }
}

/// The best of `supported` (in the server's order of preference) for an `Accept-Encoding` header. `None`: the plain file.
pub fn negotiate(header: &str, supported: &[Encoding], conformance: Conformance) -> Option<Encoding> {
    match conformance {
        Conformance::Rfc9110 => negotiate_rfc(header, supported),
        Conformance::FastifyStatic => negotiate_fastify(header, supported),
    }
}

/// Every coding that the client accepts, best first: each is the choice of [`negotiate`] without those before it.
pub fn preferences<'a>(header: &'a str, supported: &[Encoding], conformance: Conformance) -> Preferences<'a> {
    let mut left = [None; 4];
    for (slot, encoding) in left.iter_mut().zip(supported) {
        *slot = Some(*encoding);
    }
    Preferences { header, left, conformance }
}

/// See [`preferences`].
#[derive(Debug, Clone)]
pub struct Preferences<'a> {
    header: &'a str,
    /// The codings that were not chosen yet, in the server's order.
    left: [Option<Encoding>; 4],
    conformance: Conformance,
}

impl Iterator for Preferences<'_> {
    type Item = Encoding;

    fn next(&mut self) -> Option<Encoding> {
        let mut list = [Encoding::Gzip; 4];
        let mut length = 0;
        for (slot, encoding) in list.iter_mut().zip(self.left.iter().flatten()) {
            *slot = *encoding;
            length += 1;
        }
        let choice = negotiate(self.header, list.get(..length)?, self.conformance)?;
        self.left.iter_mut().filter(|slot| **slot == Some(choice)).for_each(|slot| *slot = None);
        Some(choice)
    }
}

/// The value of `Vary` with `accept-encoding` added; `None` when `existing` covers it.
pub fn merge_vary(existing: Option<&str>) -> Option<String> {
    let Some(existing) = existing else { return Some("accept-encoding".to_owned()) };
    let covered = |token: &str| token == "*" || token.eq_ignore_ascii_case("accept-encoding");
    if existing.split(',').map(str::trim).any(covered) {
        return None;
    }
    Some(format!("{existing}, accept-encoding"))
}

/// The highest weight wins, ties are resolved in the server's order, and `identity` wins over a lower weight.
fn negotiate_rfc(header: &str, supported: &[Encoding]) -> Option<Encoding> {
    // RFC 9110 section 12.4.2: a weight has three decimals, so it is kept as thousandths.
    let mut star = None;
    let mut identity = None;
    let mut named: [Option<u16>; 4] = [None; 4];
    for member in header.split(',') {
        let mut parts = member.split(';').map(|part| part.trim_matches([' ', '\t']));
        let name = parts.next().unwrap_or_default();
        let Some(weight) = parts.try_fold(1000, |weight, parameter| weight_of(parameter).map(|w| w.unwrap_or(weight)))
        else {
            continue;
        };
        if name == "*" {
            star = Some(weight);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if let Some(encoding) = by_name(name) {
            named[encoding as usize] = Some(weight);
        }
    }
    let mut best = (None, 0);
    for &encoding in supported {
        let weight = named[encoding as usize].or(star).unwrap_or(0);
        if weight > best.1 {
            best = (Some(encoding), weight);
        }
    }
    if identity.is_some_and(|identity| identity > best.1) { None } else { best.0 }
}

/// RFC 9110 section 8.4.1.3: `x-gzip` is `gzip`.
fn by_name(name: &str) -> Option<Encoding> {
    if name.eq_ignore_ascii_case("x-gzip") {
        return Some(Encoding::Gzip);
    }
    [Encoding::Zstd, Encoding::Br, Encoding::Gzip, Encoding::Deflate]
        .into_iter()
        .find(|encoding| name.eq_ignore_ascii_case(encoding.as_str()))
}

/// `q=0.5` as thousandths; `Some(None)` for another parameter, `None` for a malformed weight.
fn weight_of(parameter: &str) -> Option<Option<u16>> {
    let Some(value) = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")) else { return Some(None) };
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(Some(thousandths)),
        "1" if thousandths == 0 => Some(Some(1000)),
        _ => None,
    }
}

/// The observable rules of `@fastify/static` with `@fastify/accept-negotiator`: every `*` is `gzip`, `identity` is not a candidate, a
/// weight is the digits after the semicolon, and blanks do not separate.
fn negotiate_fastify(header: &str, supported: &[Encoding]) -> Option<Encoding> {
    let mut choice = Choice { supported, best: None, done: false };
    let mut state = State::Begin;
    let mut token = Token::default();
    let mut weight = Weight::default();
    let mut after_blank = false;
    for byte in header.bytes().flat_map(expand) {
        let blank_before = std::mem::replace(&mut after_blank, matches!(byte, b' ' | b'\t'));
        match (byte, state) {
            (b' ' | b'\t', _) => {}
            (b';', State::Token) => {
                state = State::Weight;
                weight = Weight::default();
            }
            (b';', _) | (b',', State::Begin) => {}
            (b',', _) => {
                choice.offer(&token, if state == State::Token { 1.0 } else { weight.value() });
                state = State::Begin;
                token = Token::default();
            }
            (b'q' | b'=', State::Weight) => {}
            (b'0'..=b'9' | b'.', State::Weight) => weight.push(byte),
            (_, State::Begin) => {
                state = State::Token;
                token.push(byte);
            }
            (_, State::Token) => {
                if blank_before {
                    token = Token::default();
                }
                token.push(byte);
            }
            (_, State::Weight) => {
                choice.offer(&token, weight.value());
                state = State::Begin;
                token = Token::default();
                token.push(byte);
            }
        }
        if choice.done {
            return choice.best.map(|(encoding, ..)| encoding);
        }
    }
    match state {
        State::Begin => {}
        State::Token => choice.offer(&token, 1.0),
        State::Weight => choice.offer(&token, weight.value()),
    }
    choice.best.map(|(encoding, ..)| encoding)
}

/// Converts to lower case, and `*` to `gzip`.
fn expand(byte: u8) -> impl Iterator<Item = u8> {
    let (bytes, length) = if byte == b'*' { (*b"gzip", 4) } else { ([byte.to_ascii_lowercase(), 0, 0, 0], 1) };
    bytes.into_iter().take(length)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    Token,
    Weight,
}

/// The first bytes of a name; the longest supported one is `deflate`.
#[derive(Default)]
struct Token {
    bytes: [u8; 8],
    length: usize,
}

impl Token {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length += 1;
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// `parseFloat` of digits and dots, exact up to 18 digits, so that `0.9` equals `0.90`.
#[derive(Default)]
struct Weight {
    mantissa: u64,
    digits: u32,
    decimals: u32,
    dots: u32,
}

impl Weight {
    fn push(&mut self, byte: u8) {
        if byte == b'.' {
            self.dots += 1;
        } else if self.dots < 2 && self.digits < 18 {
            self.mantissa = self.mantissa * 10 + u64::from(byte - b'0');
            self.digits += 1;
            self.decimals += self.dots;
        }
    }

    fn value(&self) -> f64 {
        self.mantissa as f64 / 10_u64.pow(self.decimals) as f64
    }
}

struct Choice<'a> {
    supported: &'a [Encoding],
    best: Option<(Encoding, usize, f64)>,
    done: bool,
}

impl Choice<'_> {
    fn offer(&mut self, token: &Token, weight: f64) {
        let name = token.as_bytes();
        let Some(rank) = self.supported.iter().position(|encoding| encoding.as_str().as_bytes() == name) else {
            return;
        };
        let better = match self.best {
            None => weight > 0.0,
            Some((_, best_rank, best)) => weight > best || (weight == best && rank < best_rank),
        };
        if better {
            self.best = self.supported.get(rank).map(|&encoding| (encoding, rank, weight));
        }
        // The server's first choice at full weight ends the search: a later `q=2` is not parsed.
        self.done = better && rank == 0 && weight == 1.0;
    }
}
