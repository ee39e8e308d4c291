//! Bytes for the door `token` of `agent::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let door = agent::hostile::DOORS.iter().find(|door| door.name == "token").expect("a door of this name");
    (door.open)(bytes);
});
