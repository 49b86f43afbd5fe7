//! Fetches the keys that tokens are verified with, off the path of any exchange.
//!
//! Each set is fetched at once when a configuration first names it, then as often as its server says. What cannot be
//! fetched keeps what is there. No redirect is followed, no body above a mebibyte read, and a key that tokens name and
//! that is not there asks for one fetch in ten seconds at most.

use crate::auth::KeyRing;
use crate::auth::jwt::{KeySet, Origin, Remote};
use crate::clock::{self, Duration, Instant};
use crate::telemetry::AuthMetrics;
use crate::telemetry::Telemetry;
use crate::tls;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HOST, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy_config::model::{ClientMode, ClientTls, Credential, TlsVersion};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Of one set, and of one document that says where it is.
const MOST: usize = 1 << 20;
/// Between fetches, where the server does not say.
const USUAL: Duration = Duration::from_secs(20 * 60);
/// What a server may say.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// After a failure, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Between fetches that a missing key asks for.
const MISSED: Duration = Duration::from_secs(10);

/// Fetches for as long as the process lives.
pub async fn run(ring: Arc<KeyRing>, telemetry: Arc<Telemetry>) {
    let mut sets: HashMap<(Origin, Duration), Set> = HashMap::new();
    // As many as there are sets, and each is one at a time.
    let (report, mut reports) = mpsc::unbounded_channel();
    let web = Arc::new(Web { keyring: tls::Keyring::new(None) });
    loop {
        let now = clock::now();
        let remotes = ring.remotes();
        sets.retain(|key, _| remotes.iter().any(|remote| name(remote) == *key));
        for remote in remotes {
            let set = sets.entry(name(&remote)).or_insert_with(|| Set::new(&remote, now));
            if !set.is_of(&remote) {
                // The rule went and came back: what was fetched is gone with it.
                *set = Set::new(&remote, now);
            }
            if remote.take_missed() {
                set.missed();
            }
            if set.busy || set.next > now {
                continue;
            }
            (set.busy, set.last) = (true, Some(now));
            let (report, web, tag) = (report.clone(), web.clone(), set.tag.clone());
            tokio::spawn(async move {
                let outcome = match tokio::time::timeout(remote.timeout, web.keys(&remote.origin, tag)).await
                {
                    Ok(outcome) => outcome,
                    Err(_) => Err(format!("no answer within {:?}", remote.timeout)),
                };
                let _ = report.send((remote, outcome));
            });
        }
        let next = sets.values().filter(|set| !set.busy).map(|set| set.next).min();
        let next = next.unwrap_or(now + USUAL);
        tokio::select! {
            () = ring.changed() => {}
            () = tokio::time::sleep_until(next.into()) => {}
            Some((remote, outcome)) = reports.recv() => {
                if let Some(set) = sets.get_mut(&name(&remote)).filter(|set| set.is_of(&remote)) {
                    set.take(&remote, outcome, clock::now(), &telemetry.metrics.auth);
                }
            }
        }
    }
}

fn name(remote: &Remote) -> (Origin, Duration) {
    (remote.origin.clone(), remote.timeout)
}

/// What is known of one set.
#[derive(Debug)]
struct Set {
    /// Where it is put.
    of: Weak<Remote>,
    next: Instant,
    last: Option<Instant>,
    busy: bool,
    tag: Option<HeaderValue>,
    /// The text in place.
    text: Bytes,
    failures: u32,
}

impl Set {
    fn new(of: &Arc<Remote>, now: Instant) -> Set {
        let of = Arc::downgrade(of);
        Set { of, next: now, last: None, busy: false, tag: None, text: Bytes::new(), failures: 0 }
    }

    fn is_of(&self, remote: &Arc<Remote>) -> bool {
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(remote))
    }

    /// A token names a key that is not there.
    fn missed(&mut self) {
        if let Some(last) = self.last {
            self.next = self.next.min(last + MISSED);
        }
    }

    fn take(
        &mut self,
        remote: &Remote,
        outcome: Result<Answer, String>,
        now: Instant,
        metrics: &AuthMetrics,
    ) {
        self.busy = false;
        let taken = outcome.and_then(|answer| match answer.text {
            Some(text) if text != self.text || !remote.is_filled() => {
                let keys = KeySet::parse(&text).map_err(|mistake| mistake.to_string())?;
                remote.put(keys);
                (self.text, self.tag) = (text, answer.tag);
                Ok(answer.fresh)
            }
            _ => Ok(answer.fresh),
        });
        match taken {
            Ok(fresh) => {
                metrics.keys_fetched.inc();
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("keys of {} are fetched again", said(&remote.origin));
                }
                self.next = now + fresh;
            }
            Err(why) => {
                metrics.keys_failed.inc();
                let left = if remote.is_filled() { "the last ones stay" } else { "every token of it fails" };
                if self.failures == 0 {
                    tracing::warn!("keys of {} cannot be fetched: {why}; {left}", said(&remote.origin));
                }
                self.failures = self.failures.saturating_add(1);
                self.next = now + AGAIN.1.min(AGAIN.0 * 2u32.saturating_pow(self.failures.min(10) - 1));
            }
        }
    }
}

fn said(origin: &Origin) -> &str {
    match origin {
        Origin::Uri(uri) => uri,
        Origin::Issuer(issuer) => issuer,
    }
}

/// What a server said.
struct Answer {
    /// `None`: nothing has changed.
    text: Option<Bytes>,
    tag: Option<HeaderValue>,
    /// How long it holds.
    fresh: Duration,
}

/// The way out.
struct Web {
    keyring: tls::Keyring,
}

impl Web {
    async fn keys(&self, origin: &Origin, tag: Option<HeaderValue>) -> Result<Answer, String> {
        let uri = match origin {
            Origin::Uri(uri) => uri.clone(),
            Origin::Issuer(issuer) => self.discover(issuer).await?,
        };
        self.get(&uri, tag).await
    }

    /// The `jwks_uri` of an issuer.
    async fn discover(&self, issuer: &str) -> Result<String, String> {
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let text = self.get(&place, None).await?.text.unwrap_or_default();
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| format!("{place} is not JSON: {error}"))?;
        let uri = json.get("jwks_uri").and_then(|uri| uri.as_str());
        let uri = uri.ok_or_else(|| format!("{place} has no jwks_uri"))?;
        // What is vouched for by a certificate must not send us where nothing is.
        if issuer.starts_with("https://") && !uri.starts_with("https://") {
            return Err(format!("{place} says {uri}, which is not encrypted"));
        }
        Ok(uri.to_owned())
    }

    async fn get(&self, place: &str, tag: Option<HeaderValue>) -> Result<Answer, String> {
        let uri: Uri = place.parse().map_err(|error| format!("{place} is no URI: {error}"))?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(format!("{place} names no host"));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{place} is neither http nor https")),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, authority.as_str())
            .header(USER_AGENT, concat!("pilotlight/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let stream = dial(bare, port).await?;
        if !secure {
            return ask(stream, request).await;
        }
        let terms = ClientTls {
            mode: ClientMode::Simple,
            credential: Credential::default(),
            names: Vec::new(),
            sni: Some(bare.to_owned()),
            insecure: false,
        };
        // Nobody of the mesh is spoken to: no domain is trusted.
        let trust = tls::Trust { domains: Vec::new(), oldest: TlsVersion::V12 };
        let (client, problem) = self.keyring.client(bare, &terms, tls::Protocols::Http1, &trust);
        if let Some(problem) = problem {
            return Err(problem);
        }
        let stream = client.connect(bare, stream, clock::wall()).await.map_err(|(_, why)| why)?;
        ask(stream, request).await
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| format!("looking up {host}: {error}"))?;
    let mut last = format!("{host} has no address that may be dialled");
    for address in found.filter(may_dial) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Link-local addresses are where clouds keep credentials.
fn may_dial(address: &SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

async fn ask<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // Both end with the fetch, however that ends.
    let talk = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let fresh = fresh(&head.headers);
        let tag = head.headers.get(ETAG).cloned();
        match head.status {
            StatusCode::NOT_MODIFIED => Ok(Answer { text: None, tag, fresh }),
            StatusCode::OK => {
                let body = Limited::new(body, MOST).collect().await;
                let text = body.map_err(|error| format!("its body: {error}"))?.to_bytes();
                Ok(Answer { text: Some(text), tag, fresh })
            }
            status => Err(format!("it answers {status}")),
        }
    };
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The answer may be there whole when the connection ends.
        _ = &mut connection => talk.await,
    }
}

/// How long an answer holds, as it says itself within bounds.
fn fresh(headers: &HeaderMap) -> Duration {
    let words = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut words = words.flat_map(|text| text.split(',')).map(str::trim);
    let age = words.find_map(|word| word.strip_prefix("max-age=")?.parse().ok());
    age.map_or(USUAL, |seconds| Duration::from_secs(seconds).clamp(BOUNDS.0, BOUNDS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0"}]}"#;

    fn answer(text: &'static str) -> Result<Answer, String> {
        Ok(Answer { text: Some(Bytes::from_static(text.as_bytes())), tag: None, fresh: USUAL })
    }

    #[test]
    fn what_fails_keeps_what_is_there_and_is_tried_again_with_pauses() {
        let ring = KeyRing::default();
        let remote = ring.remote(Origin::Uri("http://a".into()), AGAIN.0);
        let (now, metrics) = (clock::now(), AuthMetrics::default());
        let mut set = Set::new(&remote, now);
        set.take(&remote, Err("down".into()), now, &metrics);
        assert!(!remote.is_filled() && set.next == now + AGAIN.0);
        set.take(&remote, answer("nonsense"), now, &metrics);
        assert!(!remote.is_filled() && set.next == now + 2 * AGAIN.0);
        set.take(&remote, answer(KEYS), now, &metrics);
        assert!(remote.is_filled() && set.next == now + USUAL);
        for _ in 0..20 {
            set.take(&remote, Err("down".into()), now, &metrics);
        }
        assert!(remote.is_filled() && set.next == now + AGAIN.1);
        assert_eq!((metrics.keys_fetched.get(), metrics.keys_failed.get()), (1, 22));
    }

    #[test]
    fn a_missing_key_asks_for_one_fetch_in_ten_seconds() {
        let now = clock::now();
        let remote = KeyRing::default().remote(Origin::Uri("http://a".into()), AGAIN.0);
        let mut set = Set { next: now + USUAL, last: Some(now), ..Set::new(&remote, now) };
        set.missed();
        assert_eq!(set.next, now + MISSED);
        set.missed();
        assert_eq!(set.next, now + MISSED);
    }

    #[test]
    fn how_long_keys_hold_is_bounded() {
        let rows = [
            ("max-age=300", 300),
            ("public, max-age=3600, must-revalidate", 3600),
            ("max-age=1", 60),
            ("max-age=99999999", 24 * 3600),
            ("no-store", 20 * 60),
            ("max-age=soon", 20 * 60),
        ];
        for (text, seconds) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
            assert_eq!(fresh(&headers).as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn link_local_addresses_are_never_dialled() {
        for (address, allowed) in
            [("169.254.169.254:80", false), ("[fe80::1]:80", false), ("127.0.0.1:80", true)]
        {
            assert_eq!(may_dial(&address.parse().unwrap()), allowed, "{address}");
        }
    }
}
