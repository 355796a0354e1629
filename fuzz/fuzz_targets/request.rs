#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zerosend_fuzz::request(data));
