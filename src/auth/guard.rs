//! All policies of one workload, and their verdict on one request.
//!
//! In Istio's order: a workload with a policy that cannot be read refuses everything; a DENY that matches refuses;
//! with ALLOW policies one must match. AUDIT and dry-run policies are only told of. CUSTOM policies say who else
//! is to be asked before all that.

use super::facts::Facts;
use super::jwt::Jwt;
use super::rule::Rule;
use std::sync::Arc;

/// Names one rule of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// `ns[default]-policy[orders]-rule[0]`, as Envoy has it.
    pub policy: Arc<str>,
    /// Response code details of a refusal by it.
    pub details: Arc<str>,
}

impl Id {
    /// No rule at all.
    pub(super) fn nobody() -> Id {
        Id { policy: "none".into(), details: "rbac_access_denied_matched_policy[none]".into() }
    }
}

/// What is asked of the callers of one workload.
#[derive(Debug)]
pub struct Guard {
    /// Unique.
    pub name: Arc<str>,
    /// What tokens must be like; `None`: nobody looks at them.
    pub jwt: Option<Jwt>,
    /// Why everything is refused: security objects that nobody can read.
    pub(super) broken: Option<Arc<str>>,
    pub(super) custom: Vec<Custom>,
    pub(super) audit: Box<[Rule]>,
    pub(super) deny: Box<[Rule]>,
    /// `Some`: one of them must match.
    pub(super) allow: Option<Box<[Rule]>>,
    pub(super) dry_deny: Box<[Rule]>,
    pub(super) dry_allow: Option<Box<[Rule]>>,
    pub(super) nobody: Id,
}

/// CUSTOM policies with the same provider.
#[derive(Debug)]
pub(super) struct Custom {
    pub(super) provider: Arc<str>,
    pub(super) rules: Vec<Rule>,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied<'g> {
    /// By which rule, or by none that allows.
    pub by: &'g Id,
    /// Why everything is refused, where it is.
    pub broken: Option<&'g str>,
}

/// What happened without an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'g> {
    /// An AUDIT rule matches.
    Audited(&'g Id),
    /// Dry-run policies would refuse.
    WouldDeny(&'g Id),
    /// Dry-run policies would let it pass.
    WouldAllow(&'g Id),
}

impl Guard {
    /// One that refuses everything.
    pub fn refusing(name: &str) -> Guard {
        Guard {
            name: name.into(),
            jwt: None,
            broken: Some(format!("guard {name} does not exist").into()),
            custom: Vec::new(),
            audit: [].into(),
            deny: [].into(),
            allow: None,
            dry_deny: [].into(),
            dry_allow: None,
            nobody: Id::nobody(),
        }
    }

    /// Whether there is anything to ask of anybody.
    pub fn demands_anything(&self) -> bool {
        self.jwt.is_some()
            || self.broken.is_some()
            || self.asks_others()
            || self.allow.is_some()
            || self.dry_allow.is_some()
            || [&self.audit, &self.deny, &self.dry_deny].iter().any(|rules| !rules.is_empty())
    }

    /// Whether everything is refused, whoever asks.
    #[inline]
    pub fn broken(&self) -> Option<Denied<'_>> {
        let broken = self.broken.as_deref()?;
        Some(Denied { by: &self.nobody, broken: Some(broken) })
    }

    /// Whether there are CUSTOM policies.
    #[inline]
    pub fn asks_others(&self) -> bool {
        !self.custom.is_empty()
    }

    /// Whether what passes may have another head than before.
    #[inline]
    pub fn changes_heads(&self) -> bool {
        self.jwt.is_some() || self.asks_others()
    }

    /// Whether tokens fill fields that routes may look at.
    #[inline]
    pub fn fills_fields(&self) -> bool {
        self.jwt.as_ref().is_some_and(Jwt::fills_fields)
    }

    /// The providers that are to be asked about this request, with the rule that says so.
    pub fn providers<'g>(&'g self, facts: &'g Facts<'_>) -> impl Iterator<Item = (&'g Arc<str>, &'g Id)> {
        self.custom.iter().filter_map(|custom| Some((&custom.provider, first(&custom.rules, facts)?)))
    }

    /// The verdict; `tell` learns what has no effect.
    ///
    /// # Errors
    /// The request is refused.
    #[inline]
    pub fn authorize<'g>(
        &'g self,
        facts: &Facts<'_>,
        mut tell: impl FnMut(Event<'g>),
    ) -> Result<(), Denied<'g>> {
        if let Some(denied) = self.broken() {
            return Err(denied);
        }
        for rule in self.audit.iter().filter(|rule| rule.matches(facts)) {
            tell(Event::Audited(&rule.id));
        }
        if !self.dry_deny.is_empty() || self.dry_allow.is_some() {
            tell(self.rehearse(facts));
        }
        if let Some(id) = first(&self.deny, facts) {
            return Err(Denied { by: id, broken: None });
        }
        match &self.allow {
            Some(allow) if first(allow, facts).is_none() => Err(Denied { by: &self.nobody, broken: None }),
            _ => Ok(()),
        }
    }

    /// What dry-run policies alone would say.
    fn rehearse(&self, facts: &Facts<'_>) -> Event<'_> {
        if let Some(id) = first(&self.dry_deny, facts) {
            return Event::WouldDeny(id);
        }
        match &self.dry_allow {
            None => Event::WouldAllow(&self.nobody),
            Some(allow) => first(allow, facts).map_or(Event::WouldDeny(&self.nobody), Event::WouldAllow),
        }
    }
}

#[inline]
fn first<'g>(rules: &'g [Rule], facts: &Facts<'_>) -> Option<&'g Id> {
    rules.iter().find(|rule| rule.matches(facts)).map(|rule| &rule.id)
}
