use sim::explore::*;
use sim::world::*;
#[test]
fn tryout() {
    let w: bool = std::env::var("W").is_ok();
    let space = Space {
        name: "try",
        rules: Rules { witness: w, in_flight: 4, broken: None },
        faults: vec![Fault::Power, Fault::Link],
        most_faults: 2, most_crashes: 2, most_writes: 1, most_expiries: 2, most_epochs: 3, commands: vec![], heal_every: 16, one_network_stays: true,
    };
    let t = std::time::Instant::now();
    let o = explore(&space, std::env::var("N").map(|s| s.parse().unwrap()).unwrap_or(200_000));
    if let Some(c) = &o.counterexample { println!("{c}"); }
    println!("{} situations {} steps exhausted {} cut {} healed {} depth {} in {:?}", o.situations, o.steps, o.exhausted, o.cut_epochs, o.healed, o.depth, t.elapsed());
}
