//! VirtualService: what requests to some hosts must look like, and where they then go.

mod decode;
mod retries;
mod shape;
mod tls;

pub(crate) use decode::decode;
pub(crate) use shape::SPEC;

use crate::api::Meta;
use crate::model::{HeaderOps, RedirectPort, RetryOn, StringMatch};
use crate::report::{At, Place};
use std::time::Duration;

/// `networking.istio.io` VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Identity.
    pub meta: Meta,
    /// `spec.hosts`, lower case, short names not expanded. Empty for one that others delegate to.
    pub hosts: Vec<At<String>>,
    /// `spec.gateways` as written; empty means `mesh`.
    pub gateways: Vec<At<String>>,
    /// `spec.http`, in the order they are tried. Empty where there is only `tls`, or `tcp`, which does
    /// not act yet.
    pub http: Vec<HttpRule>,
    /// `spec.tls`, in the order they are tried: connections that pass through gateways unopened.
    pub tls: Vec<TlsRule>,
    /// `spec.exportTo` as written; does not act yet.
    pub export_to: Vec<At<String>>,
}

/// `spec.http[]`. Its path in the object is `spec.http[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Where it begins.
    pub at: Place,
    /// `name`.
    pub name: Option<String>,
    /// `match`: any of them; empty: always.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: RuleAction,
    /// `timeout`.
    pub timeout: Option<At<Duration>>,
    /// `retries`: absent means Istio's default, `{}` means none.
    pub retries: Option<Retries>,
    /// `rewrite`.
    pub rewrite: Option<Rewrite>,
    /// `headers`.
    pub headers: HeaderOps,
}

/// `spec.tls[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRule {
    /// `match`: any of them.
    pub matches: Vec<TlsMatch>,
    /// `route`: at least one; weights as of HTTP rules.
    pub route: Vec<HttpDestination>,
}

/// `spec.tls[].match[]`: all conditions must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsMatch {
    /// `sniHosts`, lower case: exact, `*.suffix` or `*`.
    pub names: Vec<At<String>>,
    /// `port`.
    pub port: Option<u16>,
    /// `gateways`: instead of the object's.
    pub gateways: Vec<At<String>>,
    /// `destinationSubnets` are written: it cannot be told, so the block must not match.
    pub subnets: bool,
}

/// What a rule does; exactly one is written.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleAction {
    /// `route`: at least one; weights valid (none negative; of several at least one positive).
    Route(Vec<HttpDestination>),
    /// `redirect`.
    Redirect(Redirect),
    /// `directResponse`.
    DirectResponse(DirectResponse),
    /// `delegate`: the rules stand in another object. Does not act yet: a rule that matches so must not
    /// fall to a later one.
    Delegate(Place),
}

/// `spec.http[].match[]`: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// Where it begins.
    pub at: Place,
    /// `name`.
    pub name: Option<String>,
    /// `uri`.
    pub uri: Option<StringMatch>,
    /// `ignoreUriCase`.
    pub ignore_uri_case: bool,
    /// `scheme`.
    pub scheme: Option<StringMatch>,
    /// `method`.
    pub method: Option<StringMatch>,
    /// `authority`.
    pub authority: Option<StringMatch>,
    /// `headers`; lower-case names, pseudo headers left out.
    pub headers: Vec<(String, StringMatch)>,
    /// `withoutHeaders`; lower-case names.
    pub without_headers: Vec<(String, StringMatch)>,
    /// `queryParams`.
    pub query: Vec<(String, StringMatch)>,
    /// `port`: the port the client dialled.
    pub port: Option<At<u16>>,
    /// `gateways`: instead of the object's.
    pub gateways: Vec<At<String>>,
    /// `sourceLabels` or `sourceNamespace` is written: conditions on the calling workload. Istio ignores
    /// them at gateways; on the mesh listener they cannot be decided yet, so the block must not match.
    pub source: Option<Place>,
    /// A condition on claims of a verified token is written (`@request.auth.claims…`). There are no
    /// verified tokens yet, so the block must not match.
    pub claims: Option<Place>,
}

/// `spec.http[].route[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpDestination {
    /// Where it begins.
    pub at: Place,
    /// `destination.host`, lower case, as written.
    pub host: At<String>,
    /// `destination.subset`.
    pub subset: Option<At<String>>,
    /// `destination.port.number`.
    pub port: Option<At<u16>>,
    /// `weight`; 0 where it is not written.
    pub weight: u32,
    /// `headers`.
    pub headers: HeaderOps,
}

/// `spec.http[].redirect`.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// `uri`: the new path.
    pub uri: Option<String>,
    /// `prefixRewrite`: instead of the matched prefix; every match of the rule is then a prefix.
    pub prefix_rewrite: Option<String>,
    /// `authority`.
    pub authority: Option<String>,
    /// `port` or `derivePort`.
    pub port: Option<RedirectPort>,
    /// `scheme`, lower case.
    pub scheme: Option<String>,
    /// `redirectCode`: 301 (default), 302, 303, 307 or 308.
    pub code: u16,
}

/// `spec.http[].directResponse`.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    /// `status`, 200 to 599.
    pub status: u16,
    /// `body`, decoded.
    pub body: Vec<u8>,
}

/// `spec.http[].retries`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retries {
    /// `attempts`; 0 where it is not written: none.
    pub attempts: u32,
    /// `perTryTimeout`.
    pub per_try_timeout: Option<At<Duration>>,
    /// `retryOn`; `None`: Istio's default conditions. The codes are those written as numbers.
    pub retry_on: Option<At<(RetryOn, Vec<u16>)>>,
    /// `backoff`.
    pub backoff: Option<Duration>,
    /// `retryIgnorePreviousHosts`; default true.
    pub ignore_previous_hosts: bool,
}

/// `spec.http[].rewrite`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    /// `uri`.
    pub uri: Option<String>,
    /// `uriRegexRewrite`: pattern (known to compile) and substitution.
    pub uri_regex: Option<(String, String)>,
    /// `authority`.
    pub authority: Option<String>,
}
