//! scratch
use cluster::mirror::Command;
use sim::explore::*;
use sim::world::*;
fn e(k: &str, d: u64) -> u64 { std::env::var(k).ok().and_then(|s| s.parse().ok()).unwrap_or(d) }
#[test]
fn tryout() {
    let f = std::env::var("F").unwrap_or("Power,Link".into());
    let all = [Fault::Power,Fault::Agent,Fault::Plane,Fault::Freeze,Fault::Hang,Fault::Link,Fault::Clients,Fault::WitnessLink,Fault::Witness,Fault::WitnessMemory,Fault::Repeat,Fault::Loss];
    let faults: Vec<_> = all.into_iter().filter(|x| f.split(',').any(|n| n == format!("{x:?}"))).collect();
    let b = std::env::var("B").ok();
    let brs = [Broken::R1CrashUnnoticed,Broken::R4NoSync,Broken::R7StillAlone,Broken::R8TargetNotSynced,Broken::R10AnyAnswer,Broken::R14YieldNotStored,Broken::R15EmptyGrants,Broken::R18NoWindow,Broken::R20BelievesDisk];
    let broken = brs.into_iter().find(|x| Some(format!("{x:?}")) == b);
    let mut commands = vec![];
    match std::env::var("C").as_deref() {
        Ok("swap") => commands = vec![(0, Command::Swap)],
        Ok("stop") => commands = vec![(0, Command::Stop), (0, Command::Start), (1, Command::Stop), (1, Command::Start)],
        Ok("stopstart") => commands = vec![(0, Command::StopStart), (1, Command::StopStart)],
        Ok("force") => commands = vec![(1, Command::Prim { force: true })],
        Ok("app") => commands = vec![(0, Command::ForceStop), (0, Command::Start), (0, Command::Restart)],
        _ => {}
    }
    let space = Space {
        name: "try",
        rules: Rules { witness: e("W", 0) == 1, in_flight: e("P", 4) as usize, broken },
        faults,
        most_faults: e("M", 2) as u8, most_crashes: 2, most_writes: e("WR", 1) as u8, most_expiries: e("X", 2) as u8, most_epochs: 3, commands, heal_every: e("H", 64), one_network_stays: true,
    };
    let t = std::time::Instant::now();
    let o = explore(&space, e("N", 300_000));
    if let Some(c) = &o.counterexample { println!("{c}"); }
    println!("{} situations {} steps exhausted {} cut {} healed {} depth {} in {:?}", o.situations, o.steps, o.exhausted, o.cut_epochs, o.healed, o.depth, t.elapsed());
}
