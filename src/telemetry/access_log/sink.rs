//! The thread that writes log lines, and the bounded queue that leads to it.
//!
//! The only place of the access log that waits for a file or a pipe. Workers see its queue and nothing
//! else. A file that was moved away is opened anew within a second; one that cannot be written costs its
//! lines, counted, and is tried again.

use crate::clock::{self, Duration, Instant};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// Batches on their way; each is about 16 KiB.
const QUEUE: usize = 64;
/// How often a file's name is looked at, and a broken one tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl From<&str> for Target {
    /// As `accessLogFile` names it.
    fn from(path: &str) -> Target {
        match path {
            "/dev/stdout" => Target::Stdout,
            "/dev/stderr" => Target::Stderr,
            path => Target::File(path.into()),
        }
    }
}

impl Target {
    fn open(&self) -> io::Result<File> {
        const BEYOND_STANDARD: i32 = 3;
        match self {
            Target::Stdout => {
                Ok(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), BEYOND_STANDARD)?.into())
            }
            Target::Stderr => {
                Ok(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), BEYOND_STANDARD)?.into())
            }
            // A pipe without a reader is an error, not a wait.
            Target::File(path) => {
                let no_wait = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                OpenOptions::new().append(true).create(true).custom_flags(no_wait).open(path)
            }
        }
    }
}

/// Whole lines and how many they are.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Batch {
    pub(in crate::telemetry) bytes: Vec<u8>,
    pub(in crate::telemetry) lines: u64,
}

#[derive(Debug)]
enum Message {
    Write(Batch),
    /// Answered when everything before it is written.
    Mark(SyncSender<()>),
}

/// The way to one target. The writer ends when nobody holds it any more.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    queue: SyncSender<Message>,
    dropped: Counter,
}

impl Sink {
    /// Starts a writer.
    ///
    /// # Errors
    /// The file cannot be opened or no thread started. Standard output may be closed: then lines are dropped.
    fn start(target: Target, dropped: Counter) -> io::Result<(Sink, JoinHandle<()>)> {
        let file = match (target.open(), &target) {
            (Err(error), Target::File(_)) => return Err(error),
            (file, _) => file.ok(),
        };
        let (queue, batches) = sync_channel(QUEUE);
        let mut writer = Writer {
            target: target.clone(),
            file,
            looked: clock::now(),
            dropped: dropped.clone(),
            complained: false,
        };
        let thread = std::thread::Builder::new().name("access-log".into());
        let thread = thread.spawn(move || writer.run(&batches))?;
        Ok((Sink { target, queue, dropped }, thread))
    }

    /// Hands a batch over and leaves an empty one; a full queue drops it.
    pub(in crate::telemetry) fn push(&self, batch: &mut Batch) {
        if batch.lines == 0 {
            return;
        }
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) =
            self.queue.try_send(Message::Write(std::mem::take(batch)))
        {
            drop_lines(&self.dropped, lost);
        }
    }

    /// Waits until what was pushed so far is written, until `deadline` at most.
    fn flush(&self, deadline: Instant) {
        let (mark, written) = sync_channel(1);
        let mut message = Message::Mark(mark);
        loop {
            message = match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(message)) => message,
            };
            if clock::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Late or gone: there is nothing left to wait for.
        let _ = written.recv_timeout(deadline.saturating_duration_since(clock::now()));
    }
}

fn drop_lines(dropped: &Counter, lost: Message) {
    if let Message::Write(batch) = lost {
        dropped.inc_by(batch.lines);
    }
}

/// Every sink whose thread still runs, at most one that is held for each target.
#[derive(Debug)]
pub(in crate::telemetry) struct Sinks {
    open: Mutex<Vec<(Weak<Sink>, JoinHandle<()>)>>,
    dropped: Counter,
}

impl Sinks {
    pub(in crate::telemetry) fn new(dropped: Counter) -> Sinks {
        Sinks { open: Mutex::new(Vec::new()), dropped }
    }

    /// The sink of this target, started if there is none.
    pub(in crate::telemetry) fn open(&self, target: Target) -> io::Result<Arc<Sink>> {
        let mut open = self.open.lock();
        open.retain(|(_, thread)| !thread.is_finished());
        if let Some(sink) = open.iter().filter_map(|(sink, _)| sink.upgrade()).find(|it| it.target == target)
        {
            return Ok(sink);
        }
        let (sink, thread) = Sink::start(target, self.dropped.clone())?;
        let sink = Arc::new(sink);
        open.push((Arc::downgrade(&sink), thread));
        Ok(sink)
    }

    /// Waits until everything is written, also by threads whose sink nobody holds any more.
    pub(in crate::telemetry) fn flush(&self, deadline: Instant) {
        for (sink, thread) in self.open.lock().iter() {
            match sink.upgrade() {
                Some(sink) => sink.flush(deadline),
                None => {
                    while !thread.is_finished() && clock::now() < deadline {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
    }
}

/// The thread's own.
struct Writer {
    target: Target,
    file: Option<File>,
    /// When the file's name was last looked at or tried.
    looked: Instant,
    dropped: Counter,
    complained: bool,
}

impl Writer {
    fn run(&mut self, batches: &Receiver<Message>) {
        while let Ok(message) = batches.recv() {
            match message {
                Message::Write(batch) => self.batch(&batch),
                // Whoever asked may have stopped waiting.
                Message::Mark(done) => drop(done.try_send(())),
            }
        }
    }

    fn batch(&mut self, batch: &Batch) {
        self.look();
        let Some(file) = &mut self.file else {
            self.dropped.inc_by(batch.lines);
            return;
        };
        match write_all(file, &batch.bytes) {
            Ok(()) => self.complained = false,
            Err(error) => {
                self.dropped.inc_by(batch.lines);
                self.file = None;
                self.complain(&error);
            }
        }
    }

    /// Opens the file anew when it is broken or its name means another file by now, once a second at most.
    fn look(&mut self) {
        let now = clock::now();
        if now.saturating_duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        let same = match (&self.file, &self.target) {
            (Some(file), Target::File(path)) => is_at(file, path),
            (file, _) => file.is_some(),
        };
        if same {
            return;
        }
        match self.target.open() {
            Ok(file) => self.file = Some(file),
            // A file that was moved but can still be written is better than none.
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(target = ?self.target, %error, "access log lines are lost");
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Writes everything, waiting where the other end was made non-blocking by somebody else.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match rustix::event::poll(&mut [PollFd::new(&*file, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
