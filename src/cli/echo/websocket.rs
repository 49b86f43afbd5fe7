//! The websocket echo (RFC 6455): every frame comes back, unmasked, as it was; pings are answered, a close is
//! returned.
//!
//! Payloads pass through a fixed buffer, so a frame may be of any size. It checks framing, not text encoding, and
//! negotiates no extension.

use std::io;

use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};

/// What the key is joined with before hashing (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const OPCODE_CLOSE: u8 = 0x8;
const OPCODE_PING: u8 = 0x9;
const OPCODE_PONG: u8 = 0xA;
/// Close codes (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
/// The longest payload of a control frame.
const LONGEST_CONTROL: u64 = 125;
const BUFFER: usize = 16 * 1024;

/// Whether a request's head asks for a websocket.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// `Sec-WebSocket-Accept` for the request's key; `None` when the key or the version is not what the RFC says.
pub(super) fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24)?;
    headers.get(header::SEC_WEBSOCKET_VERSION).filter(|version| version.as_bytes() == b"13")?;
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    HeaderValue::from_str(&base64(&hash.digest().bytes())).ok()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// One frame's head as it arrived from a client.
struct Head {
    first: u8,
    length: u64,
    mask: [u8; 4],
}

impl Head {
    fn opcode(&self) -> u8 {
        self.first & 0x0F
    }

    /// Whether a client may send this frame to one that negotiated nothing.
    fn lawful(&self) -> bool {
        let control = self.opcode() >= OPCODE_CLOSE;
        let known = matches!(self.opcode(), 0x0..=0x2 | OPCODE_CLOSE..=OPCODE_PONG);
        let whole = self.first & 0x80 != 0 && self.length <= LONGEST_CONTROL;
        self.first & 0x70 == 0 && known && (!control || whole)
    }
}

/// Echoes until the client closes, breaks the protocol or leaves, or `stop` ends it.
pub(super) async fn echo<S>(stream: S, stop: impl Future<Output = ()>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let mut writer = BufWriter::with_capacity(BUFFER, writer);
    let mut buffer = vec![0; BUFFER];
    tokio::pin!(stop);
    loop {
        let head = tokio::select! {
            head = read_head(&mut reader) => head?,
            () = &mut stop => return close(&mut writer, GOING_AWAY).await,
        };
        let Some(head) = head.filter(Head::lawful) else {
            return close(&mut writer, PROTOCOL_ERROR).await;
        };
        match head.opcode() {
            OPCODE_PING => write_head(&mut writer, 0x80 | OPCODE_PONG, head.length).await?,
            OPCODE_PONG => {}
            _ => write_head(&mut writer, head.first, head.length).await?,
        }
        let mut at = 0;
        while at < head.length {
            let most = usize::try_from(head.length - at).unwrap_or(BUFFER).min(BUFFER);
            let count = reader.read(&mut buffer[..most]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for (offset, byte) in buffer[..count].iter_mut().enumerate() {
                *byte ^= head.mask[(at as usize).wrapping_add(offset) % 4];
            }
            if head.opcode() != OPCODE_PONG {
                writer.write_all(&buffer[..count]).await?;
            }
            at += count as u64;
        }
        writer.flush().await?;
        if head.opcode() == OPCODE_CLOSE {
            return writer.shutdown().await;
        }
    }
}

/// Reads a frame's head; `None` when the client did not mask it, which it must.
async fn read_head(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Head>> {
    let first = reader.read_u8().await?;
    let second = reader.read_u8().await?;
    let length = match second & 0x7F {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        short => u64::from(short),
    };
    if second & 0x80 == 0 {
        return Ok(None);
    }
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).await?;
    Ok(Some(Head { first, length, mask }))
}

async fn write_head(writer: &mut (impl AsyncWrite + Unpin), first: u8, length: u64) -> io::Result<()> {
    writer.write_u8(first).await?;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => writer.write_u8(short).await,
        (_, Ok(medium)) => {
            writer.write_u8(126).await?;
            writer.write_u16(medium).await
        }
        _ => {
            writer.write_u8(127).await?;
            writer.write_u64(length).await
        }
    }
}

async fn close(writer: &mut (impl AsyncWrite + Unpin), code: u16) -> io::Result<()> {
    write_head(writer, 0x80 | OPCODE_CLOSE, 2).await?;
    writer.write_u16(code).await?;
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_rfc_4648_vectors() {
        let check = |bytes: &str, expected| assert_eq!(base64(bytes.as_bytes()), expected);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foobar", "Zm9vYmFy");
    }

    #[test]
    fn the_accept_value_is_the_one_of_rfc_6455() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert_eq!(accept(&headers), None, "without a key");
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(accept(&headers), None, "another version");
    }

    /// Feeds bytes to the echo and collects what it answers until it ends.
    fn echoed(sent: &[u8]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(256 * 1024);
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let _ = echo(server, std::future::pending()).await;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        })
    }

    #[test]
    fn frames_come_back_and_broken_ones_close_the_connection() {
        let check = |sent: &[u8], expected: &[u8]| assert_eq!(echoed(sent), expected, "{sent:x?}");
        // "Hello", masked as in RFC 6455 section 5.7.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        check(&hello, b"\x81\x05Hello");
        check(&[0x89, 0x81, 0, 0, 0, 0, b'p'], b"\x8A\x01p");
        check(&[0x8A, 0x81, 0, 0, 0, 0, b'p'], b"");
        check(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8], b"\x88\x02\x03\xE8");
        check(&[0x81, 0x01, b'x'], b"\x88\x02\x03\xEA");
        check(&[0xC1, 0x81, 0, 0, 0, 0, b'x'], b"\x88\x02\x03\xEA");
        check(&[0x83, 0x80, 0, 0, 0, 0], b"\x88\x02\x03\xEA");
        check(&[0x09, 0x80, 0, 0, 0, 0], b"\x88\x02\x03\xEA");
    }
}
