//! Runs the fuzz targets of `fuzz/` on a stable compiler, with mutations of the corpus. `ZEROSEND_FUZZ_RUNS` is the number of inputs
//! for each target, `ZEROSEND_FUZZ_SEED` the seed. `npm run fuzz` runs them with libFuzzer.

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// xorshift64*, with a seed, so that failures are reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Makes some random edits: changes, inserts, removes or repeats bytes, or inserts bytes or lines of another input.
fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(7) {
            0 if at < input.len() => input[at] = random.next() as u8,
            1 => input.insert(at, *b"\r\n \t:,;=-%/.0123456789\0\xff?#\"*".get(random.below(30)).unwrap_or(&b'a')),
            2 if at < input.len() => drop(input.drain(at..input.len().min(at + 1 + random.below(8)))),
            3 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                let part = other[from..other.len().min(from + random.below(40))].to_vec();
                input.splice(at..at, part);
            }
            4 if at < input.len() => {
                let part = input[at..input.len().min(at + 1 + random.below(20))].to_vec();
                (0..=random.below(8)).for_each(|_| drop(input.splice(at..at, part.iter().copied())));
            }
            5 if at < input.len() => input[at] ^= 1 << random.below(8),
            6 => {
                let lines: Vec<&[u8]> =
                    others[random.below(others.len())].split_inclusive(|byte| *byte == b'\n').collect();
                let line = lines.get(random.below(lines.len())).copied().unwrap_or_default();
                let before = input[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                input.splice(before..before, line.iter().copied());
            }
            _ => {}
        }
    }
    input.truncate(4096);
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(one, _)| *one == name).expect("a target");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut inputs: Vec<Vec<u8>> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("an input"))
        .collect();
    assert!(!inputs.is_empty(), "{} is empty", corpus.display());
    inputs.sort();
    let attempt = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            eprintln!("input of '{name}': b\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    };
    inputs.iter().for_each(|input| attempt(input));
    let mut random = Random(number("ZEROSEND_FUZZ_SEED", 0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..number("ZEROSEND_FUZZ_RUNS", 20_000) {
        let mut input = inputs[random.below(inputs.len())].clone();
        mutate(&mut input, &inputs, &mut random);
        attempt(&input);
    }
}

macro_rules! fuzz {
    ($($name:ident),+ $(,)?) => { $(#[test] fn $name() { run(stringify!($name)); })+ };
}

fuzz!(chunked, conditional, negotiation, path, proxy_protocol, range, request, ring);
