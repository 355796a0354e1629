//! `Accept-Encoding` and `Vary`.

mod support;

use proptest::prelude::*;
use zerosend_http::Conformance::{FastifyStatic, Rfc9110};
use zerosend_http::negotiation::Encoding::{self, Br, Deflate, Gzip, Zstd};
use zerosend_http::negotiation::{merge_vary, negotiate, preferences};

#[test]
fn codings_are_chosen_as_in_rfc_9110() {
    let rows: &[(&str, &[Encoding], Option<Encoding>)] = &[
        ("gzip, br", &[Br, Gzip], Some(Br)),
        ("gzip, br", &[Gzip, Br], Some(Gzip)),
        ("gzip;q=1, br;q=0.9", &[Br, Gzip], Some(Gzip)),
        ("GZIP", &[Br, Gzip], Some(Gzip)),
        ("x-gzip", &[Br, Gzip], Some(Gzip)),
        ("*", &[Br, Gzip], Some(Br)),
        ("*, br;q=0", &[Br, Gzip], Some(Gzip)),
        ("*;q=0", &[Br, Gzip], None),
        ("gzip;q=0", &[Gzip], None),
        ("gzip;q=0.000", &[Gzip], None),
        ("", &[Gzip], None),
        ("identity", &[Gzip], None),
        ("gzip;q=0.5, identity", &[Gzip], None),
        ("gzip;q=0.5, identity;q=0.5", &[Gzip], Some(Gzip)),
        ("identity;q=0, gzip;q=0.001", &[Gzip], Some(Gzip)),
        ("gzip ; Q=0.3 , deflate;q=0.25", &[Deflate, Gzip], Some(Gzip)),
        ("gzip;q=2, deflate", &[Gzip, Deflate], Some(Deflate)),
        ("gzip;q=nonsense", &[Gzip], None),
        ("gzip;q=1.1", &[Gzip], None),
        ("zstd", &[Br, Gzip], None),
        ("zstd, br", &[Zstd, Br], Some(Zstd)),
        ("gzipped", &[Gzip], None),
        ("br", &[], None),
    ];
    for (header, supported, expected) in rows {
        assert_eq!(negotiate(header, supported, Rfc9110), *expected, "{header}");
    }
}

fn by_name(name: &str) -> Encoding {
    [Zstd, Br, Gzip, Deflate].into_iter().find(|encoding| encoding.as_str() == name).unwrap()
}

#[test]
fn choices_equal_those_of_fastify_static() {
    for line in include_str!("vectors/encoding.tsv").lines().step_by(support::STEP) {
        let [supported, header, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let supported: Vec<_> = supported.split(',').map(by_name).collect();
        let choice = negotiate(header, &supported, FastifyStatic).map_or("none", Encoding::as_str);
        assert_eq!(choice, expected, "{header:?} of {supported:?}");
    }
}

#[test]
fn preferences_are_ordered_and_unique() {
    let all = [Br, Gzip, Deflate];
    let list = |header, conformance| preferences(header, &all, conformance).collect::<Vec<_>>();
    for conformance in [Rfc9110, FastifyStatic] {
        assert_eq!(list("deflate, gzip;q=0.5, br;q=0.7", conformance), [Deflate, Br, Gzip]);
        assert_eq!(list("gzip", conformance), [Gzip]);
        assert_eq!(list("identity", conformance), []);
    }
    assert_eq!(list("*", Rfc9110), all);
    assert_eq!(list("*", FastifyStatic), [Gzip]);
}

#[test]
fn vary_names_accept_encoding_once() {
    let rows = [
        (None, Some("accept-encoding")),
        (Some("origin"), Some("origin, accept-encoding")),
        (Some("Accept-Encoding"), None),
        (Some("origin,accept-encoding , x"), None),
        (Some("*"), None),
        (Some("accept-encoding-x"), Some("accept-encoding-x, accept-encoding")),
    ];
    for (existing, expected) in rows {
        assert_eq!(merge_vary(existing).as_deref(), expected, "{existing:?}");
    }
}

proptest! {
    #![proptest_config(support::config())]

    #[test]
    fn the_highest_weight_wins(weights in prop::collection::vec(prop::option::of(0_u32..=1000), 5)) {
        let names = ["zstd", "br", "gzip", "deflate", "identity"];
        let header: Vec<_> = names
            .iter()
            .zip(&weights)
            .filter_map(|(name, weight)| weight.map(|w| format!("{name};q={}.{:03}", w / 1000, w % 1000)))
            .collect();
        let supported = [Zstd, Br, Gzip, Deflate];
        // Naive: the first coding with the highest weight above 0, unless identity has a higher one.
        let top = weights[..4].iter().flatten().copied().max().unwrap_or(0);
        let expected = (top > 0 && weights[4].is_none_or(|identity| identity <= top))
            .then(|| supported[weights[..4].iter().position(|weight| *weight == Some(top)).unwrap()]);
        prop_assert_eq!(negotiate(&header.join(", "), &supported, Rfc9110), expected);
    }

    #[test]
    fn any_header_yields_four_codings_or_fewer(header in ".{0,60}") {
        for conformance in [Rfc9110, FastifyStatic] {
            prop_assert!(preferences(&header, &[Zstd, Br, Gzip, Deflate], conformance).count() <= 4);
        }
    }
}
