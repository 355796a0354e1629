//! `Accept-Encoding` and `Vary`: the result has supported codings only, each once, and none with `q=0`.

use zerosend_http::Conformance;
use zerosend_http::negotiation::{Encoding, merge_vary, negotiate, preferences};

use super::take;

const ALL: [Encoding; 4] = [Encoding::Zstd, Encoding::Br, Encoding::Gzip, Encoding::Deflate];

pub fn negotiation(data: &[u8]) {
    let ([options], bytes) = take::<1>(data);
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    let supported: Vec<Encoding> =
        ALL.into_iter().enumerate().filter(|(at, _)| options >> at & 1 == 1).map(|(_, one)| one).collect();
    let conformance = if options & 16 == 0 { Conformance::Rfc9110 } else { Conformance::FastifyStatic };
    let choice = negotiate(header, &supported, conformance);
    assert!(choice.is_none_or(|one| supported.contains(&one)), "{header:?} of {supported:?}");
    let order: Vec<Encoding> = preferences(header, &supported, conformance).collect();
    assert_eq!(order.first().copied(), choice, "{header:?} of {supported:?}");
    assert!(
        order.iter().enumerate().all(|(at, one)| supported.contains(one) && !order[..at].contains(one)),
        "{header:?}"
    );
    if conformance == Conformance::Rfc9110 {
        for one in &supported {
            let name = one.as_str();
            assert_eq!(negotiate(name, &supported, conformance), Some(*one));
            assert_eq!(negotiate(&format!("{name};q=0"), &supported, conformance), None);
        }
        let refused = format!("{header}, identity;q=1, *;q=0");
        assert!(refused.len() > header.len());
    }
    if let Some(merged) = merge_vary(Some(header)) {
        assert!(merged.starts_with(header));
        assert_eq!(merge_vary(Some(&merged)), None, "{header:?} becomes {merged:?}");
    }
}
