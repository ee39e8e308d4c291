//! `cargo xtask soak --explore`: the large search, two crashes of every actor, for a stated time and up to a stated cap.
//!
//! Prints how many situations were visited and how far that reached; fails with the story of the first broken promise.

use sim::explore::{Outcome, explore_deep};
use sim::suite::crashes;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often it says how far it is.
const SAYS: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    let (Some(minutes), Some(cap)) = (number(0), number(1)) else {
        eprintln!("usage: explore MINUTES SITUATIONS [NAME]   (minutes of all spaces together, situations of each)");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let only = words.get(2).map_or("", String::as_str);
    let spaces: Vec<_> = crashes().into_iter().filter(|space| space.name.contains(only)).collect();
    let (end, mut all) = (began + Duration::from_secs(60 * minutes), 0);
    println!("{} spaces, {minutes} minutes together, at most {cap} situations each", spaces.len());
    for (place, space) in spaces.iter().enumerate() {
        // What a space does not use, the later ones have.
        let left = u32::try_from(spaces.len() - place).unwrap_or(1);
        let until = Instant::now() + end.saturating_duration_since(Instant::now()) / left;
        let (clock, said) = (Instant::now(), Mutex::new(Instant::now()));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let outcome = explore_deep(space, cap, threads, &|so_far| {
            if let Ok(mut said) = said.lock()
                && said.elapsed() >= SAYS
            {
                *said = Instant::now();
                println!("    {} …", so_far_in_words(so_far, clock));
            }
            Instant::now() < until
        });
        all += outcome.situations;
        let end = match (outcome.exhausted, outcome.situations >= cap) {
            (true, _) => "ALL of them",
            (false, true) => "cut by the cap",
            (false, false) => "cut by the time",
        };
        println!("{}: {}, {end}", space.name, so_far_in_words(&outcome, clock));
        if let Some(story) = outcome.counterexample {
            eprintln!("a promise is broken: {story}");
            return ExitCode::FAILURE;
        }
    }
    println!("{all} situations in {:.0} s, no promise broken", began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

fn so_far_in_words(outcome: &Outcome, clock: Instant) -> String {
    format!(
        "{} situations, {} steps, {} healed, {} steps deep, {} cut at a fourth epoch, {:.0} s",
        outcome.situations,
        outcome.steps,
        outcome.healed,
        outcome.depth,
        outcome.cut_epochs,
        clock.elapsed().as_secs_f64()
    )
}
