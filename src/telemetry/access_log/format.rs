//! Format strings compiled: text with operators, or a JSON object whose values are such texts.
//!
//! Compiled once for a configuration; what an exchange needs of it are two short lists of header names.

use super::operator::{Operator, Wanted};
use super::{escape, render, time::Epoch};
use crate::record::{Captured, Record};
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use std::fmt;

/// Istio's default line.
const ISTIO_TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// Istio's default JSON object.
const ISTIO_JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// How a line is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A line of text.
    Text,
    /// An object on a line.
    Json,
}

/// Why a format string means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// The byte of the string at which it went wrong.
    pub at: usize,
    /// What went wrong.
    pub reason: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access log format, byte {}: {}", self.at, self.reason)
    }
}

impl std::error::Error for FormatError {}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Box<str>),
    Operator(Operator),
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As it is.
    Literal(Box<str>),
    /// An operator in a line of text.
    Text(Operator),
    /// An operator that is a JSON value of its own: a number stays one, nothing is null.
    Value(Operator),
    /// A JSON string of several pieces.
    Mixed(Box<[Piece]>),
}

/// A compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Box<[Part]>,
    request: Box<[HeaderName]>,
    response: Box<[HeaderName]>,
}

impl Format {
    /// Istio's default text format.
    #[allow(clippy::expect_used)]
    pub fn istio_text() -> Format {
        Format::text(ISTIO_TEXT).expect("a constant that tests compile")
    }

    /// Istio's default JSON format.
    #[allow(clippy::expect_used)]
    pub fn istio_json() -> Format {
        let mut object = Object::default();
        let pairs = ISTIO_JSON.iter().map(|(key, text)| (*key, Value::from(*text)));
        object.pairs(pairs).expect("a constant that tests compile");
        object.finish()
    }

    /// Compiles what `accessLogFormat` says for this `accessLogEncoding`; `None`: Istio's default.
    ///
    /// # Errors
    /// An operator that does not exist, a `%` without an end, or text that is no JSON object.
    pub fn parse(encoding: Encoding, format: Option<&str>) -> Result<Format, FormatError> {
        match (encoding, format) {
            (Encoding::Text, None) => Ok(Format::istio_text()),
            (Encoding::Json, None) => Ok(Format::istio_json()),
            (Encoding::Text, Some(text)) => Format::text(text),
            (Encoding::Json, Some(text)) => Format::json(text),
        }
    }

    fn text(text: &str) -> Result<Format, FormatError> {
        let mut wanted = Wanted::default();
        let mut parts: Vec<Part> = pieces(text, &mut wanted)?
            .into_iter()
            .map(|piece| match piece {
                Piece::Literal(text) => Part::Literal(text),
                Piece::Operator(operator) => Part::Text(operator),
            })
            .collect();
        if !text.ends_with('\n') {
            parts.push(Part::Literal("\n".into()));
        }
        Ok(Format::settled(parts, wanted))
    }

    fn json(text: &str) -> Result<Format, FormatError> {
        let wrong = |reason: String| FormatError { at: 0, reason };
        let value = serde_json::from_str(text).map_err(|error| wrong(format!("not JSON: {error}")))?;
        let Value::Object(map) = value else { return Err(wrong("not a JSON object".to_owned())) };
        let mut object = Object::default();
        object.pairs(map.iter().map(|(key, value)| (key.as_str(), value.clone())))?;
        Ok(object.finish())
    }

    fn settled(mut parts: Vec<Part>, wanted: Wanted) -> Format {
        let requests = wanted.request.len();
        for part in &mut parts {
            match part {
                Part::Literal(_) => {}
                Part::Text(operator) | Part::Value(operator) => operator.settle(requests),
                Part::Mixed(pieces) => pieces.iter_mut().for_each(|piece| {
                    if let Piece::Operator(operator) = piece {
                        operator.settle(requests);
                    }
                }),
            }
        }
        Format { parts: parts.into(), request: wanted.request.into(), response: wanted.response.into() }
    }

    /// Takes from a request what lines of this format need, and makes room for the response. To be called
    /// with the headers that go upstream, or with the client's when the request goes nowhere.
    pub fn capture_request(&self, headers: &HeaderMap) -> Captured {
        Captured::take(&self.request, &self.response, headers)
    }

    /// Takes from a response what lines of this format need.
    pub fn capture_response(&self, captured: &mut Captured, headers: &HeaderMap) {
        for (nth, name) in self.response.iter().enumerate() {
            captured.put(self.request.len() + nth, headers.get(name).cloned());
        }
    }

    /// Appends the line of a closed record.
    pub fn write(&self, record: &Record, epoch: Epoch, out: &mut Vec<u8>) {
        render::line(&self.parts, record, epoch, out);
    }
}

/// A JSON object on its way to becoming parts.
#[derive(Default)]
struct Object {
    parts: Vec<Part>,
    literal: Vec<u8>,
    wanted: Wanted,
}

impl Object {
    fn pairs<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, Value)>) -> Result<(), FormatError> {
        self.literal.push(b'{');
        for (nth, (key, value)) in pairs.enumerate() {
            if nth > 0 {
                self.literal.push(b',');
            }
            self.quoted(key);
            self.literal.push(b':');
            self.value(value).map_err(|error| FormatError {
                at: error.at,
                reason: format!("{}: {}", key.escape_default(), error.reason),
            })?;
        }
        self.literal.push(b'}');
        Ok(())
    }

    fn value(&mut self, value: Value) -> Result<(), FormatError> {
        match value {
            Value::Object(map) => return self.pairs(map.iter().map(|(key, value)| (&**key, value.clone()))),
            Value::String(text) => {
                let mut pieces = pieces(&text, &mut self.wanted)?;
                match (pieces.pop(), pieces.is_empty()) {
                    (None, _) => self.quoted(""),
                    (Some(Piece::Literal(text)), true) => self.quoted(&text),
                    (Some(Piece::Operator(operator)), true) => self.part(Part::Value(operator)),
                    (Some(last), false) => {
                        pieces.push(last);
                        self.part(Part::Mixed(pieces.into()));
                    }
                }
            }
            Value::Array(_) => {
                return Err(FormatError { at: 0, reason: "a list cannot be logged".to_owned() });
            }
            plain => self.literal.extend_from_slice(plain.to_string().as_bytes()),
        }
        Ok(())
    }

    fn quoted(&mut self, text: &str) {
        self.literal.push(b'"');
        escape::json(&mut self.literal, text.as_bytes());
        self.literal.push(b'"');
    }

    fn part(&mut self, part: Part) {
        self.literal_done();
        self.parts.push(part);
    }

    fn literal_done(&mut self) {
        if !self.literal.is_empty() {
            let text = String::from_utf8_lossy(&std::mem::take(&mut self.literal)).into_owned();
            self.parts.push(Part::Literal(text.into()));
        }
    }

    fn finish(mut self) -> Format {
        self.literal.push(b'\n');
        self.literal_done();
        Format::settled(self.parts, self.wanted)
    }
}

/// Cuts a format string at its operators.
fn pieces(text: &str, wanted: &mut Wanted) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('%') {
        literal.push_str(&text[at..at + found]);
        let start = at + found;
        let rest = &text[start + 1..];
        if rest.starts_with('%') {
            literal.push('%');
            at = start + 2;
            continue;
        }
        let wrong = |reason: String| FormatError { at: start, reason };
        let (operator, used) = operator(rest, wanted).map_err(wrong)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        pieces.push(Piece::Operator(operator));
        at = start + 1 + used;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces)
}

/// Reads `NAME`, `(parameter)`, `:length` and the closing `%`; gives also how much of `text` that was.
fn operator(text: &str, wanted: &mut Wanted) -> Result<(Operator, usize), String> {
    let name_end = text
        .find(|char: char| !(char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_'))
        .unwrap_or(text.len());
    let name = &text[..name_end];
    if name.is_empty() {
        return Err("a % begins an operator (a % itself is written %%)".to_owned());
    }
    let mut at = name_end;
    let mut parameter = None;
    if text[at..].starts_with('(') {
        let end = text[at..].find(')').ok_or_else(|| format!("%{name}( has no closing parenthesis"))?;
        parameter = Some(&text[at + 1..at + end]);
        at += end + 1;
    }
    let mut length = None;
    if text[at..].starts_with(':') {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let number = &text[at + 1..at + 1 + digits];
        length =
            Some(number.parse().map_err(|_| format!("%{name}: needs a length in bytes after the colon"))?);
        at += 1 + digits;
    }
    if !text[at..].starts_with('%') {
        return Err(format!("%{name} has no closing %"));
    }
    Ok((Operator::parse(name, parameter, length, wanted)?, at + 1))
}
