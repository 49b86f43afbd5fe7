//! The corpus: one row for each way known to us of making two readers disagree. How rows are written stands above.

/// What is to become of a row.
pub enum Wanted {
    /// Nothing reaches the upstream; an error, if anything, comes back.
    Refused,
    /// It breaks off within a body: no whole request reaches the upstream.
    Cut,
    /// Exactly these requests reach the upstream, in this order: method, path, body.
    Carried(&'static [&'static str]),
}

pub struct Row {
    pub name: &'static str,
    pub bytes: &'static str,
    pub wanted: Wanted,
}

const fn refused(name: &'static str, bytes: &'static str) -> Row {
    Row { name, bytes, wanted: Wanted::Refused }
}

const fn cut(name: &'static str, bytes: &'static str) -> Row {
    Row { name, bytes, wanted: Wanted::Cut }
}

const fn carried(name: &'static str, bytes: &'static str, requests: &'static [&'static str]) -> Row {
    Row { name, bytes, wanted: Wanted::Carried(requests) }
}

/// Ends the connection after a row that is carried, so that a run ends.
macro_rules! last {
    () => {
        "GET /last-@ HTTP/1.1\nhost: a\nconnection: close\n\n"
    };
}

pub const CORPUS: &[Row] = &[
    // Two framings at once: resolved as RFC 9112, 6.3 says, and the connection ends.
    carried(
        "CL.TE",
        "POST /@ HTTP/1.1\nhost: a\ncontent-length: 6\ntransfer-encoding: chunked\n\n0\n\nGET /x-@ HTTP/1.1\nhost: a\n\n",
        &["POST /@ \"\""],
    ),
    carried(
        "TE.CL",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ncontent-length: 4\n\n3\nabc\n0\n\nGET /x-@ HTTP/1.1\nhost: a\n\n",
        &["POST /@ \"abc\""],
    ),
    refused("CL, CL", "POST /@ HTTP/1.1\nhost: a\ncontent-length: 3\ncontent-length: 4\n\nabcd"),
    carried(
        "CL twice the same",
        concat!("POST /@ HTTP/1.1\nhost: a\ncontent-length: 3\ncontent-length: 3\n\nabc", last!()),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    refused("a list of CL", "POST /@ HTTP/1.1\nhost: a\ncontent-length: 3, 3\n\nabc"),
    refused("CL with a sign", "POST /@ HTTP/1.1\nhost: a\ncontent-length: +3\n\nabc"),
    refused("negative CL", "POST /@ HTTP/1.1\nhost: a\ncontent-length: -3\n\nabc"),
    refused("hexadecimal CL", "POST /@ HTTP/1.1\nhost: a\ncontent-length: 0x3\n\nabc"),
    refused("CL with a gap", "POST /@ HTTP/1.1\nhost: a\ncontent-length: 3 3\n\nabc"),
    refused(
        "CL without digits",
        "POST /@ HTTP/1.1\nhost: a\ncontent-length:\n\nGET /x-@ HTTP/1.1\nhost: a\n\n",
    ),
    refused("CL over 64 bits", "POST /@ HTTP/1.1\nhost: a\ncontent-length: 18446744073709551619\n\nabc"),
    carried(
        "CL with zeroes",
        concat!("POST /@ HTTP/1.1\nhost: a\ncontent-length: 0003\n\nabc", last!()),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    // Transfer codings that are not plainly `chunked`.
    refused("TE xchunked", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: xchunked\n\n0\n\n"),
    refused(
        "TE chunked, identity",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked, identity\n\n0\n\n",
    ),
    refused(
        "TE identity",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: identity\ncontent-length: 3\n\nabc",
    ),
    refused(
        "TE gzip, chunked",
        "POST /@ HTTP/1.1\nhost: a\nconnection: close\ntransfer-encoding: gzip, chunked\n\n0\n\n",
    ),
    refused(
        "TE chunked, chunked",
        "POST /@ HTTP/1.1\nhost: a\nconnection: close\ntransfer-encoding: chunked, chunked\n\n0\n\n",
    ),
    refused(
        "two TE",
        "POST /@ HTTP/1.1\nhost: a\nconnection: close\ntransfer-encoding: chunked\ntransfer-encoding: chunked\n\n0\n\n",
    ),
    refused(
        "TE chunked, then identity",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ntransfer-encoding: identity\n\n0\n\n",
    ),
    refused("quoted TE", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: \"chunked\"\n\n0\n\n"),
    refused("TE with a parameter", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked;q=1\n\n0\n\n"),
    refused(
        "TE with a control character",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: \u{b}chunked\n\n0\n\n",
    ),
    refused("TE folded", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding:\n chunked\n\n0\n\n"),
    refused("TE before its colon", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding : chunked\n\n0\n\n"),
    refused("TE, tab, colon", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding\t: chunked\n\n0\n\n"),
    refused("TE after a space", "POST /@ HTTP/1.1\nhost: a\n transfer-encoding: chunked\n\n0\n\n"),
    refused("TE first, after a space", "POST /@ HTTP/1.1\n transfer-encoding: chunked\nhost: a\n\n0\n\n"),
    refused("TE in HTTP/1.0", "POST /@ HTTP/1.0\nhost: a\ntransfer-encoding: chunked\n\n0\n\n"),
    carried(
        "TE in capitals, in white space",
        concat!("POST /@ HTTP/1.1\nhost: a\nTransfer-Encoding: \tCHUNKED \n\n1\na\n0\n\n", last!()),
        &["POST /@ \"a\"", "GET /last-@ \"\""],
    ),
    carried(
        "TE with an underscore is no TE",
        concat!("POST /@ HTTP/1.1\nhost: a\ncontent-length: 5\ntransfer_encoding: chunked\n\n0\n\n", last!()),
        &["POST /@ \"0\\r\\n\\r\\n\"", "GET /last-@ \"\""],
    ),
    // Bodies where some expect none, and the other way round.
    carried(
        "CL.0",
        concat!(
            "POST /@ HTTP/1.1\nhost: a\ncontent-length: LEN\n\nGET /x-@ HTTP/1.1\nhost: a\nfoo: b\n\n¶",
            last!()
        ),
        &["POST /@ \"GET /x-@ HTTP/1.1\\r\\nhost: a\\r\\nfoo: b\\r\\n\\r\\n\"", "GET /last-@ \"\""],
    ),
    carried(
        "a body of GET",
        concat!("GET /@ HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc", last!()),
        &["GET /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "chunks of GET",
        concat!("GET /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n", last!()),
        &["GET /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "chunks of DELETE",
        concat!("DELETE /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n", last!()),
        &["DELETE /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "a body of HEAD",
        concat!("HEAD /@ HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc", last!()),
        &["HEAD /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "a body of OPTIONS",
        concat!("OPTIONS /@ HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc", last!()),
        &["OPTIONS /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "a body with Expect",
        concat!("POST /@ HTTP/1.1\nhost: a\nexpect: 100-continue\ncontent-length: 3\n\nabc", last!()),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "a body with an odd Expect",
        concat!("POST /@ HTTP/1.1\nhost: a\nexpect: y 100-continue\ncontent-length: 3\n\nabc", last!()),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "HTTP/1.0 that stays",
        "POST /@ HTTP/1.0\nhost: a\nconnection: keep-alive\ncontent-length: 3\n\nabcGET /last-@ HTTP/1.0\nhost: a\n\n",
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "two in one",
        concat!("GET /@ HTTP/1.1\nhost: a\n\n", last!()),
        &["GET /@ \"\"", "GET /last-@ \"\""],
    ),
    refused(
        "an undrained body of a refused request",
        "POST /@ HTTP/1.1\nhost: u⊕a\ncontent-length: LEN\n\nGET /x-@ HTTP/1.1\nhost: a\nfoo: b\n\n¶GET /x-@ HTTP/1.1\nhost: u⊕a\nconnection: close\n\n",
    ),
    // Chunks.
    carried(
        "a chunk extension",
        concat!("POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3;a=\"b\"\nabc\n0;x\n\n", last!()),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "a size with zeroes and capitals",
        concat!(
            "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n000A\n0123456789\n000\n\n",
            last!()
        ),
        &["POST /@ \"0123456789\"", "GET /last-@ \"\""],
    ),
    cut("LF after a size", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3␊abc\n0\n\n"),
    cut(
        "LF in an extension",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3;␊abc\n0\n\nGET /x-@ HTTP/1.1\nhost: a\n\n",
    ),
    cut("CR in an extension", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3;a␍b\nabc\n0\n\n"),
    cut("LF after a chunk", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabc␊0\n\n"),
    cut(
        "two bytes for CRLF after a chunk",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabcXX0\n\nGET /x-@ HTTP/1.1\nhost: a\n\n",
    ),
    cut(
        "a chunk longer than its size",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabcd\n0\n\n",
    ),
    cut("no size", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n\nabc\n0\n\n"),
    cut("0x3", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0x3\nabc\n0\n\n"),
    cut("+3", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n+3\nabc\n0\n\n"),
    cut("-1", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n-1\nabc\n0\n\n"),
    cut(
        "a size over 64 bits",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n10000000000000003\nabc\n0\n\n",
    ),
    cut("NUL in a size", "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3␀\nabc\n0\n\n"),
    cut(
        "LF for the last line",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0\n␊GET /x-@ HTTP/1.1\nhost: a\n\n",
    ),
    cut(
        "LF in trailers",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0\nx: y␊\nGET /x-@ HTTP/1.1\nhost: a\n\n",
    ),
    carried(
        "trailers that frame",
        concat!(
            "POST /@ HTTP/1.1\nhost: a\nte: trailers\ntransfer-encoding: chunked\n\n1\na\n0\ncontent-length: 5\ntransfer-encoding: chunked\nhost: evil\n\n",
            last!()
        ),
        &["POST /@ \"a\"", "GET /last-@ \"\""],
    ),
    // Lines.
    refused("LF after the request line", "GET /@ HTTP/1.1␊host: a\n\n"),
    refused("LF after a field", "GET /@ HTTP/1.1\nhost: a␊x: y\n\n"),
    refused("LF LF for the end", "GET /@ HTTP/1.1\nhost: a␊␊GET /x-@ HTTP/1.1\nhost: a\n\n"),
    refused("LF for the empty line", "GET /@ HTTP/1.1\nhost: a\n␊"),
    refused(
        "LF hides TE",
        "POST /@ HTTP/1.1\nhost: a\ncontent-length: 5\nx: y␊transfer-encoding: chunked\n\n0\n\n",
    ),
    refused("LF before the request line", "␊GET /@ HTTP/1.1\nhost: a\n\n"),
    carried(
        "LF in the second head",
        "GET /@ HTTP/1.1\nhost: a\n\nGET /x-@ HTTP/1.1\nhost: a␊\n\n",
        &["GET /@ \"\""],
    ),
    carried(
        "LF in the head behind a body",
        "POST /@ HTTP/1.1\nhost: a\ncontent-length: 3\n\na␊bGET /x-@ HTTP/1.1\nhost: a␊\n\n",
        &["POST /@ \"a\\nb\""],
    ),
    carried(
        "LF in the head behind chunks",
        "POST /@ HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n1\n␊\n0\n\nGET /x-@ HTTP/1.1␊host: a\n\n",
        &["POST /@ \"\\n\""],
    ),
    refused("CR in a value", "GET /@ HTTP/1.1\nhost: a\nx: y␍z\n\n"),
    refused("CR for CRLF", "GET /@ HTTP/1.1\nhost: a␍x: y\n\n"),
    refused("CR CR LF", "GET /@ HTTP/1.1\nhost: a␍\n\n"),
    refused("NUL in a value", "GET /@ HTTP/1.1\nhost: a\nx: y␀z\n\n"),
    refused("NUL in a name", "GET /@ HTTP/1.1\nhost: a\nx␀: y\n\n"),
    refused("NUL in the path", "GET /@␀ HTTP/1.1\nhost: a\n\n"),
    refused("obs-fold", "GET /@ HTTP/1.1\nhost: a\nx: y\n z\n\n"),
    refused("obs-fold by tab", "GET /@ HTTP/1.1\nhost: a\nx: y\n\ttransfer-encoding: chunked\n\n"),
    refused("a line without a colon", "GET /@ HTTP/1.1\nhost: a\nx\n\n"),
    refused("a field without a name", "GET /@ HTTP/1.1\nhost: a\n: y\n\n"),
    refused("a space in a name", "GET /@ HTTP/1.1\nhost: a\nx y: z\n\n"),
    carried(
        "empty lines before the request line",
        concat!("\n\nGET /@ HTTP/1.1\nhost: a\n\n\n", last!()),
        &["GET /@ \"\"", "GET /last-@ \"\""],
    ),
    refused("a space before the request line", " GET /@ HTTP/1.1\nhost: a\n\n"),
    // Request lines.
    refused("HTTP/0.9", "GET /@\n\n"),
    refused("HTTP/1.2", "GET /@ HTTP/1.2\nhost: a\n\n"),
    refused("HTTP/2.0 in a line", "GET /@ HTTP/2.0\nhost: a\n\n"),
    refused("http in small letters", "GET /@ http/1.1\nhost: a\n\n"),
    refused("two spaces", "GET  /@ HTTP/1.1\nhost: a\n\n"),
    refused("tabs for spaces", "GET\t/@\tHTTP/1.1\nhost: a\n\n"),
    refused("a space in the path", "GET /@ x HTTP/1.1\nhost: a\n\n"),
    refused("a space behind the version", "GET /@ HTTP/1.1 \nhost: a\n\n"),
    refused("a path without a root", "GET x-@ HTTP/1.1\nhost: a\nconnection: close\n\n"),
    refused(
        "CONNECT with a body",
        "CONNECT a:80 HTTP/1.1\nhost: a:80\ncontent-length: LEN\n\nGET /x-@ HTTP/1.1\nhost: a\nfoo: b\n\n¶GET /x-@ HTTP/1.1\nhost: u⊕a\nconnection: close\n\n",
    ),
    // Who is meant.
    refused("no Host", "GET /@ HTTP/1.1\nconnection: close\n\n"),
    refused("two Hosts", "GET /@ HTTP/1.1\nhost: a\nhost: b\nconnection: close\n\n"),
    refused("the same Host twice", "GET /@ HTTP/1.1\nhost: a\nHost: a\nconnection: close\n\n"),
    refused("a list of Hosts", "GET /@ HTTP/1.1\nhost: a, b\nconnection: close\n\n"),
    refused("Host with a user", "GET /@ HTTP/1.1\nhost: a⊕b\nconnection: close\n\n"),
    refused("Host with a path", "GET /@ HTTP/1.1\nhost: a/b\nconnection: close\n\n"),
    refused("Host before its colon", "GET /@ HTTP/1.1\nhost : a\n\n"),
    refused("a user in the target", "GET http://u⊕b/@ HTTP/1.1\nhost: b\nconnection: close\n\n"),
    carried(
        "an absolute target wins",
        "GET http://b/@ HTTP/1.1\nhost: a\nconnection: close\n\n",
        &["GET /@ \"\""],
    ),
    carried(
        "two slashes are no authority",
        "GET //b/@ HTTP/1.1\nhost: a\nconnection: close\n\n",
        &["GET //b/@ \"\""],
    ),
    // What belongs to one connection.
    carried(
        "Connection names framing and Host",
        concat!(
            "POST /@ HTTP/1.1\nhost: a\nconnection: content-length, host, transfer-encoding\ncontent-length: 3\n\nabc",
            last!()
        ),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    carried(
        "h2c",
        concat!(
            "GET /@ HTTP/1.1\nhost: a\nconnection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\n\n",
            last!()
        ),
        &["GET /@ \"\"", "GET /last-@ \"\""],
    ),
    carried(
        "an upgrade that is declined",
        concat!("GET /@ HTTP/1.1\nhost: a\nconnection: upgrade\nupgrade: websocket\n\n", last!()),
        &["GET /@ \"\"", "GET /last-@ \"\""],
    ),
    carried(
        "an upgrade with a body",
        concat!(
            "POST /@ HTTP/1.1\nhost: a\nconnection: upgrade\nupgrade: websocket\ncontent-length: 3\n\nabc",
            last!()
        ),
        &["POST /@ \"abc\"", "GET /last-@ \"\""],
    ),
    refused("the preface with another end", "PRI * HTTP/2.0\n\nSX\n\nGET /x-@ HTTP/1.1\nhost: a\n\n"),
];
