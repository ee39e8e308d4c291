//! The real binary against a real router and socket over made-up answers (one test program: linking is dear).

mod door;
mod fake;
mod full_log;
mod looks;
mod moves;
mod no_agent;
mod scripts;
mod support;
