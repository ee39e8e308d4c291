//! Issue 3, "Crash-exact": the primary, the secondary or both lose power at every step of every workload of up to three
//! changes, and at random ones of long workloads. `cargo xtask soak --crashes 1000000` plays more, and every step of every
//! workload of three changes instead of a part; a failure prints its story.

use sim::crash::{Breach, CRASHES, Dice, Op, Outcome, Story, alphabet, random};
use std::time::{Duration, Instant};

/// How often each step of a small workload is tried, with another part of the disk surviving.
const TRIES: u64 = 1;

/// What `cargo xtask soak --crashes` asks for: so many long workloads, and everything of the small ones.
fn asked() -> Option<u64> {
    std::env::var("STEAD_CRASHES").ok().and_then(|n| n.parse().ok())
}

#[derive(Default, Debug)]
struct Sum {
    stories: u64,
    compared: u64,
    there: u64,
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.stories += 1;
        self.compared += outcome.compared;
        self.there += outcome.there;
    }
}

/// Every crash at every step; the first story that breaks a promise.
fn every_crash(ops: &[Op], breach: Option<Breach>, sum: &mut Sum) -> Result<(), String> {
    for crash in CRASHES {
        for steps in 0.. {
            let mut made = 0;
            for seed in 0..TRIES {
                let lags = steps % 2 == 1;
                let story = Story { ops: ops.to_vec(), steps, crash, seed: seed + 7 * steps as u64, lags, breach };
                let outcome = story.play()?;
                made = made.max(outcome.steps);
                sum.add(outcome);
            }
            if made < steps {
                break;
            }
        }
    }
    Ok(())
}

/// Every crash at every step of the last three changes.
fn every_crash_of_the_last(ops: &[Op], sum: &mut Sum) -> Result<(), String> {
    for crash in CRASHES {
        for steps in (ops.len() - 3) * 6..=ops.len() * 6 {
            let (seed, lags) = (steps as u64, steps % 2 == 1);
            sum.add(Story { ops: ops.to_vec(), steps, crash, seed, lags, breach: None }.play()?);
        }
    }
    Ok(())
}

/// A tree that is there already, synced and cold, so that there is something to lose.
fn furnished(ops: &[Op]) -> Vec<Op> {
    let names = alphabet();
    let mut all = vec![names[0], names[1], names[2], names[3], names[4], names[5], names[6], Op::Round, Op::Round];
    all.extend(ops);
    all
}

#[test]
fn every_workload_of_up_to_three_changes_survives_every_crash() {
    let (alphabet, mut sum, began) = (alphabet(), Sum::default(), Instant::now());
    let mut all = 0;
    for a in &alphabet {
        every_crash(&[*a], None, &mut sum).unwrap();
        for b in &alphabet {
            every_crash(&[*a, *b], None, &mut sum).unwrap();
            for c in &alphabet {
                // On a furnished tree, within the last three changes: which step and which crash turns with the
                // workload, so that every pair of neighbours sees them all.
                let ops = furnished(&[*a, *b, *c]);
                if asked().is_some() {
                    every_crash(&[*a, *b, *c], None, &mut sum).unwrap();
                    every_crash_of_the_last(&ops, &mut sum).unwrap();
                    continue;
                }
                for turn in 0..4 {
                    let steps = ops.len() * 6 - (all * 5 + turn * 7) % 19;
                    let crash = CRASHES[(all + turn) % CRASHES.len()];
                    let seed = (all * 64 + steps) as u64;
                    let story = Story { ops: ops.clone(), steps, crash, seed, lags: turn % 2 == 1, breach: None };
                    sum.add(story.play().unwrap());
                }
                all += 1;
            }
        }
    }
    println!("{sum:?} in {:.1} s", began.elapsed().as_secs_f64());
    assert!(sum.stories > 30_000, "the harness has become blind");
}

#[test]
fn long_random_workloads_survive_random_crashes() {
    let wanted = asked();
    let (mut sum, began) = (Sum::default(), Instant::now());
    for seed in 0.. {
        if seed >= wanted.unwrap_or(20_000)
            || (wanted.is_none() && began.elapsed() > Duration::from_secs(25) && seed > 3_000)
        {
            break;
        }
        sum.add(long(seed, None).play().unwrap());
    }
    println!("{sum:?} in {:.1} s", began.elapsed().as_secs_f64());
    assert!(sum.stories >= wanted.unwrap_or(3_001), "the harness has become blind");
}

fn long(seed: u64, breach: Option<Breach>) -> Story {
    let mut dice = Dice::new(seed);
    let ops: Vec<Op> = (0..5 + dice.below(60)).map(|_| random(&mut dice)).collect();
    let steps = dice.below(6 * ops.len() as u64 + 1) as usize;
    let crash = CRASHES[dice.below(4) as usize];
    Story { ops, steps, crash, seed, lags: dice.below(2) == 0, breach }
}

/// A harness that cannot fail is a defect.
#[test]
fn each_rule_that_is_broken_on_purpose_is_found() {
    for breach in [Breach::LogAfterApply, Breach::CoolsOnAck, Breach::TargetNotAsked, Breach::NewIsOld] {
        let found = (0..20_000).find_map(|seed| long(seed, Some(breach)).play().err().map(|story| (seed, story)));
        let (seed, story) = found.unwrap_or_else(|| panic!("{breach:?} is not noticed"));
        println!("{breach:?}: seed {seed}: {}", &story[..story.len().min(120)]);
    }
}
