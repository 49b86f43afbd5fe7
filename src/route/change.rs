//! What a route does to the head of a request or a response: remove, then set, then add.
//!
//! Acts after hop-by-hop fields are gone and before the head is addressed to its destination. It may rewrite
//! the authority; it never touches framing or the fields that belong to one connection.

use super::template::{Facts, Template};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use proxy_config::model::MessageOps;

/// Which head is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On the way to the destination.
    Request,
    /// On the way back.
    Response,
}

/// Compiled [`MessageOps`].
#[derive(Clone, Debug)]
pub struct HeaderChange(Option<Box<Ops>>);

/// There are some: most change nothing.
#[derive(Clone, Debug)]
struct Ops {
    side: Side,
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Template)]>,
    add: Box<[(HeaderName, Template)]>,
    authority: Option<Template>,
}

impl HeaderChange {
    /// Changes nothing.
    pub fn none() -> HeaderChange {
        HeaderChange(None)
    }

    /// Compiles a set of changes.
    ///
    /// # Errors
    /// A name or value that is wrong, or a field that only the proxy may write.
    pub fn compile(ops: &MessageOps, side: Side) -> Result<HeaderChange, String> {
        let mut authority = None;
        let mut write = |list: &[(String, String)]| -> Result<Box<[(HeaderName, Template)]>, String> {
            let mut compiled = Vec::with_capacity(list.len());
            for (name, value) in list {
                let template = Template::compile(value).map_err(|why| format!("header `{name}`: {why}"))?;
                if side == Side::Request && (name.eq_ignore_ascii_case("host") || name == ":authority") {
                    if authority.replace(template).is_some() {
                        return Err("the authority is set more than once".into());
                    }
                    continue;
                }
                compiled.push((writable(name)?, template));
            }
            Ok(compiled.into())
        };
        let set = write(&ops.set)?;
        let add = write(&ops.add)?;
        let remove: Box<[_]> =
            ops.remove.iter().map(|name| removable(name, side)).collect::<Result<_, _>>()?;
        let any = !(remove.is_empty() && set.is_empty() && add.is_empty() && authority.is_none());
        Ok(HeaderChange(any.then(|| Box::new(Ops { side, remove, set, add, authority }))))
    }

    /// Whether there is nothing to do, so that no [`Facts`] are needed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a change to a response needs the request's fields, which are otherwise gone by then.
    pub fn reads_request(&self) -> bool {
        self.0.as_ref().is_some_and(|ops| {
            let mut written = ops.set.iter().chain(&ops.add);
            ops.side == Side::Response && written.any(|(_, template)| template.reads_request())
        })
    }

    /// Changes the fields in place and returns the new authority if there is one. A value that comes out
    /// empty changes nothing.
    pub fn apply(&self, headers: &mut HeaderMap, facts: &Facts<'_>) -> Option<HeaderValue> {
        let ops = self.0.as_ref()?;
        for name in &ops.remove {
            headers.remove(name);
        }
        for (name, template) in &ops.set {
            if let Some(value) = ops.fill(template, headers, facts) {
                headers.insert(name.clone(), value);
            }
        }
        for (name, template) in &ops.add {
            if let Some(value) = ops.fill(template, headers, facts) {
                headers.append(name.clone(), value);
            }
        }
        ops.authority.as_ref().and_then(|template| ops.fill(template, headers, facts))
    }
}

impl Ops {
    fn fill(&self, template: &Template, headers: &HeaderMap, facts: &Facts<'_>) -> Option<HeaderValue> {
        match self.side {
            Side::Request => template.fill(Some(headers), None, facts),
            Side::Response => template.fill(facts.request, Some(headers), facts),
        }
    }
}

fn name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a header name"))
}

/// Fields that frame a message or belong to one connection are the proxy's own to write.
fn writable(text: &str) -> Result<HeaderName, String> {
    let name = name(text)?;
    let ours = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    if ours.contains(&name) {
        return Err(format!("header `{name}` is written by the proxy itself"));
    }
    Ok(name)
}

fn removable(text: &str, side: Side) -> Result<HeaderName, String> {
    let name = name(text)?;
    if side == Side::Request && name == header::HOST {
        return Err(format!("header `{name}` cannot be removed"));
    }
    Ok(name)
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
