//! Calls the echo makes on behalf of a request: through the proxy its environment names, or straight.
//!
//! An ordinary program's HTTP client, kept small: HTTP/1.1 over plain TCP, a few idle connections, no redirects.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::ask::percent_decoded;

/// The longest a call may take, connecting and a cold start on the way included.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest answer that is nested, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;
/// Idle connections kept for each address, and addresses for which any are kept.
const MOST_IDLE: usize = 32;
const MOST_ADDRESSES: usize = 64;
/// What a request carries on to the calls it causes, so that a trace holds together.
const TRACE_HEADERS: [&str; 10] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-pilotlight-lineage",
];

type Sender = SendRequest<Empty<Bytes>>;

/// The proxy the environment names, and the hosts reached without it.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    proxy: Option<String>,
    /// What its URL says before the `@`, as the proxy is told it.
    credentials: Option<HeaderValue>,
    direct: Vec<String>,
}

impl Proxies {
    /// Reads `http_proxy` and `no_proxy`, else their upper-case forms, from `env`.
    pub(super) fn from_variables(env: impl Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| env(name).filter(|v| !v.is_empty()));
        let proxy = first(["http_proxy", "HTTP_PROXY"]).and_then(|url| {
            let rest = url.strip_prefix("http://").unwrap_or(&url);
            rest.trim_end_matches('/').parse::<Authority>().ok()
        });
        let credentials = proxy.as_ref().and_then(credentials);
        let proxy = proxy.map(|at| format!("{}:{}", at.host(), at.port_u16().unwrap_or(80)));
        let direct = first(["no_proxy", "NO_PROXY"]).unwrap_or_default();
        let direct = direct.split(',').map(|host| host.trim().to_ascii_lowercase());
        Proxies { proxy, credentials, direct: direct.filter(|host| !host.is_empty()).collect() }
    }

    /// The proxy for this host and port, if it is not to be reached straight. An entry of `no_proxy` is a host, a
    /// domain (which covers what is below it), either with a port, or `*`.
    fn towards(&self, host: &str, port: u16) -> Option<&str> {
        let proxy = self.proxy.as_deref()?;
        let host = host.to_ascii_lowercase();
        let covered = |entry: &String| {
            let (entry, wanted) = match entry.rsplit_once(':').and_then(|(h, p)| Some((h, p.parse().ok()?))) {
                Some((entry, wanted)) => (entry, Some(wanted)),
                None => (entry.as_str(), None::<u16>),
            };
            let domain = entry.trim_start_matches('.');
            let below = host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            wanted.is_none_or(|wanted| wanted == port) && (entry == "*" || below)
        };
        if self.direct.iter().any(covered) { None } else { Some(proxy) }
    }
}

/// `user:password` before the `@`, for `Proxy-Authorization`.
fn credentials(proxy: &Authority) -> Option<HeaderValue> {
    let (user, _) = proxy.as_str().rsplit_once('@')?;
    // Only in a query does `+` mean a blank.
    let user = percent_decoded(&user.replace('+', "%2B")).ok()?;
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(user))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a call brought.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// The calling side of one worker.
pub(super) struct Caller {
    proxies: Proxies,
    idle: Mutex<HashMap<String, Vec<Sender>>>,
}

impl Caller {
    pub(super) fn new(proxies: Proxies) -> Caller {
        Caller { proxies, idle: Mutex::default() }
    }

    /// GETs `url` with the trace headers of `cause`; an error is a sentence for the answer.
    pub(super) async fn call(&self, url: &str, cause: &HeaderMap) -> Result<Answered, String> {
        match tokio::time::timeout(CALL_TIMEOUT, self.call_at_leisure(url, cause)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
        }
    }

    async fn call_at_leisure(&self, url: &str, cause: &HeaderMap) -> Result<Answered, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err("only http:// URLs can be called".into());
        }
        let authority = uri.authority().ok_or("the URL names no host")?.clone();
        let port = authority.port_u16().unwrap_or(80);
        let mut credentials = None;
        let (address, target) = match self.proxies.towards(authority.host(), port) {
            Some(proxy) => {
                credentials = self.proxies.credentials.clone();
                (proxy.to_owned(), uri)
            }
            None => {
                let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
                (format!("{}:{port}", authority.host()), Uri::from(path))
            }
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = target;
        let host = header::HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        if let Some(credentials) = credentials {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials);
        }
        for name in TRACE_HEADERS {
            for value in cause.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        self.exchange(address, request).await
    }

    async fn exchange(&self, address: String, request: Request<Empty<Bytes>>) -> Result<Answered, String> {
        let mut sender = match self.take_idle(&address) {
            Some(sender) => sender,
            None => connect(&address).await?,
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut unsent) => match unsent.take_message() {
                // The idle connection was closed before anything was written: the request is still ours.
                Some(request) => {
                    sender = connect(&address).await?;
                    sender.send_request(request).await.map_err(|error| format!("{address}: {error}"))?
                }
                None => return Err(format!("{address}: {}", unsent.into_error())),
            },
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| format!("{address}: body of the answer: {error}"))?.to_bytes();
        self.keep(address, sender);
        Ok(Answered { status, body })
    }

    fn take_idle(&self, address: &str) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let senders = idle.get_mut(address)?;
        senders.retain(|sender| !sender.is_closed());
        senders.pop_if(|sender| sender.is_ready())
    }

    fn keep(&self, address: String, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST_ADDRESSES || idle.contains_key(&address) {
            let senders = idle.entry(address).or_default();
            if senders.len() < MOST_IDLE {
                senders.push(sender);
            }
        }
    }
}

async fn connect(address: &str) -> Result<Sender, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    // Without it a call is only slower.
    let _ = stream.set_nodelay(true);
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| format!("{address}: {error}"))?;
    // Its errors reach whoever waits for the answer.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_which_hosts_are_called_through_the_proxy() {
        let check = |variables: &[(&str, &str)], host, port, expected: Option<&str>| {
            let proxies = Proxies::from_variables(|name| {
                variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(proxies.towards(host, port), expected, "{variables:?} {host}:{port}");
        };
        let mesh = ("http_proxy", "http://127.0.0.1:15001");
        let proxy = Some("127.0.0.1:15001");
        check(&[], "b", 80, None);
        check(&[mesh], "b", 80, proxy);
        check(&[("HTTP_PROXY", "127.0.0.1:15001/")], "b", 80, proxy);
        check(&[("http_proxy", ""), ("HTTP_PROXY", "http://p")], "b", 80, Some("p:80"));
        check(&[mesh, ("no_proxy", "localhost,127.0.0.1")], "localhost", 80, None);
        check(&[mesh, ("NO_PROXY", " localhost , 127.0.0.1")], "127.0.0.1", 8080, None);
        check(&[mesh, ("no_proxy", "example.com")], "A.Example.com", 80, None);
        check(&[mesh, ("no_proxy", ".example.com")], "badexample.com", 80, proxy);
        check(&[mesh, ("no_proxy", "b:81")], "b", 80, proxy);
        check(&[mesh, ("no_proxy", "b:81")], "b", 81, None);
        check(&[mesh, ("no_proxy", "*")], "b", 81, None);
        check(&[("http_proxy", "http://a%2Fb:c@127.0.0.1:15001")], "b", 80, proxy);
    }

    #[test]
    fn a_user_in_the_proxys_url_is_told_to_it() {
        for (url, expected) in [
            ("http://a.b:c@127.0.0.1:15001", Some("Basic YS5iOmM=")),
            ("http://a%2Fb:c@127.0.0.1:15001/", Some("Basic YS9iOmM=")),
            ("http://127.0.0.1:15001", None),
        ] {
            let proxies = Proxies::from_variables(|name| (name == "http_proxy").then(|| url.to_owned()));
            let found = proxies.credentials.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{url}");
        }
    }
}
