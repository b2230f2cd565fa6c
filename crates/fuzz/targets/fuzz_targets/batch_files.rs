#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| consul_session_fuzz::batch_files(data));
