//! HTTP/2 heads that would become another request, or two, where they are written out in HTTP/1.

use crate::support::frames::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, frame};
use crate::support::recorder::Recorder;
use crate::support::{Proxy, yaml};

struct Row {
    fields: Vec<(String, String)>,
    body: &'static str,
    trailers: &'static [(&'static str, &'static str)],
    wanted: Option<&'static str>,
}

/// An ordinary POST with a change: a field of the same name is replaced, another is added; an empty name takes the
/// field away whose name is its value.
fn row(change: &[(&str, &str)], body: &'static str, wanted: Option<&'static str>) -> Row {
    let ordinary = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/@")];
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut fields: Vec<(String, String)> = ordinary.iter().map(owned).collect();
    for (name, value) in change {
        match fields.iter_mut().find(|(n, _)| n == name) {
            Some(field) => field.1 = (*value).to_owned(),
            None if name.is_empty() => fields.retain(|(n, _)| n != value),
            None => fields.push(((*name).to_owned(), (*value).to_owned())),
        }
    }
    Row { fields, body, trailers: &[], wanted }
}

fn twice(name: &str, value: &str) -> Row {
    let mut row = row(&[("", name)], "", None);
    let field = (name.to_owned(), value.to_owned());
    let at = if name.starts_with(':') { 0 } else { row.fields.len() };
    row.fields.insert(at, field.clone());
    row.fields.insert(at, field);
    row
}

const REFUSED: &[(&str, &str)] = &[
    ("x", "a\r\ny: z"),
    ("x", "a\ny: z"),
    ("x", "a\r"),
    ("x", "a\0"),
    ("x: y\r\nz", "a"),
    ("x y", "a"),
    ("x:", "a"),
    ("X-Upper", "a"),
    ("x\0", "a"),
    (":path", "/@ HTTP/1.1\r\nhost: a\r\n\r\nGET /x-@"),
    (":path", "/@\r\nx: y"),
    (":path", "/@ x"),
    (":path", "x-@"),
    (":path", ""),
    (":path", "*"),
    (":method", "GET /x-@ HTTP/1.1\r\nx"),
    (":method", "GET x"),
    (":method", ""),
    (":method", "CONNECT"),
    (":scheme", "ftp"),
    (":authority", "a\r\nx: y"),
    (":authority", "u@a"),
    (":authority", "a b"),
    ("host", "b"),
    ("transfer-encoding", "chunked"),
    ("connection", "close"),
    ("connection", "content-length"),
    ("keep-alive", "1"),
    ("proxy-connection", "close"),
    ("upgrade", "websocket"),
    ("te", "gzip"),
    ("content-length", "4"),
    ("content-length", "2"),
    ("content-length", "3, 3"),
    ("content-length", "+3"),
    ("content-length", "0x3"),
    (":status", "200"),
    (":other", "x"),
    (":protocol", "websocket"),
    ("", ":method"),
    ("", ":path"),
    ("", ":scheme"),
];

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = REFUSED.iter().map(|change| row(&[*change], "abc", None)).collect();
    rows.extend([
        twice(":path", "/x-@"),
        twice(":method", "GET"),
        twice("host", "a"),
        twice(":authority", "a"),
        row(&[], "abc", Some("POST /@ \"abc\"")),
        row(&[("content-length", "3")], "abc", Some("POST /@ \"abc\"")),
        row(&[("te", "trailers"), ("host", "a")], "abc", Some("POST /@ \"abc\"")),
        row(&[(":path", "//b/@")], "", Some("POST //b/@ \"\"")),
        row(
            &[],
            "0\r\n\r\nGET /x-@ HTTP/1.1\r\n\r\n",
            Some("POST /@ \"0\\r\\n\\r\\nGET /x-@ HTTP/1.1\\r\\n\\r\\n\""),
        ),
        row(
            &[(":method", "GET")],
            "GET /x-@ HTTP/1.1\r\n\r\n",
            Some("GET /@ \"GET /x-@ HTTP/1.1\\r\\n\\r\\n\""),
        ),
    ]);
    let trailers = |trailers, wanted| Row { trailers, ..row(&[("te", "trailers")], "abc", wanted) };
    rows.extend([
        trailers(&[("content-length", "9"), ("host", "b"), ("x-ok", "1")], Some("POST /@ \"abc\"")),
        trailers(&[(":path", "/x-@")], Some("POST /@ \"abc\"")),
        trailers(&[("transfer-encoding", "chunked")], None),
        trailers(&[("x", "a\r\n\r\nGET /x-@ HTTP/1.1")], None),
    ]);
    rows
}

/// Sends a row on a connection of its own, until something is known about it.
fn send(proxy: &Proxy, row: &Row, id: &str) {
    let mark = |text: &str| text.replace("/@", &format!("/{id}")).replace("x-@", &format!("x-{id}"));
    let fields: Vec<(&str, String)> = row.fields.iter().map(|(name, value)| (&**name, mark(value))).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
    let body = mark(row.body);
    let mut client = Frames::to(proxy.front().address(), &[]);
    let bare = body.is_empty() && row.trailers.is_empty();
    let last = if bare { END_STREAM } else { 0 };
    client.send(&frame(HEADERS, END_HEADERS | last, 1, &frames::block(&fields)));
    if !bare {
        let last = if row.trailers.is_empty() { END_STREAM } else { 0 };
        client.send(&frame(DATA, last, 1, body.as_bytes()));
    }
    if !row.trailers.is_empty() {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(row.trailers)));
    }
    client.outcome(1);
}

#[test]
fn an_http2_head_becomes_one_http1_head_or_none() {
    let recorder = Recorder::start();
    let proxy = Proxy::with(yaml::all_to("HTTP", &[recorder.address()])).access_log("off").start();
    let mut wrong = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        let id = format!("{number:06}");
        send(&proxy, &row, &id);
        let brought = recorder.brought();
        let seen: Vec<_> = brought.requests.iter().filter(|r| r.path.contains(&id)).collect();
        let lines: Vec<String> = seen.iter().map(|request| request.line()).collect();
        let wanted: Vec<String> = row.wanted.iter().map(|line| line.replace('@', &id)).collect();
        let kept = seen.iter().flat_map(|request| &request.trailers).filter(|(name, _)| name != "x-ok");
        if lines != wanted || kept.count() > 0 {
            wrong.push(format!("{:?}: wanted {wanted:?}, the upstream saw {seen:?}", row.fields));
        }
    }
    let brought = recorder.brought();
    assert!(brought.doubtful.is_empty(), "{:#?}", brought.doubtful);
    assert!(brought.requests.iter().all(|r| !r.path.contains("x-")), "{:#?}", brought.requests);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
