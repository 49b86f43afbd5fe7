//! The bodies the echo sends: whole, in pieces over time, cut short, or the request's own sent back.
//!
//! Nothing is held beyond one piece; a body of any size costs the same memory. The exchange counts as under way
//! until the last frame has been taken, and no longer: a client that has the whole answer never finds it counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::answer::Busy;
use super::ask::{Ask, Close};

/// What a body without content of its own is made of.
static FILLER: [u8; 64 * 1024] = [b'x'; 64 * 1024];
/// Pieces of a slow body whose piece size was not asked for.
const SLOW_PIECES: u64 = 10;
/// Time for what was sent before a cut to leave the process.
const CUT_PAUSE: Duration = Duration::from_millis(5);

/// The body of one answer.
pub(super) struct AnswerBody {
    source: Source,
    busy: Option<Busy>,
}

enum Source {
    Whole(Bytes),
    Pieces(Box<Pieces>),
    Mirror(Box<Mirror>),
}

/// A body sent piece by piece: a slice of `content`, or of filler when there is none.
struct Pieces {
    content: Option<Bytes>,
    left: u64,
    piece: u64,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Bytes until the body is cut off by an error, if it is to be.
    cut_in: Option<u64>,
    trailers: Option<HeaderMap>,
}

struct Mirror {
    incoming: Incoming,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl AnswerBody {
    /// A body known in full that goes out as it is.
    pub(super) fn whole(bytes: impl Into<Bytes>, busy: Busy) -> AnswerBody {
        AnswerBody { source: Source::Whole(bytes.into()), busy: Some(busy) }
    }

    /// No body, of an exchange that goes on without HTTP.
    pub(super) fn empty() -> AnswerBody {
        AnswerBody { source: Source::Whole(Bytes::new()), busy: None }
    }

    /// A body that goes out as the request asked: `size` bytes of filler, else `content`.
    pub(super) fn asked(ask: &Ask, content: Bytes, trailers: Option<HeaderMap>, busy: Busy) -> AnswerBody {
        let length = ask.size.unwrap_or(content.len() as u64);
        let slow_piece = if ask.slow.is_zero() { FILLER.len() as u64 } else { length.div_ceil(SLOW_PIECES) };
        let piece = ask.chunk.unwrap_or(slow_piece).max(1);
        let pieces = length.div_ceil(piece).clamp(1, u64::from(u32::MAX));
        let cut_in = match ask.close {
            Some(Close::Head) => Some(0),
            Some(Close::Body) => Some(length / 2),
            Some(Close::Before) | None => None,
        };
        // Bounded where it is counted.
        let pause = ask.slow / pieces as u32;
        let source = Source::Pieces(Box::new(Pieces {
            content: ask.size.is_none().then_some(content),
            left: length,
            piece,
            pause,
            sleep: (!pause.is_zero()).then(|| Box::pin(tokio::time::sleep(pause))),
            cut_in,
            trailers,
        }));
        AnswerBody { source, busy: Some(busy) }
    }

    /// The request's own body, sent back frame by frame as it arrives, with `trailers` added to its own.
    pub(super) fn mirror(incoming: Incoming, trailers: Option<HeaderMap>, busy: Busy) -> AnswerBody {
        let mirror = Mirror { incoming, trailers, ended: false };
        AnswerBody { source: Source::Mirror(Box::new(mirror)), busy: Some(busy) }
    }
}

impl Pieces {
    fn poll_frame(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.cut_in == Some(0) && self.sleep.is_none() {
            self.sleep = Some(Box::pin(tokio::time::sleep(CUT_PAUSE)));
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(task));
            self.sleep = None;
        }
        if self.cut_in == Some(0) {
            return Poll::Ready(Some(Err(io::Error::other("cut off because the request asked for it"))));
        }
        if self.left > 0 {
            return Poll::Ready(Some(Ok(Frame::data(self.next_piece()))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn next_piece(&mut self) -> Bytes {
        let most = self.piece.min(self.left).min(self.cut_in.unwrap_or(u64::MAX));
        let bytes = match &mut self.content {
            Some(content) => content.split_to(usize::try_from(most).unwrap_or(usize::MAX).min(content.len())),
            None => {
                let length = usize::try_from(most).unwrap_or(usize::MAX).min(FILLER.len());
                Bytes::from_static(&FILLER[..length])
            }
        };
        self.left -= bytes.len() as u64;
        self.cut_in = self.cut_in.map(|left| left - bytes.len() as u64);
        // The head goes out at once, each piece after a pause.
        if !self.pause.is_zero() && self.left > 0 {
            self.sleep = Some(Box::pin(tokio::time::sleep(self.pause)));
        }
        bytes
    }

    fn ended(&self) -> bool {
        self.left == 0 && self.trailers.is_none() && self.cut_in.is_none()
    }
}

impl Mirror {
    fn poll_frame(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(task)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            None => {
                self.ended = true;
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
        };
        Poll::Ready(Some(Ok(match frame.into_trailers() {
            Ok(mut theirs) => {
                self.ended = true;
                theirs.extend(self.trailers.take().unwrap_or_default());
                Frame::trailers(theirs)
            }
            Err(data) => data,
        })))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Whole(bytes) if bytes.is_empty() => None,
            Source::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Pieces(pieces) => ready!(pieces.poll_frame(task)),
            Source::Mirror(mirror) => ready!(mirror.poll_frame(task)),
        };
        if !matches!(frame, Some(Ok(_))) || this.is_end_stream() {
            this.busy = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Pieces(pieces) => pieces.ended(),
            Source::Mirror(mirror) => mirror.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Pieces(pieces) if pieces.trailers.is_none() => SizeHint::with_exact(pieces.left),
            Source::Pieces(_) | Source::Mirror(_) => SizeHint::default(),
        }
    }
}
