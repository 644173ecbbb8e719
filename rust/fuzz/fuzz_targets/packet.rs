#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    machnet_fuzz_bodies::body("packet").expect("a target")(data);
});
