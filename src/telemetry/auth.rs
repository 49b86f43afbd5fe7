//! Counts of what guards decide.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of authentication and authorization; refusals are counted as faults.
#[derive(Debug, Default)]
pub struct AuthMetrics {
    /// AUDIT rules that matched.
    pub audited: Counter,
    /// Requests that dry-run policies would have refused.
    pub would_deny: Counter,
    /// Requests that dry-run policies would have let pass.
    pub would_allow: Counter,
    /// Requests about which a provider was asked.
    pub asked: Counter,
    /// Tokens whose signature was verified.
    pub tokens_verified: Counter,
    /// Tokens that had been verified before.
    pub tokens_remembered: Counter,
    /// Tokens that did not count.
    pub tokens_refused: Counter,
    /// Tokens remembered now, by all workers.
    pub tokens_kept: Gauge,
    /// Sets of keys that were fetched.
    pub keys_fetched: Counter,
    /// Fetches of keys that failed; what was there stays.
    pub keys_failed: Counter,
    /// Lines of the audit stream that were not written.
    pub audit_dropped: Counter,
}

impl AuthMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("pilotlight_{name}"), help, counter.clone());
        };
        counter("authz_audited", "Matches of AUDIT policies", &self.audited);
        counter("authz_dry_run_denied", "Requests that dry-run policies would refuse", &self.would_deny);
        counter("authz_dry_run_allowed", "Requests that dry-run policies would let pass", &self.would_allow);
        counter("authz_asked", "Requests about which a provider was asked", &self.asked);
        counter("jwt_verified", "Tokens whose signature was verified", &self.tokens_verified);
        counter("jwt_remembered", "Tokens that had been verified before", &self.tokens_remembered);
        counter("jwt_refused", "Tokens that do not count", &self.tokens_refused);
        registry.register("pilotlight_jwt_kept", "Tokens remembered now", self.tokens_kept.clone());
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("pilotlight_{name}"), help, counter.clone());
        };
        counter("jwks_fetched", "Sets of keys fetched", &self.keys_fetched);
        counter("jwks_fetch_failed", "Fetches of keys that failed", &self.keys_failed);
        counter(
            "audit_dropped_lines",
            "Lines of the audit stream that were not written",
            &self.audit_dropped,
        );
    }
}
