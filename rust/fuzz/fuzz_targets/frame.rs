#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    machnet_fuzz_bodies::body("frame").expect("a target")(data);
});
