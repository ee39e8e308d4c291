//! A figure: its values, one per round, and the goal it is held to. Printed, written as JSON, kept in RESULTS.md.

use serde_json::json;
use std::path::Path;

const RESULTS: &str = "benches/RESULTS.md";

/// What a median must be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    unit: &'static str,
    /// One value per round.
    pub values: Vec<f64>,
    goal: Option<Goal>,
}

impl Figure {
    /// Without values yet.
    pub fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self { name: name.into(), unit, values: Vec::new(), goal: None }
    }

    /// Held to this.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Held to nothing.
    pub fn without_goal(mut self) -> Self {
        self.goal = None;
        self
    }

    /// With these values; what is no number was not measured.
    pub fn values(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        self.values = values.into_iter().filter(|v| v.is_finite()).collect();
        self
    }

    /// The same under another heading.
    pub fn renamed(mut self, prefix: &str) -> Self {
        self.name.insert_str(0, prefix);
        self
    }

    /// There is at least one round.
    pub fn is_measured(&self) -> bool {
        !self.values.is_empty()
    }

    fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn max(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    fn holds(&self) -> bool {
        match self.goal {
            None => true,
            Some(Goal::AtMost(goal)) => self.median() <= goal,
            Some(Goal::AtLeast(goal)) => self.median() >= goal,
        }
    }

    /// Name, unit, median, least, most, rounds, goal, kept.
    fn cells(&self) -> [String; 8] {
        let (goal, kept) = match self.goal {
            None => ("–".into(), "–"),
            Some(Goal::AtMost(g)) => (format!("≤ {g}"), if self.holds() { "yes" } else { "no" }),
            Some(Goal::AtLeast(g)) => (format!("≥ {g}"), if self.holds() { "yes" } else { "no" }),
        };
        let (median, min, max) = (number(self.median()), number(self.min()), number(self.max()));
        let rounds = self.values.len().to_string();
        [self.name.clone(), self.unit.into(), median, min, max, rounds, goal, kept.into()]
    }
}

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".into(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// As Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| figure | unit | median | min | max | rounds | goal | kept |\n|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures.iter().filter(|f| !f.values.is_empty()) {
        text += &format!("| {} |\n", figure.cells().join(" | "));
    }
    text
}

/// Prints, and writes the JSON file.
pub fn report(figures: &[Figure], json: Option<&Path>) -> anyhow::Result<()> {
    println!("\n{:<66} {:>8} {:>9} {:>9} {:>9}  {:<8} kept", "figure", "unit", "median", "min", "max", "goal");
    for figure in figures {
        let [name, unit, median, min, max, _, goal, kept] = figure.cells();
        println!("{name:<66} {unit:>8} {median:>9} {min:>9} {max:>9}  {goal:<8} {kept}");
    }
    if let Some(path) = json {
        let finite = |value: f64| value.is_finite().then_some(value);
        let figures: Vec<_> = figures
            .iter()
            .map(|f| {
                let goal = f.goal.map(|g| match g {
                    Goal::AtMost(g) | Goal::AtLeast(g) => g,
                });
                json!({"name": f.name, "value": finite(f.median()), "unit": f.unit, "min": finite(f.min()),
                       "max": finite(f.max()), "rounds": f.values.len(), "goal": goal, "holds": f.holds()})
            })
            .collect();
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "figures": figures }))?)?;
    }
    Ok(())
}

/// Replaces one section of RESULTS.md and leaves the others.
pub fn results(section: &str, text: &str) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(RESULTS).unwrap_or_default();
    std::fs::create_dir_all("benches")?;
    std::fs::write(RESULTS, with_section(&before, section, text, &machine()?))?;
    println!("\nwritten to {RESULTS}");
    Ok(())
}

fn with_section(before: &str, section: &str, text: &str, machine: &str) -> String {
    let mut parts: Vec<(String, String)> = before
        .split("\n## ")
        .skip(1)
        .filter_map(|part| part.split_once('\n').map(|(title, body)| (title.into(), body.trim().into())))
        .collect();
    let body = format!("{machine}\n\n{}", text.trim());
    match parts.iter_mut().find(|(title, _)| title == section) {
        Some(part) => part.1 = body,
        None => parts.push((section.into(), body)),
    }
    let head = "# Results\n\nWritten by `cargo xtask bench`: each section by the benchmark of its name.\n";
    parts.iter().fold(head.to_string(), |all, (title, body)| format!("{all}\n## {title}\n\n{body}\n"))
}

/// What it was measured on.
fn machine() -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|l| l.strip_prefix("model name\t: ").map(str::to_string))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let date = crate::shell::must(
        std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]),
        std::time::Duration::from_secs(5),
    )?;
    let load = load.split(' ').next().unwrap_or("?");
    Ok(format!(
        "{}, one machine: {cores} × {cpu}, Linux {}; load average when it ended: {load}.",
        date.trim(),
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let one = with_section("", "A", "old", "m");
        let two = with_section(&one, "B", "b", "m");
        let three = with_section(&two, "A", "new", "m");
        assert!(three.contains("## A\n\nm\n\nnew\n") && three.contains("## B\n\nm\n\nb\n") && !three.contains("old"));
    }

    #[test]
    fn a_figure_is_held_to_its_goal_by_its_median() {
        let f = Figure::new("f", "x").goal(Goal::AtLeast(0.5)).values([0.1, 0.6, 0.7]);
        assert!(f.holds() && !Figure::new("f", "x").goal(Goal::AtMost(1.0)).holds(), "not measured is not kept");
    }
}
