//! MeshConfig: the settings of the whole mesh, from whichever place they are written in.

use crate::api::mesh::MeshConfig;
use crate::model::{AccessLog, AccessLogEncoding, Mesh};
use crate::report::{Level, Problem};

/// The settings in force. `file` is the one named on the command line and goes before those found in the
/// input, of which the first is taken.
pub(crate) fn choose<'a>(
    file: Option<&'a MeshConfig>,
    found: &[&'a MeshConfig],
    problems: &mut Vec<Problem>,
) -> Option<&'a MeshConfig> {
    let mut candidates = file.into_iter().chain(found.iter().copied());
    let chosen = candidates.next()?;
    for other in candidates {
        let place = format!("{}:{}", chosen.meta.file.display(), chosen.meta.at.line);
        let message = format!("mesh settings are taken from {place}; these are not used");
        problems.push(other.meta.problem(Level::Warning, "SC018", "", other.meta.at, message));
    }
    Some(chosen)
}

/// The settings, defaults filled in.
pub(crate) fn build(chosen: Option<&MeshConfig>) -> Mesh {
    let Some(chosen) = chosen else { return Mesh::default() };
    let default = Mesh::default();
    Mesh {
        access_log: access_log(chosen),
        concurrency: chosen.concurrency.as_ref().map(|workers| workers.value),
        trust_domain: chosen
            .trust_domain
            .as_ref()
            .map_or(default.trust_domain, |domain| domain.value.clone()),
        outbound: chosen.outbound.as_ref().map_or(default.outbound, |mode| mode.value),
        root_namespace: chosen
            .root_namespace
            .as_ref()
            .map_or(default.root_namespace, |namespace| namespace.value.clone()),
        trust_domain_aliases: chosen.trust_domain_aliases.iter().map(|alias| alias.value.clone()).collect(),
        path_normalization: chosen.path_normalization.unwrap_or(default.path_normalization),
        min_tls: chosen.min_tls.unwrap_or(default.min_tls),
        auto_mtls: chosen.auto_mtls.unwrap_or(default.auto_mtls),
    }
}

fn access_log(mesh: &MeshConfig) -> Option<AccessLog> {
    let file = mesh.access_log_file.as_ref()?;
    Some(AccessLog {
        file: file.value.clone(),
        encoding: mesh.access_log_encoding.unwrap_or(AccessLogEncoding::Text),
        format: mesh
            .access_log_format
            .as_ref()
            .map(|format| format.value.clone())
            .filter(|text| !text.is_empty()),
    })
}
