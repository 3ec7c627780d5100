#![no_main]

#[path = "../../support/parsers.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|case: &[u8]| parsers::contract(case));
