//! Bytes for the door `safe` of `agent::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let door = agent::hostile::DOORS.iter().find(|door| door.name == "safe").expect("a door of this name");
    (door.open)(bytes);
});
