//! What one request asks of the echo: its query parameters and `x-echo-…` headers, read into an [`Ask`].
//!
//! It stands at the start of every answer, and never decides how the answer is made.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use crate::cli::values::duration;

/// Calls one request may ask for; each holds the request open until it is answered.
const MOST_CALLS: usize = 16;
/// Headers and trailers one request may ask for, each.
const MOST_FIELDS: usize = 32;

/// How an answer differs from the plain one.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Ask {
    pub(super) delay: Duration,
    pub(super) status: Option<StatusCode>,
    pub(super) size: Option<u64>,
    pub(super) chunk: Option<u64>,
    pub(super) slow: Duration,
    /// Percent of requests that fail, 0 to 100.
    pub(super) fail: f32,
    pub(super) close: Option<Close>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) trailers: Vec<(HeaderName, HeaderValue)>,
    pub(super) grpc: Option<u16>,
    pub(super) mirror: bool,
    pub(super) calls: Vec<String>,
}

/// Where an answer is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    Before,
    Head,
    Body,
}

impl Ask {
    /// Reads a request's head; `None` for the plain answer, which is by far the most frequent.
    pub(super) fn read(uri: &Uri, headers: &HeaderMap) -> Result<Option<Box<Ask>>, String> {
        let mut ask: Option<Box<Ask>> = None;
        for (name, value) in headers {
            let Some(option) = name.as_str().strip_prefix("x-echo-") else { continue };
            let value = value.to_str().map_err(|_| format!("{name}: not text"))?;
            if !ask.get_or_insert_default().set(option, value)? {
                return Err(format!("{name}: there is no such option"));
            }
        }
        if let Some(query) = uri.query() {
            Self::read_query(query, &mut ask)?;
        }
        if headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        {
            let ask = ask.get_or_insert_default();
            ask.mirror = ask.grpc.is_none() || ask.mirror;
            ask.grpc.get_or_insert(0);
        }
        Ok(ask)
    }

    fn read_query(query: &str, ask: &mut Option<Box<Ask>>) -> Result<(), String> {
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut candidate = ask.take().unwrap_or_default();
            // Parameters that are not ours belong to whoever wrote the request, and are only shown.
            if candidate.set(name, &percent_decoded(value)?)? || *candidate != Ask::default() {
                *ask = Some(candidate);
            }
        }
        Ok(())
    }

    /// Takes one option; false when there is none of that name.
    fn set(&mut self, option: &str, value: &str) -> Result<bool, String> {
        let wrong = |why: &str| format!("{option}={value}: {why}");
        match option {
            "delay" => self.delay = duration(value).map_err(|why| wrong(&why))?,
            "slow" => self.slow = duration(value).map_err(|why| wrong(&why))?,
            "status" => {
                let code = value.parse().ok().filter(|code| (200..=599).contains(code));
                let code = code.and_then(|code: u16| StatusCode::from_u16(code).ok());
                self.status = Some(code.ok_or_else(|| wrong("a status is 200 to 599"))?);
            }
            "size" => self.size = Some(value.parse().map_err(|_| wrong("a size is a number of bytes"))?),
            "chunk" => {
                let bytes = value.parse().ok().filter(|bytes| *bytes > 0);
                self.chunk = Some(bytes.ok_or_else(|| wrong("a chunk is at least one byte"))?);
            }
            "fail" => {
                let percent = value.trim_end_matches('%').parse().ok();
                let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                self.fail = percent.ok_or_else(|| wrong("a percentage is 0 to 100"))?;
            }
            "close" => {
                self.close = Some(match value {
                    "before" => Close::Before,
                    "head" => Close::Head,
                    "body" => Close::Body,
                    _ => return Err(wrong("one of before, head, body")),
                });
            }
            "header" => push(&mut self.headers, field(value).map_err(wrong)?, MOST_FIELDS).map_err(wrong)?,
            "trailer" => {
                push(&mut self.trailers, field(value).map_err(wrong)?, MOST_FIELDS).map_err(wrong)?
            }
            "grpc" => self.grpc = Some(value.parse().map_err(|_| wrong("a gRPC status is a number"))?),
            "mirror" => self.mirror = !matches!(value, "0" | "false"),
            "call" => push(&mut self.calls, value.to_owned(), MOST_CALLS).map_err(wrong)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn push<T>(list: &mut Vec<T>, item: T, most: usize) -> Result<(), &'static str> {
    if list.len() == most {
        return Err("too many of them in one request");
    }
    list.push(item);
    Ok(())
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    const SHAPE: &str = "a field is NAME:VALUE";
    let (name, value) = text.split_once(':').ok_or(SHAPE)?;
    Ok((name.trim().parse().map_err(|_| SHAPE)?, value.trim().parse().map_err(|_| SHAPE)?))
}

pub(super) fn percent_decoded(text: &str) -> Result<String, String> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                // Two hexadecimal digits make at most 255.
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                _ => return Err(format!("{text}: `%` needs two hexadecimal digits after it")),
            },
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).map_err(|_| format!("{text}: not UTF-8 when decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, headers: &[(&'static str, &'static str)]) -> Result<Option<Box<Ask>>, String> {
        let fields = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Ask::read(&target.parse().unwrap(), &fields.collect())
    }

    #[test]
    fn a_request_that_asks_for_nothing_takes_the_plain_path() {
        for target in ["/", "/a/b?x=1&y", "/?", "/?delays=1s"] {
            assert_eq!(read(target, &[("accept", "*/*")]), Ok(None), "{target}");
        }
    }

    #[test]
    fn options_come_from_the_query_and_from_headers_and_the_query_wins() {
        let check = |target, headers: &[_], change: fn(&mut Ask)| {
            let mut expected = Ask::default();
            change(&mut expected);
            assert_eq!(read(target, headers), Ok(Some(Box::new(expected))), "{target} {headers:?}");
        };
        check("/?delay=1.5s", &[], |ask| ask.delay = Duration::from_millis(1500));
        check("/?a=b&size=0&c", &[], |ask| ask.size = Some(0));
        check("/", &[("x-echo-status", "503")], |ask| ask.status = Some(StatusCode::SERVICE_UNAVAILABLE));
        check("/?status=201", &[("x-echo-status", "503")], |ask| ask.status = Some(StatusCode::CREATED));
        check("/?fail=30%25", &[], |ask| ask.fail = 30.0);
        check("/?close=body", &[], |ask| ask.close = Some(Close::Body));
        check("/?call=http%3A%2F%2Fb%2F%3Fa%3D1%26b&call=http://c/", &[], |ask| {
            ask.calls = vec!["http://b/?a=1&b".into(), "http://c/".into()];
        });
        check("/?trailer=X-Sum:%20a+b", &[], |ask| {
            ask.trailers = vec![(HeaderName::from_static("x-sum"), HeaderValue::from_static("a b"))];
        });
        check("/", &[("content-type", "application/grpc+proto")], |ask| {
            (ask.grpc, ask.mirror) = (Some(0), true)
        });
        check("/?grpc=5", &[("content-type", "application/grpc")], |ask| ask.grpc = Some(5));
    }

    #[test]
    fn a_wrong_option_is_named_in_the_refusal() {
        let check = |target, headers: &[_], part: &str| {
            let refusal = read(target, headers).unwrap_err();
            assert!(refusal.contains(part), "{target}: {refusal}");
        };
        check("/?delay=5", &[], "delay=5: duration \"5\" has no unit");
        check("/?status=99", &[], "200 to 599");
        check("/?fail=101", &[], "0 to 100");
        check("/?fail=NaN", &[], "0 to 100");
        check("/?close=now", &[], "before, head, body");
        check("/?chunk=0", &[], "at least one byte");
        check("/?header=x", &[], "NAME:VALUE");
        check("/?call=%zz", &[], "two hexadecimal digits");
        check("/", &[("x-echo-dealy", "1s")], "x-echo-dealy: there is no such option");
        check(&format!("/?{}", "call=a&".repeat(17)), &[], "too many");
    }
}
