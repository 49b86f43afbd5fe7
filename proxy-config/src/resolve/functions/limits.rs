//! Warns of `resources` that nothing enforces on this host. Whether that is so is for the caller to find out.

use super::Function;
use crate::load::Unmet;
use crate::model::{Command, Resources, amount};
use crate::report::{Level, Problem};

/// One warning for each revision that may run here and whose limits would be nothing but words.
pub(super) fn unmet(function: &Function<'_>, unmet: &Unmet) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (revision, document) in &function.revisions {
        if matches!(revision.command, Command::Refused { .. }) {
            continue;
        }
        let written = [memory(&revision.resources), cpu(&revision.resources)];
        let reasons = [&unmet.memory, &unmet.cpu];
        let mut found: Vec<_> =
            written.into_iter().zip(reasons).filter_map(|(w, r)| Some((w?, r.as_ref()?))).collect();
        // The same reason is told once.
        if let [(memory, one), (cpu, other)] = &found[..]
            && one == other
        {
            found = vec![(format!("{memory} and {cpu}"), *one)];
        }
        for (what, reason) in found {
            let path = "spec.template.spec.containers[0].resources";
            let message = format!("{what} not enforced on this host: {}", reason.why);
            let at = document.template.container.resources.at;
            let problem = document.meta.problem(Level::Warning, "SC046", path, at, message);
            problems.push(problem.with_help(&reason.help));
        }
    }
    problems
}

fn memory(resources: &Resources) -> Option<String> {
    Some(format!("limits.memory {}", amount(resources.memory?)))
}

fn cpu(resources: &Resources) -> Option<String> {
    match (resources.cpu, resources.cpu_request) {
        (Some(millis), _) => Some(format!("limits.cpu {millis}m")),
        (None, Some(millis)) => Some(format!("requests.cpu {millis}m")),
        (None, None) => None,
    }
}
