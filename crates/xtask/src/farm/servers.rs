//! Real servers behind farms.
use super::Story;
pub(super) const STORIES: &[Story] = &[];
