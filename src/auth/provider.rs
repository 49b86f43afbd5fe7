//! Who decides for CUSTOM policies: what is asked, and what the answer means.
//!
//! The HTTP service of Envoy's external authorization. Nothing here sends anything.

use super::text::Text;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, request};
use proxy_config::model;
use std::sync::Arc;
use std::time::Duration;

const REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// Of a body, at most: it is kept in memory until there is an answer.
const MOST_BODY: u32 = 1 << 20;

/// A provider, compiled.
#[derive(Debug)]
pub struct Provider {
    /// Its name in MeshConfig.
    pub name: Arc<str>,
    /// The cluster to ask.
    pub cluster: Arc<str>,
    /// Its host, as its certificate names it.
    pub host: Box<str>,
    /// Of one check.
    pub timeout: Duration,
    /// A check that fails lets the request pass.
    pub fail_open: bool,
    /// What the client gets when a check fails.
    pub status_on_error: u16,
    /// Bytes of the body that go along, and whether a part of it will do.
    pub body: Option<(usize, bool)>,
    /// Why nobody can be asked.
    pub unusable: Option<Box<str>>,
    prefix: Box<str>,
    include: Box<[Text]>,
    additional: Box<[(HeaderName, HeaderValue)]>,
    upstream: Box<[Text]>,
    on_allow: Box<[Text]>,
    on_deny: Box<[Text]>,
}

impl Provider {
    /// Compiles one. What cannot be had fails every check, and is added to `problems`.
    pub fn compile(wanted: &model::ExtAuthz, problems: &mut Vec<String>) -> Provider {
        let texts =
            |names: &[String]| names.iter().map(|name| Text::compile(&name.to_ascii_lowercase())).collect();
        let mut unusable = wanted.grpc.then(|| "envoyExtAuthzGrpc cannot be asked yet".to_owned());
        let mut additional = Vec::new();
        for (name, value) in &wanted.additional_headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => additional.push((name, value)),
                _ => unusable = Some(format!("{name}: {value} is no header field")),
            }
        }
        if wanted.body.is_some_and(|(most, _)| most > MOST_BODY) {
            unusable = Some(format!("maxRequestBytes is above {MOST_BODY}"));
        }
        if let Some(why) = &unusable {
            problems.push(format!("provider {}: {why}; what it is to decide is refused", wanted.name));
        }
        Provider {
            name: wanted.name.as_str().into(),
            cluster: wanted.cluster.as_str().into(),
            host: wanted.authority.rsplit_once(':').map_or(&*wanted.authority, |(host, _)| host).into(),
            timeout: wanted.timeout,
            fail_open: wanted.fail_open,
            status_on_error: wanted.status_on_error,
            body: wanted.body.map(|(most, partial)| (most as usize, partial)),
            unusable: unusable.map(Into::into),
            prefix: wanted.path_prefix.as_str().into(),
            include: texts(&wanted.include_headers),
            additional: additional.into(),
            upstream: texts(&wanted.to_upstream_on_allow),
            on_allow: texts(&wanted.to_downstream_on_allow),
            on_deny: texts(&wanted.to_downstream_on_deny),
        }
    }

    /// The head of the question about a request to `host`; `body`: how much of it goes along, and whether that is
    /// not all.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub fn question(
        &self,
        about: &request::Parts,
        host: &str,
        body: (usize, bool),
    ) -> Result<Request<()>, String> {
        let target = about.uri.path_and_query().map_or("/", |target| target.as_str());
        let uri: Uri =
            format!("{}{target}", self.prefix).parse().map_err(|error| format!("its path: {error}"))?;
        let mut request = Request::new(());
        *request.method_mut() = about.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for (name, value) in &about.headers {
            let framing = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name);
            if !framing && (*name == AUTHORIZATION || fits(&self.include, name)) {
                headers.append(name, value.clone());
            }
        }
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.0));
        if self.body.is_some() {
            headers.insert(PARTIAL, HeaderValue::from_static(if body.1 { "true" } else { "false" }));
        }
        for (name, value) in &self.additional {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }

    /// It allows: its fields replace the request's. What the client is to get besides.
    pub fn allowed(&self, answer: &HeaderMap, headers: &mut HeaderMap) -> HeaderMap {
        for value in answer.get_all(REMOVE) {
            for name in value.to_str().unwrap_or_default().split(',') {
                // Who is meant decides where the request goes.
                if let Ok(name) = HeaderName::try_from(name.trim())
                    && name != HOST
                {
                    headers.remove(name);
                }
            }
        }
        replace(headers, &chosen(answer, |name| fits(&self.upstream, name)));
        chosen(answer, |name| fits(&self.on_allow, name))
    }

    /// It refuses: what the client gets of its fields.
    pub fn denied(&self, answer: &HeaderMap) -> HeaderMap {
        let always = |name: &HeaderName| [CONTENT_TYPE, WWW_AUTHENTICATE, LOCATION].contains(name);
        chosen(answer, |name| self.on_deny.is_empty() || always(name) || fits(&self.on_deny, name))
    }
}

fn fits(wanted: &[Text], name: &HeaderName) -> bool {
    wanted.iter().any(|text| text.matches(name.as_str().as_bytes()))
}

/// Fields that are picked, save those of the connection and of framing.
fn chosen(from: &HeaderMap, pick: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    const NEVER: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "content-length",
        "te",
        "trailer",
        "upgrade",
        "host",
    ];
    let mut to = HeaderMap::new();
    for (name, value) in from.iter().filter(|(name, _)| !NEVER.contains(&name.as_str()) && pick(name)) {
        to.append(name, value.clone());
    }
    to
}

/// Every field of `with` in place of those of its name.
fn replace(headers: &mut HeaderMap, with: &HeaderMap) {
    for name in with.keys() {
        headers.remove(name);
    }
    for (name, value) in with {
        headers.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Provider {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wanted = model::ExtAuthz {
            name: "p".into(),
            path_prefix: "/check".into(),
            include_headers: own(&["X-Token", "x-b-*", "content-length"]),
            additional_headers: vec![("x-from".into(), "here".into())],
            to_upstream_on_allow: own(&["x-user"]),
            to_downstream_on_allow: own(&["set-cookie"]),
            to_downstream_on_deny: own(&["x-why"]),
            ..model::ExtAuthz::default()
        };
        Provider::compile(&wanted, &mut Vec::new())
    }

    #[test]
    fn a_question_says_what_it_may_and_nothing_else() {
        let request = Request::put("/a?b=1")
            .header("host", "h")
            .header("authorization", "Bearer t")
            .header("cookie", "secret")
            .header("x-token", "1")
            .header("x-b-3", "2")
            .header("content-length", "7")
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        let asked = provider().question(&parts, "h", (0, false)).unwrap();
        assert_eq!((asked.method().as_str(), asked.uri().to_string()), ("PUT", "/check/a?b=1".into()));
        let mut names: Vec<_> = asked.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-length", "host", "x-b-3", "x-from", "x-token"]);
        assert_eq!(asked.headers()["content-length"], "0");
    }

    #[test]
    fn an_answer_changes_what_was_agreed_and_nothing_else() {
        let mut answer = HeaderMap::new();
        for (name, value) in [
            ("x-user", "ann"),
            ("x-other", "1"),
            ("set-cookie", "c"),
            ("x-why", "no"),
            ("location", "/login"),
            ("connection", "close"),
            ("x-envoy-auth-headers-to-remove", "authorization, host"),
        ] {
            answer.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-user", "root"), ("authorization", "t"), ("host", "h")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let down = provider().allowed(&answer, &mut headers);
        assert_eq!((&headers["x-user"], headers.len()), (&HeaderValue::from_static("ann"), 2));
        assert_eq!(down.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["set-cookie"]);
        let denied = provider().denied(&answer);
        let mut names: Vec<_> = denied.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["location", "x-why"]);
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        for wanted in [
            model::ExtAuthz { grpc: true, ..model::ExtAuthz::default() },
            model::ExtAuthz { body: Some((2 << 20, true)), ..model::ExtAuthz::default() },
            model::ExtAuthz {
                additional_headers: vec![("a b".into(), "c".into())],
                ..model::ExtAuthz::default()
            },
        ] {
            let mut problems = Vec::new();
            assert!(Provider::compile(&wanted, &mut problems).unusable.is_some());
            assert_eq!(problems.len(), 1);
        }
    }
}
