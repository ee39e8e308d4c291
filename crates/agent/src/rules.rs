//! Failover rules without a cluster: `stead rules test` plays values of resources against what a file says.

use crate::configuration::read_module;
use cluster::watch::story::Story;
use model::schema::checkers::Process;
use model::schema::names::NO_NAMES;
use model::schema::{Diagnostic, Surroundings};

/// What came of it.
#[derive(Debug, Default)]
pub struct Played {
    /// The rules in force, as text.
    pub rules: Vec<String>,
    /// Each step, and what followed.
    pub steps: Vec<(String, Vec<String>)>,
}

/// Plays the steps one after the other, on one imagined node.
///
/// # Errors
/// What is wrong with the file, or with the first wrong step.
pub fn play(xml: &[u8], file: &str, module: &str, steps: &[String]) -> Result<Played, Refused> {
    let around = Surroundings { module, cluster: None, subnets: &[], others: &[], names: &NO_NAMES };
    let checked = read_module(xml, file, &around);
    let Some(configuration) = checked.value else { return Err(Refused::File(checked.diagnostics)) };
    let rules = configuration.checkers.all_rules(configuration.rfs.is_some());
    let mut played = Played { rules: rules.iter().map(ToString::to_string).collect(), steps: Vec::new() };
    let checkers = &configuration.checkers;
    let checks = checkers.checks.iter().map(|check| check.resource.clone());
    let looked_at = checks.chain(checkers.processes.iter().map(Process::resource)).collect();
    let mut story = Story::new(rules, checkers.handle_time_ms).looking_at(looked_at);
    for step in steps {
        let followed = story.play(step).map_err(Refused::Step)?;
        played.steps.push((step.clone(), followed));
    }
    Ok(played)
}

/// Why nothing was played.
#[derive(Debug)]
pub enum Refused {
    /// The file.
    File(Vec<Diagnostic>),
    /// A step: the sentence.
    Step(String),
}
