//! Records as lines: values in text or in JSON, foreign bytes made harmless on the way.

use super::escape;
use super::format::{Part, Piece};
use super::operator::{End, GRPC, GrpcForm, Operator, Part as AddressPart, Source};
use super::time::Epoch;
use crate::record::Record;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Appends one line.
pub(super) fn line(parts: &[Part], record: &Record, epoch: Epoch, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Text(operator) => Text(out).put(operator, record, epoch),
            Part::Value(operator) => Json(out).put(operator, record, epoch),
            Part::Mixed(pieces) => {
                out.push(b'"');
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => escape::json(out, text.as_bytes()),
                        Piece::Operator(operator) => Inside(out).put(operator, record, epoch),
                    }
                }
                out.push(b'"');
            }
        }
    }
}

/// How the kinds of values are written.
pub(super) trait Values {
    fn nothing(&mut self);
    fn number(&mut self, value: u64);
    /// Bytes from anywhere.
    fn bytes(&mut self, value: &[u8]);
    /// Something that consists of harmless characters only.
    fn harmless(&mut self, write: impl FnOnce(&mut Vec<u8>));

    fn text(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.bytes(value.as_bytes()),
            None => self.nothing(),
        }
    }

    fn put(&mut self, operator: &Operator, record: &Record, epoch: Epoch) {
        match operator {
            Operator::StartTime(format) => {
                self.harmless(|out| format.write(epoch.wall(record.started), out));
            }
            Operator::Header(first, second, length) => {
                header(self, first, second.as_ref(), length.unwrap_or(usize::MAX), record);
            }
            Operator::Protocol => self.text(Some(record.protocol.as_str())),
            Operator::ResponseCode => self.number(record.status.into()),
            Operator::Flags if record.flags.is_empty() => self.text(Some("-")),
            Operator::Flags => self.harmless(|out| print(out, record.flags)),
            Operator::FlagsLong if record.flags.is_empty() => self.text(Some("-")),
            Operator::FlagsLong => self.harmless(|out| {
                for (nth, name) in record.flags.long().enumerate() {
                    out.extend_from_slice(if nth > 0 { b"," } else { b"" });
                    out.extend_from_slice(name.as_bytes());
                }
            }),
            Operator::Details => self.text(Some(&*record.details).filter(|text| !text.is_empty())),
            Operator::TransportFailure => self.text(record.reason.as_deref()),
            Operator::BytesReceived => self.number(record.bytes_received),
            Operator::BytesSent => self.number(record.bytes_sent),
            Operator::Duration => self.number(record.duration.as_millis() as u64),
            Operator::Route => self.text(record.route.as_deref()),
            Operator::Cluster => self.text(record.cluster.as_deref()),
            Operator::Attempts => self.number(record.attempts.into()),
            Operator::GrpcStatus(form) => grpc(self, *form, record.grpc_status),
            Operator::Address(end, part) => address(self, at(*end, record), *part),
            Operator::Secured(fact) => fact.put(self, record),
            Operator::Fixed(text) => self.text(Some(text)),
            Operator::Absent => self.nothing(),
        }
    }
}

/// A line of text; nothing is `-`.
struct Text<'a>(&'a mut Vec<u8>);

impl Values for Text<'_> {
    fn nothing(&mut self) {
        self.0.push(b'-');
    }
    fn number(&mut self, value: u64) {
        digits(self.0, value);
    }
    fn bytes(&mut self, value: &[u8]) {
        escape::text(self.0, value);
    }
    fn harmless(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.0);
    }
}

/// A JSON value of its own; nothing is `null`.
struct Json<'a>(&'a mut Vec<u8>);

impl Values for Json<'_> {
    fn nothing(&mut self) {
        self.0.extend_from_slice(b"null");
    }
    fn number(&mut self, value: u64) {
        digits(self.0, value);
    }
    fn bytes(&mut self, value: &[u8]) {
        self.harmless(|out| escape::json(out, value));
    }
    fn harmless(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(b'"');
        write(self.0);
        self.0.push(b'"');
    }
}

/// Within a JSON string; nothing is `-`.
struct Inside<'a>(&'a mut Vec<u8>);

impl Values for Inside<'_> {
    fn nothing(&mut self) {
        self.0.push(b'-');
    }
    fn number(&mut self, value: u64) {
        digits(self.0, value);
    }
    fn bytes(&mut self, value: &[u8]) {
        escape::json(self.0, value);
    }
    fn harmless(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.0);
    }
}

fn digits(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn print(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // A vector takes everything.
    let _ = write!(out, "{value}");
}

fn header<V: Values + ?Sized>(
    values: &mut V,
    first: &Source,
    second: Option<&Source>,
    length: usize,
    record: &Record,
) {
    for source in [Some(first), second].into_iter().flatten() {
        let bytes = match source {
            Source::Method => record.method.as_str().as_bytes(),
            Source::Path => match &record.target {
                Some(target) => target.as_str().as_bytes(),
                None => continue,
            },
            Source::Authority => match &record.authority {
                Some(authority) => authority.as_bytes(),
                None => continue,
            },
            Source::Captured(slot) => match record.captured.get(*slot) {
                Some(value) => value.as_bytes(),
                None => continue,
            },
            Source::Status if record.status != 0 => {
                return values.harmless(|out| digits(out, record.status.into()));
            }
            Source::ServiceTime => match record.service_time {
                Some(time) => return values.harmless(|out| digits(out, time.as_millis() as u64)),
                None => continue,
            },
            Source::Status | Source::Nothing => continue,
        };
        return values.bytes(&bytes[..bytes.len().min(length)]);
    }
    values.nothing();
}

fn grpc<V: Values + ?Sized>(values: &mut V, form: GrpcForm, status: Option<u8>) {
    let Some(status) = status else { return values.nothing() };
    match (form, GRPC.get(usize::from(status))) {
        (GrpcForm::Camel, Some((camel, _))) => values.text(Some(camel)),
        (GrpcForm::Snake, Some((_, snake))) => values.text(Some(snake)),
        (GrpcForm::Number, _) | (_, None) => values.number(status.into()),
    }
}

fn at(end: End, record: &Record) -> Option<SocketAddr> {
    match end {
        End::UpstreamHost => record.upstream_host,
        End::UpstreamLocal => record.upstream_local,
        End::DownstreamLocal => Some(record.downstream_local),
        End::DownstreamRemote => Some(record.downstream_remote),
    }
}

fn address<V: Values + ?Sized>(values: &mut V, address: Option<SocketAddr>, part: AddressPart) {
    let Some(address) = address else { return values.nothing() };
    match part {
        AddressPart::Whole => values.harmless(|out| match address.ip() {
            IpAddr::V4(ip) => {
                dotted(out, ip);
                out.push(b':');
                digits(out, address.port().into());
            }
            IpAddr::V6(_) => print(out, address),
        }),
        AddressPart::Host => values.harmless(|out| match address.ip() {
            IpAddr::V4(ip) => dotted(out, ip),
            IpAddr::V6(ip) => print(out, ip),
        }),
        AddressPart::Port => values.number(address.port().into()),
    }
}

/// As `Display` writes it, without the formatter: four of these are in every line.
fn dotted(out: &mut Vec<u8>, ip: Ipv4Addr) {
    for (nth, octet) in ip.octets().into_iter().enumerate() {
        if nth > 0 {
            out.push(b'.');
        }
        digits(out, octet.into());
    }
}
