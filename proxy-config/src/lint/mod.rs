//! Warnings that need no running system: configuration that is legal and hardly meant.
//!
//! Each lint reads; none of them changes what is served. They are few on sensible input: a lint that is
//! often wrong teaches people not to read.

mod destinations;
mod rules;
mod security;
mod services;
mod trust;

use crate::report::Problem;
use crate::resolve::Input;
use crate::resolve::registry::Registry;

/// Runs every lint. `root`: the namespace that holds for the whole mesh.
pub(crate) fn check(input: &Input<'_>, registry: &Registry, root: &str, problems: &mut Vec<Problem>) {
    rules::check(input, registry, problems);
    destinations::check(input, registry, problems);
    services::check(input, registry, problems);
    security::check(input, registry, root, problems);
    trust::check(input, registry, root, problems);
}
