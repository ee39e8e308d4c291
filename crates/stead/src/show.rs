//! From API objects to words: tables, sentences, durations. Pure functions of their arguments.

mod cluster;
mod farm;
mod module;
mod quarantine;
mod resources;
mod story;
mod table;
mod units;

pub use cluster::{changes, cluster_rows, conf_info, level, ports, token};
pub use farm::farm;
pub use module::{StateRow, configuration, details, list, resync, state_table};
pub use quarantine::{quarantine, quarantines};
pub use resources::{played, resources};
pub use story::{diff, log_line, verified, why};
pub use units::{duration, progress, when_us};
