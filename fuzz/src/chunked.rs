//! Chunked bodies: the end is the same for every division of the input, and encoded bodies are skipped exactly.

use zerosend_http::chunked::ChunkedSkipper;

use super::take;

pub fn chunked(data: &[u8]) {
    let ([step], bytes) = take::<1>(data);
    let whole = skip(bytes, bytes.len().max(1));
    assert_eq!(skip(bytes, 1), whole, "{}", bytes.escape_ascii());
    assert_eq!(skip(bytes, usize::from(step).max(2)), whole, "{}", bytes.escape_ascii());

    // The input as a body, in chunks whose lengths are bytes of the input.
    let mut coded = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rest.len().min(usize::from(rest[0]) + 1));
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
        rest = tail;
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    let length = coded.len();
    coded.extend_from_slice(b"GET / HTTP/1.1\r\n");
    assert_eq!(skip(&coded, usize::from(step).max(1)), Ok((length, true, bytes.len() as u64)));
}

/// Bytes that belong to the body, whether it has ended, and the bytes of its content.
fn skip(bytes: &[u8], step: usize) -> Result<(usize, bool, u64), ()> {
    let mut skipper = ChunkedSkipper::default();
    let mut total = 0;
    for part in bytes.chunks(step) {
        let (taken, ended) = skipper.skip(part).map_err(|_| ())?;
        assert!(taken <= part.len() && (ended || taken == part.len()));
        total += taken;
        if ended {
            return Ok((total, true, skipper.bytes()));
        }
    }
    assert!(skipper.bytes() <= total as u64);
    Ok((total, false, skipper.bytes()))
}
