//! A client's socket as hyper uses it, with a count of the reads that brought something, and a note of whether
//! it is full.

use crate::drain::Backlog;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// A counted socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    reads: Arc<AtomicU32>,
    backlog: Backlog,
}

impl Socket {
    /// Around `stream`, counting into `reads`.
    pub(super) fn new(stream: TcpStream, reads: Arc<AtomicU32>, backlog: Backlog) -> Socket {
        Socket { stream: TokioIo::new(stream), reads, backlog }
    }
}

impl Read for Socket {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            // One thread writes this; the others never look.
            self.reads.store(self.reads.load(Relaxed).wrapping_add(1), Relaxed);
        }
        polled
    }
}

impl Write for Socket {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.backlog.note(polled.is_pending());
        polled
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.backlog.note(polled.is_pending());
        polled
    }
}
