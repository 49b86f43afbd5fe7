//! An upstream's socket as hyper uses it, and how small messages are written on either side: in one piece.
//!
//! hyper hands over head and body as a list. For the system a list costs more than one short text, and most
//! answers are short; what is long goes as the list it is, uncopied.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

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
    let mut piece = SmallVec::<[u8; PIECE]>::new();
    list.iter().for_each(|part| piece.extend_from_slice(part));
    stream.poll_write(cx, &piece)
}

/// An upstream's socket.
#[derive(Debug)]
pub(super) struct Wire<S>(TokioIo<S>);

impl<S> Wire<S> {
    /// Around `stream`.
    pub(super) fn new(stream: S) -> Wire<S> {
        Wire(TokioIo::new(stream))
    }
}

impl<S> Read for Wire<S>
where
    S: Unpin,
    TokioIo<S>: Read,
{
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> Write for Wire<S> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.0.inner_mut()).poll_write(cx, buf)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.inner_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.inner_mut()).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.inner().is_write_vectored()
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        list: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_list(Pin::new(self.0.inner_mut()), cx, list)
    }
}
