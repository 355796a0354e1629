//! Skips a request body in the chunked coding, RFC 9112 section 7.1: a file server discards request bodies.

/// Maximum bytes of a size line, and of the trailer section.
const MAX_LINE: usize = 4096;

/// The bytes are not in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The position of the next byte in the coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    Size {
        value: u64,
        digits: u8,
    },
    /// In an extension.
    Extension {
        value: u64,
    },
    /// After the CR of a size line.
    SizeEnd {
        value: u64,
    },
    /// In the data.
    Data {
        left: u64,
    },
    /// Before the CR after the data.
    DataEnd,
    /// After that CR.
    DataEndLf,
    /// In a line of the trailer section, after `length` bytes of it.
    Trailer {
        length: usize,
    },
    /// After the CR of a trailer line.
    TrailerEnd {
        length: usize,
    },
    End,
}

/// Skips a chunked body that arrives in any number of pieces.
#[derive(Debug, Clone, Copy)]
pub struct ChunkedSkipper {
    state: State,
    /// Bytes of the current size line or trailer section.
    line: usize,
    bytes: u64,
    /// Bytes of the coded body.
    raw: u64,
}

impl Default for ChunkedSkipper {
    fn default() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, line: 0, bytes: 0, raw: 0 }
    }
}

impl ChunkedSkipper {
    /// Decoded bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the body exceeds `max` bytes, or its coding is out of proportion: a chunk of one byte takes six bytes, and
    /// extensions take any number.
    pub fn is_over(&self, max: u64) -> bool {
        self.bytes > max || self.raw > max.saturating_mul(8).saturating_add(16 * 1024)
    }

    /// Skips `input`. Returns how much of it belongs to the body, and whether the body ends there.
    pub fn skip(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while at < input.len() {
            if let State::Data { left } = self.state {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                at += step;
                self.bytes += step as u64;
                self.raw += step as u64;
                let left = left - step as u64;
                self.state = if left == 0 { State::DataEnd } else { State::Data { left } };
                continue;
            }
            self.state = self.step(input[at])?;
            at += 1;
            self.raw += 1;
            if self.state == State::End {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        if self.line > MAX_LINE {
            return Err(Malformed);
        }
        Ok(match (self.state, byte) {
            (State::Size { value, digits: digits @ 1.. }, b'\r') => {
                let _ = digits;
                State::SizeEnd { value }
            }
            (State::Size { value, digits: 1.. }, b';') => State::Extension { value },
            (State::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                // 15 hexadecimal digits are enough for every body, and sums of such sizes do not overflow.
                if digits == 15 {
                    return Err(Malformed);
                }
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Extension { value }, b'\r') => State::SizeEnd { value },
            (State::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => State::Extension { value },
            (State::SizeEnd { value }, b'\n') => {
                self.line = 0;
                if value == 0 { State::Trailer { length: 0 } } else { State::Data { left: value } }
            }
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => {
                self.line = 0;
                State::Size { value: 0, digits: 0 }
            }
            (State::Trailer { length }, b'\r') => State::TrailerEnd { length },
            (State::Trailer { length }, b'\t' | b' '..=b'~' | 0x80..) => State::Trailer { length: length + 1 },
            (State::TrailerEnd { length: 0 }, b'\n') => State::End,
            (State::TrailerEnd { .. }, b'\n') => State::Trailer { length: 0 },
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(input: &[u8]) -> Result<(usize, bool), Malformed> {
        ChunkedSkipper::default().skip(input)
    }

    #[test]
    fn the_end_is_found_wherever_the_input_is_split() {
        let body = b"5;name=\"v\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        let mut input = body.to_vec();
        input.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for split in 0..body.len() {
            let mut skipper = ChunkedSkipper::default();
            assert_eq!(skipper.skip(&input[..split]), Ok((split, false)), "split at {split}");
            assert_eq!(skipper.skip(&input[split..]), Ok((body.len() - split, true)), "split at {split}");
            assert_eq!(skipper.bytes(), 15);
        }
    }

    #[test]
    fn ambiguous_input_is_malformed() {
        for bad in [
            &b"\r\n"[..],
            b"5\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"-5\r\n",
            b"+5\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"10000000000000000\r\n",
            b"0\r\n\n",
            b"5;\x00\r\nhello\r\n",
        ] {
            assert_eq!(skip(bad), Err(Malformed), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(skip(&[b'1'; 20]), Err(Malformed));
        let mut long = b"1;".to_vec();
        long.resize(MAX_LINE + 10, b'x');
        assert_eq!(skip(&long), Err(Malformed), "an endless extension");
    }
}
