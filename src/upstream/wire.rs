//! An upstream's socket as hyper uses it, and how small messages are written on either side: in one piece.
//!
//! hyper passes over informational answers without counting them; here an upstream that has no other is cut off.
//! hyper hands over head and body as a list. For the system a list costs more than one short text, and most
//! answers are short; what is long goes as the list it is, uncopied.

use super::connect::Link;
use super::heads::Heads;
use super::nudge::Nudge;
use super::sent::Sent;
use crate::tls::Stream;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is put together before it is written, at most.
const PIECE: usize = 1024;

/// Writes a list, as one piece if it is short.
#[inline]
pub fn poll_write_list<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    list: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = list {
        return stream.poll_write(cx, one);
    }
    if list.iter().map(|part| part.len()).sum::<usize>() > PIECE {
        return stream.poll_write_vectored(cx, list);
    }
    let (mut piece, mut length) = ([MaybeUninit::uninit(); PIECE], 0);
    for part in list {
        let (_, room) = piece.split_at_mut(length);
        room[..part.len()].write_copy_of_slice(part);
        length += part.len();
    }
    // SAFETY: so many bytes have been written, one part behind the other.
    stream.poll_write(cx, unsafe { piece[..length].assume_init_ref() })
}

/// What is wrong with an upstream that says 1xx and nothing else.
const FLOOD: &str = "informational answers without end";

#[cold]
fn flood() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, FLOOD)
}

/// Whether it is what [`flood`] makes, or what is left of that when it has gone through h2.
pub(super) fn is_flood(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData && error.to_string() == FLOOD
}

/// What knows when too much has come before an answer; and, of HTTP/1, what keeps heads that are to be sent again.
#[derive(Debug)]
pub(super) enum Watch {
    /// Bytes, while an answer is awaited.
    Http1(Arc<Nudge>, Arc<Sent>),
    /// Heads.
    Http2(Heads),
}

/// An upstream's socket.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Link,
    watch: Watch,
}

impl Wire {
    /// Around `stream`.
    pub(super) fn new(stream: Link, watch: Watch) -> Wire {
        Wire { stream, watch }
    }

    /// Has the system reset the connection instead of closing it: nobody waits for the answer any more. The peer need
    /// not tell whether that was only the end of the request, and no port is kept from use for the minute in which
    /// something late might come: many clients who do not wait would take them all.
    #[cold]
    fn abandon(&self) {
        let socket = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // One that refuses has ended already.
        let _ = socket.set_zero_linger();
    }

    /// Something is about to be written.
    #[inline]
    fn note(&self, bytes: &[u8]) {
        if let Watch::Http1(_, sent) = &self.watch {
            sent.note(bytes);
        }
    }
}

impl Read for Wire {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Wire { stream, watch } = self.get_mut();
        if let Watch::Http1(nudge, _) = watch
            && nudge.is_flooded()
        {
            return Poll::Ready(Err(flood()));
        }
        // SAFETY: nothing is ever made uninitialized: `ReadBuf` only fills it.
        let mut read = ReadBuf::uninit(unsafe { buf.as_mut() });
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        let came = read.filled();
        let length = came.len();
        let bounded = match watch {
            Watch::Http1(nudge, _) => {
                nudge.came(length);
                true
            }
            Watch::Http2(heads) => heads.came(came),
        };
        if !bounded {
            return Poll::Ready(Err(flood()));
        }
        // SAFETY: so many bytes have been filled.
        unsafe { buf.advance(length) };
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note(buf);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Watch::Http1(nudge, _) = &self.watch
            && nudge.awaits_all()
        {
            self.abandon();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        list: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper writes a head as one part, before anything else.
        self.note(list.first().map_or(&[], |part| &part[..]));
        poll_write_list(Pin::new(&mut self.stream), cx, list)
    }
}
