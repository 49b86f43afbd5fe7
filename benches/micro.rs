//! What the steps of an exchange cost, one by one, in nanoseconds: finding the route, preparing headers, picking an
//! endpoint, waiting for one.
//!
//! `cargo bench --bench micro [FILTER]`. The whole path is measured by `hop`; this says where a change of it comes
//! from. No step here opens a socket.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use divan::{Bencher, black_box};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use pilotlight::activator::{Ask, Bell, Hold, HoldLimits, Parked, Ticket};
use pilotlight::clock;
use pilotlight::cluster::{Endpoint, Members, Rng, Taken};
use pilotlight::http::{Seen, headers, response};
use pilotlight::route::{Facts, Head, HeaderChange, Hosts, Matcher, PathChange, Side, Split};
use proxy_config::model::{Balance, Match, MessageOps, PathRewrite, StringMatch};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    divan::main();
}

/// The fields of a request as a browser behind a gateway sends it.
fn fields() -> HeaderMap {
    let fields = [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cookie", "session=0123456789abcdef; theme=dark"),
        ("x-request-id", "8f14e45f-ceea-467f-a0e6-1c3c2b4d5e6f"),
        ("x-version", "canary"),
        ("connection", "keep-alive"),
    ];
    let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    fields.into_iter().map(field).collect()
}

fn head(headers: &HeaderMap) -> Head<'_> {
    Head {
        method: &Method::GET,
        path: "/api/orders/4711",
        query: Some("page=2&size=50"),
        authority: "shop.example.com",
        scheme: "http",
        headers,
    }
}

mod route_matching {
    use super::*;

    /// Routes of which only the last holds.
    fn routes(count: usize, condition: impl Fn(usize) -> Match) -> Vec<Matcher> {
        let last = Match { uri: Some(StringMatch::Prefix("/api/".into())), ..Match::default() };
        let others = (1..count).map(condition);
        others.chain([last]).map(|wanted| Matcher::compile(&wanted).expect("a lawful match")).collect()
    }

    fn find(bencher: Bencher, routes: &[Matcher]) {
        let headers = fields();
        bencher.bench_local(|| {
            let head = head(black_box(&headers));
            routes.iter().position(|route| route.matches(&head)).expect("the last one")
        });
    }

    #[divan::bench(args = [1, 10, 100])]
    fn the_last_of_prefixes(bencher: Bencher, count: usize) {
        let prefix = |n| StringMatch::Prefix(format!("/api/orders{n}/"));
        find(bencher, &routes(count, |n| Match { uri: Some(prefix(n)), ..Match::default() }));
    }

    #[divan::bench(args = [10, 100])]
    fn the_last_of_regexes(bencher: Bencher, count: usize) {
        let regex = |n| StringMatch::Regex(format!("/api/v{n}/[a-z]+/[0-9]+"));
        find(bencher, &routes(count, |n| Match { uri: Some(regex(n)), ..Match::default() }));
    }

    #[divan::bench(args = [10, 100])]
    fn the_last_of_header_conditions(bencher: Bencher, count: usize) {
        let header = |n| vec![("x-version".to_owned(), StringMatch::Exact(format!("v{n}")))];
        find(bencher, &routes(count, |n| Match { headers: header(n), ..Match::default() }));
    }

    #[divan::bench]
    fn a_canary_by_header_regex_and_query(bencher: Bencher) {
        let wanted = Match {
            uri: Some(StringMatch::Regex("/api/orders/[0-9]+".into())),
            headers: vec![("x-version".into(), StringMatch::Exact("canary".into()))],
            query: vec![("size".into(), StringMatch::Exact("50".into()))],
            ..Match::default()
        };
        find(bencher, &[Matcher::compile(&wanted).expect("a lawful match")]);
    }

    #[divan::bench(args = ["host500.example.com", "Host500.Example.COM", "a.b.wild.example.com", "other.test"])]
    fn a_host_among_a_thousand(bencher: Bencher, host: &str) {
        let exact = (0..1000).map(|n| ([format!("host{n}.example.com")], n));
        let wild = [(["*.wild.example.com".to_owned()], 1000), (["*".to_owned()], 1001)];
        let hosts = Hosts::new(exact.chain(wild));
        bencher.bench_local(|| hosts.find(black_box(host)).copied());
    }

    #[divan::bench]
    fn a_split_of_three(bencher: Bencher) {
        let split = Split::compile(&[80, 15, 5]).expect("lawful weights");
        let mut rng = Rng::with_seed(1);
        bencher.bench_local(|| split.pick(rng.u64(..)));
    }
}

mod header_preparation {
    use super::*;

    /// Hop-by-hop fields out, the request id and what is known of the client in.
    #[divan::bench(args = [false, true])]
    fn a_request_as_a_gateway(bencher: Bencher, gateway: bool) {
        let peer = headers::Peer::new(IpAddr::from([10, 0, 0, 7]));
        let forwarding = Default::default();
        let terms =
            headers::Terms { gateway, peer: &peer, secure: false, vouched: None, forwarding, upgrade: None };
        let (fields, mut ids) = (fields(), headers::RequestIds::new(Rng::with_seed(1)));
        bencher.with_inputs(|| fields.clone()).bench_local_values(|mut fields| {
            let seen = Seen::of(&fields);
            headers::prepare(&mut fields, seen, &terms, &mut ids);
            fields
        });
    }

    #[divan::bench]
    fn a_response(bencher: Bencher) {
        let fields = [("content-type", "application/json"), ("content-length", "64"), ("server", "app")];
        let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let fields: HeaderMap = fields.into_iter().map(field).collect();
        let server = HeaderValue::from_static("istio-envoy");
        let terms = response::Terms {
            service_time: Some(clock::Duration::from_millis(3)),
            server: Some(&server),
            ..Default::default()
        };
        bencher.with_inputs(|| fields.clone()).bench_local_values(|mut fields| {
            let seen = Seen::of(&fields);
            response::prepare(&mut fields, seen, &terms);
            fields
        });
    }

    fn facts() -> Facts<'static> {
        Facts {
            downstream_remote: SocketAddr::from(([10, 0, 0, 7], 54321)),
            downstream_local: SocketAddr::from(([10, 0, 0, 1], 8080)),
            protocol: Version::HTTP_11,
            started: clock::wall(),
            hostname: "node",
            method: &Method::GET,
            target: "/api/orders/4711?page=2&size=50",
            authority: "shop.example.com",
            scheme: "http",
            request: None,
            upstream_host: None,
            upstream_cluster: None,
            status: None,
        }
    }

    fn change(bencher: Bencher, ops: &MessageOps) {
        let change = HeaderChange::compile(ops, Side::Request).expect("lawful changes");
        let (headers, facts) = (fields(), facts());
        bencher.with_inputs(|| headers.clone()).bench_local_values(|mut headers| {
            change.apply(&mut headers, &facts);
            headers
        });
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[divan::bench]
    fn no_change(bencher: Bencher) {
        change(bencher, &MessageOps::default());
    }

    #[divan::bench]
    fn one_set_one_added_one_removed(bencher: Bencher) {
        let ops = MessageOps {
            set: vec![pair("x-version", "v2")],
            add: vec![pair("x-route", "canary")],
            remove: vec!["cookie".into()],
        };
        change(bencher, &ops);
    }

    #[divan::bench]
    fn a_value_filled_from_the_exchange(bencher: Bencher) {
        let value = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %PROTOCOL% %REQ(x-request-id)%";
        change(bencher, &MessageOps { set: vec![pair("x-from", value)], ..MessageOps::default() });
    }

    #[divan::bench]
    fn a_path_prefix_rewritten(bencher: Bencher) {
        let wanted = PathRewrite::Prefix { from_len: "/api".len(), with: "/v2".into() };
        let rewrite = PathChange::compile(&wanted).expect("a lawful rewrite");
        let target = "/api/orders/4711?page=2&size=50".parse().expect("a lawful target");
        bencher.bench_local(|| rewrite.apply(black_box(&target)));
    }
}

mod pick {
    use super::*;

    fn members(count: u16) -> Arc<Members> {
        let members = Members::given("bench".into());
        let all: Vec<_> = (1..=count).map(|port| (SocketAddr::from(([127, 0, 0, 1], port)), 1)).collect();
        members.replace(&all);
        members
    }

    fn take(bencher: Bencher, count: u16, balance: Balance) {
        let members = members(count);
        let mut rng = Rng::with_seed(1);
        bencher.bench_local(|| members.take(balance, None, &mut rng, &[]).expect("a free member"));
    }

    #[divan::bench(args = [1, 3, 100])]
    fn least_request(bencher: Bencher, count: u16) {
        take(bencher, count, Balance::LeastRequest);
    }

    #[divan::bench(args = [3, 100])]
    fn round_robin(bencher: Bencher, count: u16) {
        take(bencher, count, Balance::RoundRobin);
    }

    #[divan::bench(args = [3, 100])]
    fn random(bencher: Bencher, count: u16) {
        take(bencher, count, Balance::Random);
    }

    /// A running function with a limit: nobody waits, so nobody parks.
    #[divan::bench]
    fn of_a_running_function(bencher: Bencher) {
        let hold = Hold::new(HoldLimits::default(), Arc::new(Bell::new()), Arc::default());
        let members = Members::started("bench".into(), hold);
        for port in 1..=3 {
            members.insert(Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)), "i".into(), 1, 10));
        }
        let mut rng = Rng::with_seed(1);
        bencher.bench_local(|| {
            match members
                .take_or_wait(Balance::LeastRequest, None, &mut rng, &[], || Ok(Ask::at(clock::now())))
            {
                Ok(Taken::Slot(slot)) => slot,
                Ok(Taken::Wait(_)) | Err(_) => unreachable!("every place was given back"),
            }
        });
    }
}

mod park {
    use super::*;

    fn hold() -> Arc<Hold<u32>> {
        Hold::new(HoldLimits::default(), Arc::new(Bell::new()), Arc::default())
    }

    fn wait(hold: &Arc<Hold<u32>>) -> Ticket<u32> {
        match hold.park(Ask::at(clock::now()), || None) {
            Ok(Parked::Wait(ticket)) => ticket,
            Ok(Parked::Now(_)) | Err(_) => unreachable!("there is nothing to grant, and room in the queue"),
        }
    }

    fn look(ticket: &mut Ticket<u32>) -> bool {
        matches!(Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
    }

    /// Parked, looked at, granted, taken: a whole wait behind so many others.
    #[divan::bench(args = [0, 1000])]
    fn in_and_out_of_a_line_of(bencher: Bencher, others: usize) {
        let hold = hold();
        let mut line: std::collections::VecDeque<_> = (0..others).map(|_| wait(&hold)).collect();
        bencher.bench_local(|| {
            let mut ticket = wait(&hold);
            look(&mut ticket);
            line.push_back(ticket);
            let mut left = 1;
            hold.offer(clock::now(), || (std::mem::take(&mut left) == 1).then_some(7));
            let mut oldest = line.pop_front().expect("the one just added, at least");
            assert!(look(&mut oldest));
        });
    }

    /// The client went away before its turn.
    #[divan::bench]
    fn leave_from_the_end_of_a_line_of_1000(bencher: Bencher) {
        let hold = hold();
        let _line: Vec<_> = (0..1000).map(|_| wait(&hold)).collect();
        bencher.bench_local(|| drop(wait(&hold)));
    }

    /// 200 that wait are all served by one offer.
    #[divan::bench]
    fn a_burst_of_200(bencher: Bencher) {
        let hold = hold();
        bencher.bench_local(|| {
            let mut tickets: Vec<_> = (0..200).map(|_| wait(&hold)).collect();
            let mut left = 200;
            hold.offer(clock::now(), || {
                left -= 1;
                Some(left)
            });
            assert!(tickets.iter_mut().all(look));
        });
    }
}

/// Whether a request may pass.
mod guarding {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use pilotlight::auth::jwt::Cache;
    use pilotlight::auth::{self, Facts, Guard, Identity, KeyRing, Trust};
    use proxy_config::model::{
        self, AuthorizationPolicy, JwtKeys, JwtRule, ObjectRef, PolicyAction, PolicyOperation, PolicyRule,
        PolicySource, Values,
    };

    const NOW: u64 = 1_800_000_000;

    fn any(value: &str) -> Values {
        Values { any: vec![value.to_owned()], none: Vec::new() }
    }

    /// One policy of ten rules of which only the last holds; tokens signed with a secret.
    fn guard() -> Guard {
        let rule = |nth: u32| PolicyRule {
            from: vec![PolicySource {
                principals: any(&format!("cluster.local/ns/shop/sa/caller-{nth}")),
                ..PolicySource::default()
            }],
            to: vec![PolicyOperation {
                methods: any("GET"),
                paths: any(if nth == 9 { "/api/orders/*" } else { "/api/others/*" }),
                ..PolicyOperation::default()
            }],
            when: Vec::new(),
        };
        let policy = AuthorizationPolicy {
            origin: ObjectRef::default(),
            action: PolicyAction::Allow,
            dry_run: false,
            rules: (0..10).map(rule).collect(),
        };
        let jwks = format!(r#"{{"keys":[{{"kty":"oct","k":"{}"}}]}}"#, BASE64.encode("secret"));
        let tokens = JwtRule {
            origin: ObjectRef::default(),
            issuer: "https://accounts.example.com".into(),
            audiences: Vec::new(),
            keys: JwtKeys::Inline(jwks),
            headers: Vec::new(),
            params: Vec::new(),
            cookies: Vec::new(),
            forward: false,
            payload_header: None,
            claim_headers: Vec::new(),
            space_delimited: Vec::new(),
            timeout: std::time::Duration::from_secs(5),
        };
        let wanted = model::Guard {
            name: "shop".into(),
            namespace: "shop".into(),
            jwt: vec![tokens],
            policies: vec![policy],
            ..model::Guard::default()
        };
        let trust = Trust { domain: "cluster.local".into(), aliases: Vec::new() };
        auth::compile(&wanted, &trust, &KeyRing::default(), &mut Vec::new())
    }

    fn bearer() -> HeaderMap {
        let claims = format!(
            r#"{{"iss":"https://accounts.example.com","sub":"ann","exp":{},"groups":["a","b"],"email":"ann@example.com"}}"#,
            NOW + 60
        );
        let text = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"secret");
        let signature = BASE64.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref());
        let mut headers = fields();
        let value = format!("Bearer {text}.{signature}");
        headers.insert("authorization", HeaderValue::try_from(value).expect("a token is text"));
        headers
    }

    #[divan::bench]
    fn ten_rules(bencher: Bencher) {
        let (guard, headers) = (guard(), fields());
        bencher.bench_local(|| {
            let facts = Facts {
                peer: Identity::parse(black_box("cluster.local/ns/shop/sa/caller-9")),
                source: IpAddr::from([10, 0, 0, 1]),
                client: IpAddr::from([10, 0, 0, 1]),
                method: "GET",
                path: black_box("/api/orders/4711"),
                target: "/api/orders/4711",
                scheme: "http",
                host: "shop.example.com",
                headers: &headers,
                destination: SocketAddr::from(([10, 0, 0, 2], 8080)),
                sni: "",
                claims: None,
            };
            assert!(guard.authorize(&facts, |_| ()).is_ok());
        });
    }

    #[divan::bench(args = [true, false])]
    fn token(bencher: Bencher, remembered: bool) {
        let (guard, headers) = (guard(), bearer());
        let jwt = guard.jwt.as_ref().expect("the guard has a rule");
        let mut cache = Cache::default();
        bencher.bench_local(|| {
            if !remembered {
                cache = Cache::default();
            }
            let accepted = jwt.verify(black_box(&headers), None, NOW, &mut cache);
            assert!(accepted.is_ok_and(|accepted| accepted.is_some()));
        });
    }
}
