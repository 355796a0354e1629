//! The chunked coding, RFC 9112 section 7.1, read to find its end: bodies of requests are not for us.

/// Bytes of a chunk's size line, and of the trailer, at most.
const MOST_LINE: usize = 4096;

/// The bytes are no chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Where in the coding the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
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
    /// In the bytes.
    Data {
        left: u64,
    },
    /// Before the CR after the bytes.
    DataEnd,
    /// After that CR.
    DataEndLf,
    /// In a line of the trailer; `length` bytes of it have come.
    Trailer {
        length: usize,
    },
    /// After the CR of such a line.
    TrailerEnd {
        length: usize,
    },
    End,
}

/// Skips a body in chunks, however it is cut into pieces.
#[derive(Debug, Clone, Copy)]
pub struct ChunkedSkipper {
    at: At,
    line: usize,
    bytes: u64,
    /// Bytes with the coding.
    raw: u64,
}

impl Default for ChunkedSkipper {
    fn default() -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, line: 0, bytes: 0, raw: 0 }
    }
}

impl ChunkedSkipper {
    /// Bytes of the body so far, without the coding.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the body is longer than `max` bytes, or its coding out of proportion to that: chunks of a byte each take six
    /// bytes, and extensions any number.
    pub fn is_over(&self, max: u64) -> bool {
        self.bytes > max || self.raw > max.saturating_mul(8).saturating_add(16 * 1024)
    }

    /// Takes `input`; gives how much of it belongs to the body, and whether that was its end. `Err`: no such coding.
    pub fn skip(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while at < input.len() {
            if let At::Data { left } = self.at {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                at += step;
                self.bytes += step as u64;
                self.raw += step as u64;
                let left = left - step as u64;
                self.at = if left == 0 { At::DataEnd } else { At::Data { left } };
                continue;
            }
            self.at = self.step(input[at])?;
            at += 1;
            self.raw += 1;
            if self.at == At::End {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        self.line += 1;
        if self.line > MOST_LINE {
            return Err(Malformed);
        }
        Ok(match (self.at, byte) {
            (At::Size { value, digits: digits @ 1.. }, b'\r') => {
                let _ = digits;
                At::SizeEnd { value }
            }
            (At::Size { value, digits: 1.. }, b';') => At::Extension { value },
            (At::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                // 15 digits are enough for every body there is, and no sum of theirs overflows.
                if digits == 15 {
                    return Err(Malformed);
                }
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Extension { value }, b'\r') => At::SizeEnd { value },
            (At::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => At::Extension { value },
            (At::SizeEnd { value }, b'\n') => {
                self.line = 0;
                if value == 0 { At::Trailer { length: 0 } } else { At::Data { left: value } }
            }
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => {
                self.line = 0;
                At::Size { value: 0, digits: 0 }
            }
            (At::Trailer { length }, b'\r') => At::TrailerEnd { length },
            (At::Trailer { length }, b'\t' | b' '..=b'~' | 0x80..) => At::Trailer { length: length + 1 },
            (At::TrailerEnd { length: 0 }, b'\n') => At::End,
            (At::TrailerEnd { .. }, b'\n') => At::Trailer { length: 0 },
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &[u8]) -> Result<(usize, bool), Malformed> {
        ChunkedSkipper::default().skip(input)
    }

    #[test]
    fn finds_the_end_however_it_is_cut() {
        let body = b"5;name=\"v\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        let mut input = body.to_vec();
        input.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for cut in 0..body.len() {
            let mut skipper = ChunkedSkipper::default();
            assert_eq!(skipper.skip(&input[..cut]), Ok((cut, false)), "cut at {cut}");
            assert_eq!(skipper.skip(&input[cut..]), Ok((body.len() - cut, true)), "cut at {cut}");
            assert_eq!(skipper.bytes(), 15);
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
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
            assert_eq!(whole(bad), Err(Malformed), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(whole(&[b'1'; 20]), Err(Malformed));
        let mut long = b"1;".to_vec();
        long.resize(MOST_LINE + 10, b'x');
        assert_eq!(whole(&long), Err(Malformed), "an extension without end");
    }
}
