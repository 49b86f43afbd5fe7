//! Answers that two readers could take for different ones, or for several: a client gets one answer for one request,
//! and never a byte of what an upstream says beside it.

use crate::support::frames::{self, END_HEADERS, HEADERS, SETTINGS, frame};
use crate::support::{Proxy, RawClient, RawOrigin, eventually, millis, seconds, yaml};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

/// What an upstream would like a client to take for an answer of its own.
const SECOND: &str = "HTTP/1.1 200 OK\ncontent-length: 4\n\nEVIL";

/// What is to become of an answer.
#[derive(Clone, Copy)]
enum Wanted {
    /// It comes with this status and body.
    Is(u16, &'static str),
    /// 502.
    Refused,
    /// It begins, and breaks off: the connection ends before the answer does.
    Cut,
}
use Wanted::{Cut, Is, Refused};

/// Method, what the upstream says, `@` being [`SECOND`], and what becomes of it.
const CORPUS: &[(&str, &str, Wanted)] = &[
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok@", Is(200, "ok")),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 2\ncontent-length: 2\n\nok@", Is(200, "ok")),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\nok\n0\n\n@", Is(200, "ok")),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2;a=b\nok\n0\nx-evil: 1\n\n@", Is(200, "ok")),
    (
        "GET",
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nlink: x\n\nHTTP/1.1 200 OK\ncontent-length: 2\n\nok@",
        Is(200, "ok"),
    ),
    ("HEAD", "HTTP/1.1 200 OK\ncontent-length: 45\n\n@", Is(200, "")),
    ("GET", "HTTP/1.1 204 No Content\n\n@", Is(204, "")),
    ("GET", "HTTP/1.1 304 Not Modified\ncontent-length: 45\n\n@", Is(304, "")),
    // Several framings, odd ones.
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 5\ntransfer-encoding: chunked\n\n0\n\n@", Refused),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ncontent-length: 5\n\n0\n\n@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 2\ncontent-length: 50\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 50\ncontent-length: 2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 2, 50\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: +2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: -2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 0x2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 18446744073709551618\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: xchunked\n\n2\nok\n0\n\n@", Refused),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked, identity\n\n2\nok\n0\n\n@", Refused),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: gzip, chunked\n\n2\nok\n0\n\n@", Refused),
    (
        "GET",
        "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ntransfer-encoding: chunked\n\n2\nok\n0\n\n@",
        Refused,
    ),
    ("GET", "HTTP/1.0 200 OK\ntransfer-encoding: chunked\n\n2\nok\n0\n\n@", Refused),
    ("GET", "HTTP/1.1 200 OK\ncontent-length : 2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\n content-length: 2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\nx: a\n b\ncontent-length: 2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\nx: a␀b\ncontent-length: 2\n\nok@", Refused),
    ("GET", "HTTP/1.1 200 OK\nx: a␍b\ncontent-length: 2\n\nok@", Refused),
    ("GET", "HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: x\n\n@", Refused),
    ("GET", "HTTP/1.1 103 Early Hints\ncontent-length: 4\n\nEVIL@", Refused),
    ("GET", "HTTP/9.9 200 OK\ncontent-length: 2\n\nok@", Refused),
    ("GET", "EVIL", Refused),
    ("GET", "HTTP/1.1 2000 OK\ncontent-length: 2\n\nok@", Refused),
    // Bodies that break off.
    ("GET", "HTTP/1.1 200 OK\ncontent-length: 200\n\nok@", Cut),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\nzz\nok\n0\n\n@", Cut),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n-2\nok\n0\n\n@", Cut),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\nokok\n0\n\n@", Cut),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\nfffffffffffffffff\nok\n0\n\n@", Cut),
    ("GET", "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2␊ok␊0␊␊@", Cut),
];

/// One answer as an exact reader takes it; `None`: there is no whole one.
fn take(text: &mut &str, head: bool) -> Option<(u16, String)> {
    let (fields, rest) = text.split_once("\r\n\r\n")?;
    let status = fields.get(9..12)?.parse().ok()?;
    let lower = fields.to_lowercase();
    let field = |name: &str| lower.lines().find_map(|line| line.strip_prefix(name));
    *text = rest;
    let mut body = String::new();
    if head || status == 204 || status == 304 {
        return Some((status, body));
    }
    if let Some(length) = field("content-length: ") {
        let length: usize = length.trim().parse().ok()?;
        body = rest.get(..length)?.to_owned();
        *text = &rest[length..];
        return Some((status, body));
    }
    field("transfer-encoding: chunked")?;
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        let (part, after) = (rest.get(..size)?, rest.get(size..)?);
        body += part;
        *text = after.strip_prefix("\r\n")?;
        if size == 0 {
            return Some((status, body));
        }
    }
}

fn check(proxy: &Proxy, number: usize, split: usize) {
    let (method, said, wanted) = &CORPUS[number];
    let mut client = proxy.front().raw();
    client.send(&format!(
        "{method} /{number}/{split} HTTP/1.1\nhost: a\n\nGET /next HTTP/1.1\nhost: a\nconnection: close\n\n"
    ));
    let all = client.read_to_end();
    let mut text = all.as_str();
    let first = take(&mut text, *method == "HEAD");
    let chunked = said.contains("chunked");
    let fits = match wanted {
        Is(status, body) => first == Some((*status, (*body).to_owned())),
        Refused => first.as_ref().is_some_and(|(status, _)| *status == 502),
        // Nothing of it may have been sent yet. What is within a length is the answer's own.
        Cut => first.as_ref().is_none_or(|(status, _)| *status == 502) && !(chunked && all.contains("EVIL")),
    };
    assert!(fits, "{said:?} in {split} parts: {all:?}");
    let next = first.and_then(|_| take(&mut text, false));
    let whole = next.is_none() || next == Some((200, "next".to_owned()));
    assert!(whole && (next.is_some() || matches!(wanted, Cut)), "{said:?} in {split} parts: {all:?}");
    assert!(
        text.is_empty() || matches!(wanted, Cut),
        "{said:?} in {split} parts: {text:?} is left of {all:?}"
    );
    assert!(!all.contains("EVIL") || matches!(wanted, Cut), "{all:?}");
}

#[test]
fn one_request_gets_one_answer_whatever_else_an_upstream_says() {
    let origin = RawOrigin::script(|mut connection, _| {
        while !connection.is_at_end() {
            let head = connection.read_head();
            let mut path = head.split(['/', ' ']).skip(2);
            let number: Option<usize> = path.next().and_then(|number| number.parse().ok());
            let Some(number) = number else {
                connection.send("HTTP/1.1 200 OK\ncontent-length: 4\n\nnext");
                continue;
            };
            let parts: usize = path.next().unwrap().parse().unwrap();
            let text = CORPUS[number].1.replace('@', SECOND).replace('\n', "\r\n");
            let text = text.replace('␊', "\n").replace('␍', "\r").replace('␀', "\0");
            // What comes beside an answer comes with its last byte: later it could be the next request's.
            let last = text.rfind("HTTP/1.1 200 OK").filter(|at| *at > 0).map_or(text.len(), |at| at - 1);
            let (own, rest) = text.as_bytes().split_at(last);
            for part in own.chunks(own.len().div_ceil(parts).max(1)).chain([rest]) {
                if !connection.offer(part) {
                    return;
                }
                std::thread::sleep(millis(3));
            }
            if matches!(CORPUS[number].2, Cut) || text == "EVIL" {
                return;
            }
        }
    });
    let text = yaml::all_to_with("HTTP", &[origin.address()], "retries: {}\ntimeout: 5s");
    let proxy = Proxy::with(text).access_log("off").start();
    std::thread::scope(|scope| {
        for parts in [1, 2, 3, 7, 1000] {
            let proxy = &proxy;
            scope.spawn(move || (0..CORPUS.len()).for_each(|number| check(proxy, number, parts)));
        }
    });
}

/// An upstream that says `first` and then `again` to every request, as long as anybody listens.
fn flood(first: Vec<u8>, again: Vec<u8>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (first, again) = (first.clone(), again.clone());
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&first);
                let began = Instant::now();
                while began.elapsed() < seconds(20) && stream.write_all(&again).is_ok() {}
            });
        }
    });
    address
}

#[test]
fn informational_answers_without_end_are_a_502_and_others_are_served() {
    let interim = frames::block(&[(":status", "103"), ("link", "x")]);
    let interim = frame(HEADERS, END_HEADERS, 1, &interim);
    let rows = [
        ("HTTP", flood(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100))),
        (
            "HTTP",
            flood(Vec::new(), format!("HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n", "y".repeat(5000)).into()),
        ),
        ("HTTP2", flood(frame(SETTINGS, 0, 0, &[]), interim.repeat(100))),
    ];
    for (protocol, address) in rows {
        let text = yaml::all_to_with(protocol, &[address], "retries: {}");
        let proxy = Proxy::with(text).workers(1).start();
        let began = Instant::now();
        let answer = proxy.get("/flooded").send().expect(502);
        assert!(began.elapsed() < seconds(5), "{protocol}: {:?}", began.elapsed());
        assert!(!answer.text().contains("Continue"), "{}", answer.text());
        proxy.access_line(&["/flooded", " 502 UPE ", "informational answers without end"]);
        let count = || proxy.metrics().sum("pilotlight_faults_total", &[("fault", "BadResponse")]);
        eventually("it is counted", seconds(5), || (count() == 1.0).then_some(()));
    }
}

#[test]
fn a_few_informational_answers_are_passed_over() {
    let origin = RawOrigin::script(|mut connection: RawClient, _| {
        while !connection.is_at_end() {
            connection.read_head();
            connection.send(&"HTTP/1.1 103 Early Hints\nlink: </x>\n\n".repeat(50));
            connection.send("HTTP/1.1 200 OK\ncontent-length: 2\n\nok");
        }
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    // More in all than one request may have.
    for _ in 0..30 {
        assert_eq!(proxy.get("/").send().expect(200).text(), "ok");
    }
}
