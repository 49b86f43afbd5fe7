//! An AuthorizationPolicy's tree to its struct.

use super::{AuthorizationPolicy, rules, selection};
use crate::api::Meta;
use crate::decode::Cursor;
use crate::model::{self, PolicyAction};
use crate::report::{At, Place};

const E: &str = "IST0106";
const DRY_RUN: &str = "istio.io/dry-run";

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> AuthorizationPolicy {
    let spec = root.field("spec");
    let selection = selection::decode(&spec, &meta);
    let action = action(&spec);
    let list = spec.field("rules");
    let word = spec.field("action").text().unwrap_or("ALLOW");
    if matches!(action, PolicyAction::Deny | PolicyAction::Custom(_)) && list.items().next().is_none() {
        let message = format!("{word} action without `rules` is meaningless as it will never be triggered");
        spec.error_with_help(E, message, "write `rules: [{}]` to match every request");
    }
    for (i, rule) in list.items().enumerate() {
        rules::check(&rule, i, matches!(action, PolicyAction::Custom(_)));
    }
    let provider = spec.field("provider").field("name").text_at();
    let policy = model::AuthorizationPolicy {
        origin: meta.object.clone(),
        dry_run: dry_run(root, &meta, &action),
        action,
        rules: list.items().map(|rule| rules::rule(&rule, &meta.object.namespace)).collect(),
    };
    AuthorizationPolicy {
        selection,
        policy,
        provider,
        principals: principals(&list),
        needs_token: needs_token(&list),
        meta,
    }
}

fn action(spec: &Cursor<'_>) -> PolicyAction {
    let provider = spec.field("provider");
    let name = provider.field("name").text().unwrap_or_default();
    let action = match spec.field("action").text() {
        Some("DENY") => PolicyAction::Deny,
        Some("AUDIT") => PolicyAction::Audit,
        Some("CUSTOM") => PolicyAction::Custom(name.to_owned()),
        _ => PolicyAction::Allow,
    };
    match action {
        PolicyAction::Custom(_) if name.is_empty() => spec.error(E, "`provider.name` must not be empty"),
        PolicyAction::Custom(_) => {}
        _ if provider.is_present() => provider.error(E, "`provider` must not be with non CUSTOM action"),
        _ => {}
    }
    action
}

/// Only what allows or denies can be tried out; what cannot be tried out acts.
fn dry_run(root: &Cursor<'_>, meta: &Meta, action: &PolicyAction) -> bool {
    let Some(written) = meta.annotations.get(DRY_RUN) else { return false };
    let annotation = root.field("metadata").field("annotations").field(DRY_RUN);
    match written.value.as_str() {
        "true" if matches!(action, PolicyAction::Allow | PolicyAction::Deny) => true,
        "true" => {
            annotation.warn("IST0133", "dry-run is for ALLOW and DENY only: this policy acts");
            false
        }
        "false" => false,
        other => {
            let help = "write \"true\" or \"false\"";
            annotation.error_with_help("IST0125", format!("{DRY_RUN}: {other:?} is not a boolean"), help);
            false
        }
    }
}

fn principals(rules: &Cursor<'_>) -> Vec<(String, At<String>)> {
    let sources = rules.items().flat_map(|rule| rule.field("from").items());
    let values = sources.flat_map(|from| from.field("source").field("principals").items());
    values.filter_map(|value| Some((value.path().to_owned(), value.text_at()?))).collect()
}

fn needs_token(rules: &Cursor<'_>) -> Option<(String, Place)> {
    let found = rules.items().find_map(|rule| token_source(&rule).or_else(|| token_condition(&rule)))?;
    Some((found.path().to_owned(), found.at()))
}

fn token_source<'a>(rule: &Cursor<'a>) -> Option<Cursor<'a>> {
    let mut sources = rule.field("from").items().map(|from| from.field("source"));
    sources.find_map(|source| Some(source.field("requestPrincipals")).filter(Cursor::is_present))
}

fn token_condition<'a>(rule: &Cursor<'a>) -> Option<Cursor<'a>> {
    let mut keys = rule.field("when").items().map(|condition| condition.field("key"));
    keys.find(|key| key.text().is_some_and(|text| text.starts_with("request.auth.")))
}
