//! Look-ups as this host does them: `/etc/hosts`, then the servers of `/etc/resolv.conf`.

use super::{Answer, Lookup};
use crate::clock::{self, Duration};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::OnceCell;

/// For one server to answer once.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Tries after the first.
const ATTEMPTS: usize = 1;
/// Names kept by the resolver itself.
const CACHE: u64 = 256;
/// What does not exist is asked for again after this, whatever the zone says.
const MAX_NEGATIVE: Duration = Duration::from_secs(5);

/// The resolver of this host, built at the first look-up: it costs memory that most proxies never need.
#[derive(Default)]
pub struct System {
    resolver: OnceCell<TokioResolver>,
}

impl Lookup for System {
    async fn lookup(&self, name: String) -> Result<Answer, String> {
        let resolver = self.resolver.get_or_try_init(|| async { build() }).await?;
        // With a final dot the search list is left alone, which would mean up to five further questions.
        let full = name.contains('.') && !name.ends_with('.');
        let asked = if full { format!("{name}.") } else { name };
        let found = resolver.lookup_ip(asked).await.map_err(|error| error.to_string())?;
        let ttl = found.valid_until().saturating_duration_since(clock::now());
        Ok(Answer { addresses: found.iter().collect(), ttl })
    }
}

fn build() -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // Without servers `/etc/hosts` and localhost still work.
        tracing::warn!(%error, "/etc/resolv.conf cannot be used; only /etc/hosts is");
        let none = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        TokioResolver::builder_with_config(none, TokioRuntimeProvider::default())
    });
    tune(builder.options_mut());
    builder.build().map_err(|error| format!("no resolver: {error}"))
}

fn tune(options: &mut ResolverOpts) {
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = CACHE;
    options.negative_max_ttl = Some(MAX_NEGATIVE);
    // As Istio in a cluster of one family: an IPv6 address that leads nowhere would fail its share.
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_needs_no_server() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let system = System::default();
        let answer = runtime.block_on(system.lookup("localhost".to_owned())).unwrap();
        assert!(!answer.addresses.is_empty());
        assert!(answer.addresses.iter().all(std::net::IpAddr::is_loopback), "{answer:?}");
    }
}
