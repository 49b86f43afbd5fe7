//! What instances print, line by line, passed on with their names.
//!
//! Read on the control thread, written by a thread of its own, because whoever reads the proxy's output
//! may be slow. A full channel holds back the instance that prints, as a pipe would; nothing is dropped
//! and memory is bounded.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Longer lines are passed on in pieces.
const LINE: usize = 8 * 1024;
/// Chunks that wait for the writing thread.
const QUEUE: usize = 64;
/// Lines that are kept for a report of a crash, bytes of each, and bytes of all.
const TAIL: usize = 20;
const TAIL_LINE: usize = 512;
const TAIL_BYTES: usize = 4096;
/// How long the last lines are waited for when the proxy ends.
const LAST: Duration = Duration::from_millis(200);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

type Chunk = (Stream, Vec<u8>);

/// The last lines of an instance's standard error.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &[u8]) {
        let line = &line[..line.len().min(TAIL_LINE)];
        let mut lines = self.0.lock();
        lines.push_back(String::from_utf8_lossy(line).into_owned());
        while lines.len() > TAIL || lines.iter().map(String::len).sum::<usize>() > TAIL_BYTES {
            lines.pop_front();
        }
    }

    /// Oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

/// The writing thread.
#[derive(Debug)]
pub(super) struct Output {
    chunks: Option<mpsc::Sender<Chunk>>,
    ended: blocking::Receiver<()>,
}

impl Output {
    /// Starts the thread, which writes to this process's own standard output and error.
    pub fn start() -> io::Result<Output> {
        Output::with(|stream, bytes| match stream {
            Stream::Out => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Err => io::stderr().lock().write_all(bytes),
        })
    }

    fn with(mut write: impl FnMut(Stream, &[u8]) -> io::Result<()> + Send + 'static) -> io::Result<Output> {
        let (chunks, mut queue) = mpsc::channel::<Chunk>(QUEUE);
        let (end, ended) = blocking::channel();
        std::thread::Builder::new().name("output".into()).stack_size(128 * 1024).spawn(move || {
            while let Some((stream, bytes)) = queue.blocking_recv() {
                // Nobody reads any more: the instances go on all the same.
                let _ = write(stream, &bytes);
            }
            // The other end waits no longer than `LAST`.
            let _ = end.send(());
        })?;
        Ok(Output { chunks: Some(chunks), ended })
    }

    /// Passes on everything from `pipe` until its end.
    pub fn pump(
        &self,
        mut pipe: pipe::Receiver,
        stream: Stream,
        name: &str,
        tail: Option<Tail>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let chunks = self.chunks.clone();
        let mut lines = Lines::new(name, tail);
        async move {
            use tokio::io::AsyncReadExt as _;
            let Some(chunks) = chunks else { return };
            let mut buffer = Vec::with_capacity(LINE);
            loop {
                buffer.clear();
                let ended = !matches!(pipe.read_buf(&mut buffer).await, Ok(1..));
                let chunk = if ended { lines.end() } else { lines.feed(&buffer) };
                if !chunk.is_empty() && chunks.send((stream, chunk)).await.is_err() || ended {
                    return;
                }
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.chunks = None;
        // Still busy after that: somebody blocks our own output, and the end of the proxy does not wait.
        let _ = self.ended.recv_timeout(LAST);
    }
}

/// Cuts a stream into lines and puts a name before each.
struct Lines {
    prefix: Vec<u8>,
    line: Vec<u8>,
    tail: Option<Tail>,
}

impl Lines {
    fn new(name: &str, tail: Option<Tail>) -> Lines {
        Lines { prefix: format!("[{name}] ").into_bytes(), line: Vec::new(), tail }
    }

    /// Takes bytes, gives the lines that they complete.
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let room = LINE - self.line.len();
            let window = &bytes[..bytes.len().min(room)];
            match memchr::memchr(b'\n', window) {
                Some(at) => {
                    self.line.extend_from_slice(&window[..at]);
                    self.emit(&mut out);
                    bytes = &bytes[at + 1..];
                }
                None => {
                    self.line.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if self.line.len() == LINE {
                        self.emit(&mut out);
                    }
                }
            }
        }
        out
    }

    /// Gives what no newline completed.
    fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.line.is_empty() {
            self.emit(&mut out);
        }
        out
    }

    fn emit(&mut self, out: &mut Vec<u8>) {
        if let Some(tail) = &self.tail {
            tail.push(&self.line);
        }
        out.extend_from_slice(&self.prefix);
        out.append(&mut self.line);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_its_name_and_an_unfinished_one_is_not_lost() {
        let tail = Tail::default();
        let mut lines = Lines::new("hello-00001/1", Some(tail.clone()));
        assert_eq!(lines.feed(b"one\ntw"), b"[hello-00001/1] one\n");
        assert_eq!(lines.feed(b"o\n\nthree"), b"[hello-00001/1] two\n[hello-00001/1] \n");
        assert_eq!(lines.end(), b"[hello-00001/1] three\n");
        assert_eq!(lines.end(), b"");
        assert_eq!(tail.lines(), ["one", "two", "", "three"]);
    }

    #[test]
    fn a_line_without_end_is_passed_on_in_pieces() {
        let tail = Tail::default();
        let mut lines = Lines::new("x", Some(tail.clone()));
        let out = lines.feed(&vec![b'a'; 3 * LINE + 1]);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert_eq!(lines.end(), b"[x] a\n");
        assert!(tail.lines().iter().all(|line| line.len() <= TAIL_LINE));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let tail = Tail::default();
        let mut lines = Lines::new("x", Some(tail.clone()));
        (0..100).for_each(|n| drop(lines.feed(format!("{n}\n").as_bytes())));
        assert_eq!(tail.lines(), (80..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
