//! One table for each rule of AuthorizationPolicy.

use super::interpreter::{self, Asked};
use http::{HeaderMap, HeaderName, HeaderValue};
use pilotlight::auth::jwt::Claims;
use pilotlight::auth::{self, Event, Facts, Identity, KeyRing, Trust};
use proxy_config::model::{
    AuthorizationPolicy, Blocks, Guard, ObjectRef, PolicyAction, PolicyCondition, PolicyOperation,
    PolicyRule, PolicySource, Values,
};
use serde_json::Value;
use std::net::SocketAddr;

/// What the compiled form says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub passes: bool,
    pub audited: usize,
    /// Dry-run policies would refuse.
    pub would_deny: Option<bool>,
    pub details: String,
}

pub fn decide(guard: &Guard, trust: &Trust, asked: &Asked) -> Found {
    let mut problems = Vec::new();
    let compiled = auth::compile(guard, trust, &KeyRing::default(), &mut problems);
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let claims = match &asked.claims {
        Some(Value::Object(all)) => Some(Claims::new(all.clone(), [].into())),
        _ => None,
    };
    let facts = Facts {
        peer: asked.principal.as_deref().and_then(Identity::parse),
        source: asked.source,
        client: asked.client,
        method: &asked.method,
        path: &asked.path,
        target: &asked.path,
        scheme: "http",
        host: &asked.host,
        headers: &headers,
        destination: SocketAddr::from(([10, 0, 0, 9], asked.port)),
        sni: &asked.sni,
        claims: claims.as_ref(),
    };
    let mut found = Found::default();
    let verdict = compiled.authorize(&facts, |event| match event {
        Event::Audited(_) => found.audited += 1,
        Event::WouldDeny(_) => found.would_deny = Some(true),
        Event::WouldAllow(_) => found.would_deny = Some(false),
    });
    found.passes = verdict.is_ok();
    found.details = verdict.err().map(|denied| denied.by.details.to_string()).unwrap_or_default();
    found
}

fn get(path: &str) -> Asked {
    Asked {
        principal: Some("cluster.local/ns/default/sa/front".into()),
        source: "10.1.2.3".parse().unwrap(),
        client: "192.0.2.7".parse().unwrap(),
        method: "GET".into(),
        path: path.into(),
        host: "shop.example:8080".into(),
        headers: vec![("x-a".into(), "1".into()), ("x-a".into(), "2".into())],
        port: 8080,
        sni: "shop.example".into(),
        claims: None,
    }
}

fn values(any: &[&str], none: &[&str]) -> Values {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Values { any: own(any), none: own(none) }
}

fn policy(name: &str, action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    let origin = ObjectRef { namespace: "default".into(), name: name.into(), ..ObjectRef::default() };
    AuthorizationPolicy { origin, action, dry_run: false, rules }
}

fn guard(policies: Vec<AuthorizationPolicy>) -> Guard {
    Guard { name: "g".into(), namespace: "default".into(), policies, ..Guard::default() }
}

fn ours() -> Trust {
    Trust { domain: "cluster.local".into(), aliases: Vec::new() }
}

fn to(paths: &[&str]) -> PolicyRule {
    let operation = PolicyOperation { paths: values(paths, &[]), ..PolicyOperation::default() };
    PolicyRule { to: vec![operation], ..PolicyRule::default() }
}

/// The policies on `asked`: passes or not, and by what.
#[track_caller]
fn check(policies: Vec<AuthorizationPolicy>, asked: &Asked, passes: bool, details: &str) {
    let guard = guard(policies);
    let found = decide(&guard, &ours(), asked);
    assert_eq!((found.passes, found.details.as_str()), (passes, details), "{guard:?}");
    assert_eq!(
        interpreter::passes(&guard, &["cluster.local"], asked),
        passes,
        "the interpreter says otherwise"
    );
}

const NONE: &str = "rbac_access_denied_matched_policy[none]";

#[test]
fn emptiness_means_what_istio_means_by_it() {
    use PolicyAction::{Allow, Deny};
    check(vec![], &get("/"), true, "");
    check(vec![policy("nothing", Allow, vec![])], &get("/"), false, NONE);
    check(vec![policy("all", Allow, vec![PolicyRule::default()])], &get("/"), true, "");
    check(vec![policy("never", Deny, vec![])], &get("/"), true, "");
    let by = "rbac_access_denied_matched_policy[ns[default]-policy[all]-rule[0]]";
    check(vec![policy("all", Deny, vec![PolicyRule::default()])], &get("/"), false, by);
}

#[test]
fn deny_comes_before_allow_and_names_its_rule() {
    use PolicyAction::{Allow, Deny};
    let policies = || {
        vec![
            policy("allow", Allow, vec![to(&["/api/*"])]),
            policy("also", Allow, vec![to(&["/open"])]),
            policy("deny", Deny, vec![to(&["/never"]), to(&["/api/secret"])]),
        ]
    };
    check(policies(), &get("/api/x"), true, "");
    check(policies(), &get("/open"), true, "");
    let by = "rbac_access_denied_matched_policy[ns[default]-policy[deny]-rule[1]]";
    check(policies(), &get("/api/secret"), false, by);
    check(policies(), &get("/other"), false, NONE);
}

#[test]
fn rules_are_alternatives_and_their_parts_are_not() {
    let from = |principal: &str| PolicyRule {
        from: vec![PolicySource { principals: values(&[principal], &[]), ..PolicySource::default() }],
        ..PolicyRule::default()
    };
    let front = "cluster.local/ns/default/sa/front";
    let both = PolicyRule { to: to(&["/pay"]).to, ..from(front) };
    let allow = |rules| vec![policy("p", PolicyAction::Allow, rules)];
    check(allow(vec![both.clone()]), &get("/pay"), true, "");
    check(allow(vec![both.clone()]), &get("/other"), false, NONE);
    let stranger = Asked { principal: None, ..get("/pay") };
    check(allow(vec![both]), &stranger, false, NONE);
    // Written as two list items they are two rules: anybody may pay, and the front may do anything.
    check(allow(vec![from(front), to(&["/pay"])]), &stranger, true, "");
    check(allow(vec![from(front), to(&["/pay"])]), &get("/other"), true, "");
}

/// One operation or source field, with its `not` twin.
#[track_caller]
fn field(rule: impl Fn(Values) -> PolicyRule, rows: &[(&[&str], &[&str], bool)], asked: &Asked) {
    for (any, none, passes) in rows {
        let details = if *passes { "" } else { NONE };
        check(vec![policy("p", PolicyAction::Allow, vec![rule(values(any, none))])], asked, *passes, details);
    }
}

fn operation(set: impl Fn(&mut PolicyOperation, Values)) -> impl Fn(Values) -> PolicyRule {
    move |values| {
        let mut operation = PolicyOperation::default();
        set(&mut operation, values);
        PolicyRule { to: vec![operation], ..PolicyRule::default() }
    }
}

fn source(set: impl Fn(&mut PolicySource, Values)) -> impl Fn(Values) -> PolicyRule {
    move |values| {
        let mut source = PolicySource::default();
        set(&mut source, values);
        PolicyRule { from: vec![source], ..PolicyRule::default() }
    }
}

fn when(key: &'static str) -> impl Fn(Values) -> PolicyRule {
    move |values| PolicyRule {
        when: vec![PolicyCondition { key: key.into(), values }],
        ..PolicyRule::default()
    }
}

#[test]
fn operations_look_at_host_port_method_and_path() {
    let asked = get("/api/orders/7");
    let hosts: &[(&[&str], &[&str], bool)] = &[
        (&["shop.example:8080"], &[], true),
        (&["SHOP.example:8080"], &[], true),
        (&["shop.example"], &[], false),
        (&["shop.example*"], &[], true),
        (&[], &["shop.*"], false),
        (&[], &["other"], true),
    ];
    field(operation(|o, v| o.hosts = v), hosts, &asked);
    field(
        operation(|o, v| o.ports = v),
        &[(&["8080"], &[], true), (&["80"], &[], false), (&[], &["8080"], false)],
        &asked,
    );
    let methods: &[(&[&str], &[&str], bool)] =
        &[(&["GET"], &[], true), (&["get"], &[], false), (&["G*"], &[], true), (&["*"], &["GET"], false)];
    field(operation(|o, v| o.methods = v), methods, &asked);
    let paths: &[(&[&str], &[&str], bool)] = &[
        (&["/api/*"], &[], true),
        (&["/api/orders/{*}"], &[], true),
        (&["/api/{*}"], &[], false),
        (&["/api/{**}"], &[], true),
        (&["/api/orders/7/"], &[], false),
        (&["*"], &["*/7"], false),
    ];
    field(operation(|o, v| o.paths = v), paths, &asked);
}

#[test]
fn sources_look_at_the_peer_and_over_plaintext_only_negations_hold() {
    let asked = get("/");
    let stranger = Asked { principal: None, ..get("/") };
    let front = "cluster.local/ns/default/sa/front";
    let principals: &[(&[&str], &[&str], bool)] =
        &[(&[front], &[], true), (&["*/sa/front"], &[], true), (&["*"], &[], true), (&[], &[front], false)];
    field(source(|s, v| s.principals = v), principals, &asked);
    let plain: &[(&[&str], &[&str], bool)] =
        &[(&[front], &[], false), (&["*"], &[], false), (&[], &[front], true), (&[], &["*"], true)];
    field(source(|s, v| s.principals = v), plain, &stranger);
    let namespaces: &[(&[&str], &[&str], bool)] = &[
        (&["default"], &[], true),
        (&["def*"], &[], true),
        (&["other"], &[], false),
        (&[], &["default"], false),
    ];
    field(source(|s, v| s.namespaces = v), namespaces, &asked);
    let accounts: &[(&[&str], &[&str], bool)] =
        &[(&["front"], &[], true), (&["default/front"], &[], true), (&["other/front"], &[], false)];
    field(source(|s, v| s.service_accounts = v), accounts, &asked);
    field(
        source(|s, v| s.trust_domains = v),
        &[(&["cluster.local"], &[], true), (&["td"], &[], false)],
        &asked,
    );
    for (network, prefix, source, client) in [("10.0.0.0", 8, true, false), ("192.0.2.0", 24, false, true)] {
        let block = || Blocks { any: vec![(network.parse().unwrap(), prefix)], none: Vec::new() };
        let of = |from: PolicySource| {
            vec![policy(
                "p",
                PolicyAction::Deny,
                vec![PolicyRule { from: vec![from], ..PolicyRule::default() }],
            )]
        };
        let by_peer = guard(of(PolicySource { ip_blocks: block(), ..PolicySource::default() }));
        let by_client = guard(of(PolicySource { remote_ip_blocks: block(), ..PolicySource::default() }));
        assert_eq!(decide(&by_peer, &ours(), &asked).passes, !source, "{network}");
        assert_eq!(decide(&by_client, &ours(), &asked).passes, !client, "{network}");
    }
}

#[test]
fn no_value_of_a_field_hides_behind_another() {
    // The request has `x-a: 1` and `x-a: 2`.
    for (action, any, none, passes) in [
        (PolicyAction::Deny, &["1"][..], &[][..], false),
        (PolicyAction::Deny, &["2"], &[], false),
        (PolicyAction::Deny, &["1,2"], &[], false),
        (PolicyAction::Deny, &["3"], &[], true),
        (PolicyAction::Deny, &[], &["1*"], false),
        (PolicyAction::Deny, &[], &["1", "2", "1,2"], true),
        (PolicyAction::Allow, &["1,2"], &[], true),
        (PolicyAction::Allow, &["2"], &[], false),
        (PolicyAction::Allow, &[], &["1"], false),
        (PolicyAction::Allow, &[], &["2"], false),
        (PolicyAction::Allow, &[], &["1,2"], false),
        (PolicyAction::Allow, &[], &["3"], true),
    ] {
        let rule = when("request.headers[x-a]")(values(any, none));
        let found = decide(&guard(vec![policy("p", action.clone(), vec![rule])]), &ours(), &get("/"));
        assert_eq!(found.passes, passes, "{action:?} {any:?} not {none:?}");
    }
}

#[test]
fn conditions_look_at_everything_else() {
    let claims = serde_json::json!({"iss": "https://i", "sub": "s", "aud": ["a", "b"], "azp": "p",
        "groups": ["admins", "users"], "deep": {"er": "z"}, "scope": "read write"});
    let asked = Asked { claims: Some(claims), ..get("/") };
    let rows: [(&'static str, &str, &str); 14] = [
        ("request.headers[x-a]", "1,2", "3"),
        ("request.headers[X-A]", "1*", "*3"),
        ("request.headers[:method]", "GET", "get"),
        ("source.ip", "10.1.0.0/16", "10.1.2.4"),
        ("remote.ip", "192.0.2.7", "10.0.0.0/8"),
        ("source.namespace", "default", "other"),
        ("source.principal", "*/sa/front", "*/sa/back"),
        ("request.auth.principal", "https://i/s", "https://i/t"),
        ("request.auth.audiences", "b", "c"),
        ("request.auth.presenter", "p", "q"),
        ("request.auth.claims[groups]", "admins", "nobody"),
        ("request.auth.claims[deep][er]", "z", "y"),
        ("request.auth.claims[scope]", "write", "read write"),
        ("connection.sni", "shop.*", "other"),
    ];
    for (key, right, wrong) in rows {
        for (any, none, passes) in [
            (Some(right), None, true),
            (Some(wrong), None, false),
            (None, Some(right), false),
            (None, Some(wrong), true),
        ] {
            let (any, none): (Vec<&str>, Vec<&str>) = (any.into_iter().collect(), none.into_iter().collect());
            let rule = when(key)(values(&any, &none));
            let found = decide(&guard(vec![policy("p", PolicyAction::Allow, vec![rule])]), &ours(), &asked);
            assert_eq!(found.passes, passes, "{key} {any:?} not {none:?}");
        }
    }
    field(when("request.auth.claims[iss]"), &[(&["*"], &[], false), (&[], &["x"], true)], &get("/"));
}

#[test]
fn audit_and_dry_run_never_change_the_verdict() {
    let rehearsed =
        |action| AuthorizationPolicy { dry_run: true, ..policy("dry", action, vec![to(&["/a"])]) };
    let audit = policy("audit", PolicyAction::Audit, vec![to(&["/a"]), PolicyRule::default()]);
    for (policy, path, would_deny) in [
        (rehearsed(PolicyAction::Deny), "/a", true),
        (rehearsed(PolicyAction::Deny), "/b", false),
        (rehearsed(PolicyAction::Allow), "/a", false),
        (rehearsed(PolicyAction::Allow), "/b", true),
    ] {
        let found = decide(&guard(vec![audit.clone(), policy]), &ours(), &get(path));
        assert_eq!((found.passes, found.would_deny), (true, Some(would_deny)), "{path}");
        assert_eq!(found.audited, if path == "/a" { 2 } else { 1 });
    }
}

#[test]
fn what_cannot_be_understood_refuses() {
    let odd = || vec![when("source.colour")(values(&["red"], &[]))];
    let passes = |policies, quarantined| {
        let guard = Guard { quarantined, ..guard(policies) };
        decide(&guard, &ours(), &get("/")).passes
    };
    assert!(!passes(vec![policy("odd", PolicyAction::Deny, odd())], Vec::new()));
    assert!(!passes(vec![policy("odd", PolicyAction::Allow, odd())], Vec::new()));
    assert!(passes(vec![policy("odd", PolicyAction::Audit, odd())], Vec::new()));
    assert!(!passes(Vec::new(), vec![ObjectRef::default()]));
}
