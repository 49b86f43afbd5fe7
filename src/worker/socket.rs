//! A client's socket as hyper uses it: its HTTP/1 heads are looked at on the way in, and the board is told what
//! moves and whether it is full.

use super::connection::HTTP2_PREFACE;
use super::entry::{ClientStream, has_closed};
use crate::drain::Backlog;
use crate::http::Frames;
use crate::http::line::{Inlet, Line};
use crate::upstream::poll_write_list;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client's socket, or what decrypts it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: ClientStream,
    line: Arc<Line>,
    inlet: Inlet,
    /// Those of an HTTP/2 client.
    frames: Option<Box<Frames>>,
    /// What was read behind a head whose exchange had not begun.
    held: Vec<u8>,
    backlog: Backlog,
    /// A flush found the way full: only what encrypts keeps something to flush.
    flushing: bool,
}

impl Socket {
    /// Around `stream`; `line` is what its exchanges know of it.
    pub(super) fn new(stream: ClientStream, http2: bool, line: Arc<Line>, backlog: Backlog) -> Socket {
        let inlet = if http2 { Inlet::open() } else { Inlet::default() };
        let frames = http2.then(|| Box::new(Frames::behind(HTTP2_PREFACE.len())));
        Socket { stream, line, inlet, frames, held: Vec::new(), backlog, flushing: false }
    }

    /// Gives of what is held as much as may pass.
    #[cold]
    fn give_held(&mut self, buf: &mut ReadBufCursor<'_>) -> io::Result<()> {
        let most = self.held.len().min(buf.remaining());
        let passed = self.inlet.pass(&mut self.held[..most], &self.line);
        buf.put_slice(&self.held[..passed]);
        self.held.drain(..passed);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        match passed {
            0 if !self.inlet.is_broken() => Err(unasked()),
            _ => Ok(()),
        }
    }

    fn note_write(&mut self, pending: bool) {
        self.backlog.note(pending);
        self.line.blocked.store(u32::from(pending), Relaxed);
        if !pending {
            count(&self.line.writes);
        }
    }
}

/// One thread writes these; the others never look.
fn count(counter: &AtomicU32) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Has the task run again when others have had their turn, those too of whom only the system knows yet that they have
/// something: being woken at once is being in front of them.
fn after_others(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// hyper reads on although the exchange whose head it has read has not begun: it never does.
#[cold]
fn unasked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a body was read before its head was understood")
}

impl Read for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() {
            return Poll::Ready(this.give_held(&mut buf));
        }
        let (turn, used) = (this.line.turn.load(Relaxed), this.line.used.load(Relaxed));
        if used >= turn {
            // There may be more at once. Of HTTP/2 it is read when the connection runs anew: for each request that it
            // finds, hyper asks here once more.
            if this.frames.is_none() {
                this.line.used.store(0, Relaxed);
            } else if has_closed(&this.stream) {
                // Of what it asked for it takes nothing any more: what else there is needs no looking at.
                return Poll::Ready(Ok(()));
            }
            after_others(cx);
            return Poll::Pending;
        }
        // Of small frames very many come with one read.
        let room = buf.remaining().min(turn as usize);
        // SAFETY: nothing is ever made uninitialized: `ReadBuf` only fills it.
        let mut read = ReadBuf::uninit(unsafe { &mut buf.as_mut()[..room] });
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
        count(&this.line.reads);
        let came = read.filled_mut();
        this.line.bytes.store(this.line.bytes.load(Relaxed) + came.len() as u64, Relaxed);
        this.line.used.store(used + came.len() as u32, Relaxed);
        if let Some(frames) = &mut this.frames {
            frames.walk(came, |frame| {
                count(&this.line.frames);
                if frame.resets() {
                    count(&this.line.resets);
                }
            });
        }
        let passed = this.inlet.pass(came, &this.line);
        if passed < came.len() {
            if passed == 0 && !this.inlet.is_broken() {
                return Poll::Ready(Err(unasked()));
            }
            this.held.extend_from_slice(&came[passed..]);
        }
        // SAFETY: so many bytes, and more, have been filled.
        unsafe { buf.advance(passed) };
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(polled.is_pending());
        polled
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_pending() != self.flushing {
            self.flushing = polled.is_pending();
            self.note_write(polled.is_pending());
        }
        polled
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
        let polled = poll_write_list(Pin::new(&mut self.stream), cx, bufs);
        self.note_write(polled.is_pending());
        polled
    }
}
