//! A client at the door: whether it speaks TLS, who answers it, and whether it is let in.
//!
//! Its first bytes are looked at before anything is decided. Handshakes are bounded in time and number. Who is
//! turned away is counted by fault and reason; nobody is answered in plaintext where that is not accepted.

use super::board::IDLE_PATIENCE;
use super::connection::{HTTP2_PREFACE, speaks_http2};
use crate::clock;
use crate::fault::Kind;
use crate::proxy::{self, Local, Standing};
use crate::record::Direction;
use crate::snapshot::{Listener, Security, Snapshot};
use crate::telemetry::Side;
use crate::tls::{self, Choice, Hello, Inbound, Opened, Passthrough, Refusal, ServerStream, Stream, Terms};
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// From a client's first byte to the end of its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes of one worker at once: each costs a signature, and memory for both sides' messages.
const MAX_HANDSHAKES: usize = 512;
/// When there are so many, the one that has taken longest makes way for the next, if it has taken this long: nobody is
/// kept out by clients that begin and say no more.
const SLOW: Duration = Duration::from_secs(1);
/// The first byte of TLS.
const TLS: u8 = 22;
/// Between two warnings about clients that are turned away.
const QUIET: Duration = Duration::from_secs(10);

/// What a client speaks through.
pub(super) type ClientStream = Stream<TcpStream, ServerStream<TcpStream>>;

/// The socket under it.
pub(super) fn fd(stream: &ClientStream) -> RawFd {
    match stream {
        Stream::Plain(stream) => stream.as_raw_fd(),
        Stream::Tls(stream) => stream.get_ref().0.as_raw_fd(),
    }
}

/// Whether the client has closed its side, as far as the system has told. To be asked while there is more to read.
#[cold]
pub(super) fn has_closed(stream: &ClientStream) -> bool {
    let socket = match stream {
        Stream::Plain(stream) => stream,
        Stream::Tls(stream) => stream.get_ref().0,
    };
    let ready = pin!(socket.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
    matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

/// A client that is let in.
pub(super) struct Entered {
    pub(super) stream: ClientStream,
    pub(super) http2: bool,
    pub(super) scheme: &'static str,
    pub(super) standing: Standing,
    pub(super) vouched: Option<HeaderValue>,
}

/// What becomes of a client.
pub(super) enum Fate {
    /// It is let in.
    In(Box<Entered>),
    /// Its bytes go on unopened: to what its name leads to, beginning with those that were read.
    On { stream: TcpStream, route: Arc<Passthrough>, sni: Option<String>, start: Vec<u8> },
    /// It went away, or was turned away.
    Gone,
}

/// The doors of one worker: what all its handshakes share.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Handshakes by number, the oldest first: since when, and how they are told to make way.
    under_way: RefCell<BTreeMap<u64, (Instant, Rc<Notify>)>>,
    next: Cell<u64>,
    /// When it was last said that somebody was turned away, and how many have been since.
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Doors {
    /// Room for one more handshake, if there is any at `now`: where it is, and how it is told to make way.
    fn room(&self, now: Instant) -> Option<(u64, Rc<Notify>)> {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.len() >= MAX_HANDSHAKES {
            let oldest = under_way.first_entry()?;
            if now.saturating_duration_since(oldest.get().0) < SLOW {
                return None;
            }
            oldest.remove().1.notify_one();
        }
        let (number, ousted) = (self.next.get(), Rc::new(Notify::new()));
        self.next.set(number + 1);
        under_way.insert(number, (now, ousted.clone()));
        Some((number, ousted))
    }
}

/// A handshake under way.
struct UnderWay<'a> {
    doors: &'a Doors,
    local: &'a Local,
    number: u64,
    ousted: Rc<Notify>,
    deadline: Instant,
}

impl UnderWay<'_> {
    /// A part of it: as long as there is time, and room.
    async fn within<T>(&self, part: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        tokio::select! {
            biased;
            done = tokio::time::timeout_at(self.deadline.into(), part) => done.unwrap_or(Err(Refusal::Timeout)),
            () = self.ousted.notified() => Err(Refusal::TooMany),
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.doors.under_way.borrow_mut().remove(&self.number);
        self.local.telemetry.secure.under_way.dec();
    }
}

fn fault(refusal: Refusal) -> Kind {
    match refusal {
        Refusal::TooMany => Kind::HandshakeOverflow,
        _ if refusal.is_of_peer() => Kind::PeerRefused,
        _ => Kind::HandshakeFailed,
    }
}

/// A client at the door of one listener.
pub(super) struct Door<'a> {
    pub(super) local: &'a Local,
    pub(super) doors: &'a Doors,
    pub(super) listener: usize,
    pub(super) remote: SocketAddr,
}

impl Door<'_> {
    /// Lets a client in, or not.
    pub(super) async fn open(&self, stream: TcpStream) -> Fate {
        enum Way {
            Plain,
            Gateway,
            Mesh,
        }
        // A client may take an hour to say something: no snapshot lives as long.
        let (way, generation) = {
            let snapshot = self.local.snapshot();
            let way = match listener(&snapshot, self.listener).map(|listener| &listener.security) {
                None | Some(Security::Plain) => Way::Plain,
                Some(Security::Servers(_)) => Way::Gateway,
                Some(Security::Mesh(_)) => Way::Mesh,
            };
            (way, snapshot.generation)
        };
        match way {
            Way::Plain => self.plain(stream, generation).await,
            Way::Gateway => self.gateway(stream).await,
            Way::Mesh => self.mesh(stream).await,
        }
    }

    /// In plaintext, as the snapshot of this generation allows.
    async fn plain(&self, stream: TcpStream, generation: u64) -> Fate {
        let Some(http2) = speaks_http2(&stream).await else { return Fate::Gone };
        let standing = Standing::plain(generation);
        Fate::In(Box::new(Entered {
            stream: Stream::Plain(stream),
            http2,
            scheme: "http",
            standing,
            vouched: None,
        }))
    }

    /// A gateway's client: who answers depends on the name it asks for.
    async fn gateway(&self, mut stream: TcpStream) -> Fate {
        let began = self.first_byte(&stream).await;
        if began.is_none() {
            return Fate::Gone;
        }
        let Some(under_way) = self.begin(&stream) else { return Fate::Gone };
        let hello = match under_way.within(Hello::read(&mut stream)).await {
            Ok(hello) => hello,
            Err(refusal) => return self.refuse(&stream, fault(refusal), refusal),
        };
        // What is in force when a choice is made, not when the client connected.
        let snapshot = self.local.snapshot();
        let sni = hello.seen().sni.clone();
        let choice = match listener(&snapshot, self.listener).map(|listener| &listener.security) {
            Some(Security::Servers(servers)) => servers.find(sni.as_deref()).cloned(),
            _ => None,
        };
        match choice {
            Some(Choice::Terminate(terms)) => {
                self.terminate(stream, hello, terms, &under_way, snapshot.generation, Direction::Gateway)
                    .await
            }
            Some(Choice::Passthrough(route)) => Fate::On { stream, route, sni, start: hello.into_raw() },
            Some(Choice::Unprepared) => self.refuse(&stream, Kind::NoCertificate, Refusal::Unprepared),
            None => {
                let telling = async {
                    Hello::unrecognized(&mut stream).await;
                    Ok(())
                };
                let _ = under_way.within(telling).await;
                self.turn_away(Kind::UnknownServerName, Refusal::UnknownName);
                Fate::Gone
            }
        }
    }

    /// A workload's client.
    async fn mesh(&self, mut stream: TcpStream) -> Fate {
        let Some(first) = self.first_byte(&stream).await else { return Fate::Gone };
        let snapshot = self.local.snapshot();
        let Some(Security::Mesh(inbound)) = listener(&snapshot, self.listener).map(|l| &l.security) else {
            return Fate::Gone;
        };
        let unopened = inbound.unopened().cloned();
        if first != TLS || !(inbound.takes_tls() || unopened.is_some()) {
            if !self.takes_plaintext(inbound) {
                return self.refuse(&stream, Kind::PlaintextRefused, Refusal::NoCertificate);
            }
            let generation = snapshot.generation;
            drop(snapshot);
            return self.plain(stream, generation).await;
        }
        let Some(under_way) = self.begin(&stream) else { return Fate::Gone };
        let hello = match under_way.within(Hello::read(&mut stream)).await {
            Ok(hello) => hello,
            Err(refusal) => return self.refuse(&stream, fault(refusal), refusal),
        };
        let ours = inbound.is_strict() || hello.seen().mesh && inbound.takes_tls();
        if !ours {
            if let Some(route) = unopened {
                self.local.telemetry.secure.plaintext.inc();
                let sni = hello.seen().sni.clone();
                return Fate::On { stream, route, sni, start: hello.into_raw() };
            }
            return self.refuse(&stream, Kind::ForeignTls, Refusal::Protocol);
        }
        match inbound.terms().cloned() {
            None => self.refuse(&stream, Kind::NoCertificate, Refusal::Unprepared),
            Some(terms) => {
                self.terminate(stream, hello, terms, &under_way, snapshot.generation, Direction::Inbound)
                    .await
            }
        }
    }

    fn takes_plaintext(&self, inbound: &Inbound) -> bool {
        let taken = inbound.takes_plaintext();
        if taken && inbound.takes_tls() {
            self.local.telemetry.secure.plaintext.inc();
        }
        taken
    }

    async fn terminate(
        &self,
        stream: TcpStream,
        hello: Hello,
        terms: Arc<Terms>,
        under_way: &UnderWay<'_>,
        generation: u64,
        direction: Direction,
    ) -> Fate {
        let opening = async {
            let mut opened = terms.accept(hello, stream, clock::wall()).await?;
            let http2 = match opened.http2 {
                Some(http2) => http2,
                None => prefaced(&mut opened).await?,
            };
            Ok((opened, http2))
        };
        let (opened, http2) = match under_way.within(opening).await {
            Ok(opened) => opened,
            Err(refusal) => {
                self.turn_away(fault(refusal), refusal);
                return Fate::Gone;
            }
        };
        self.local.telemetry.secure.done(Side::Downstream);
        let Opened { stream, secured, chain, .. } = opened;
        let vouched = match direction {
            Direction::Outbound => None,
            Direction::Gateway | Direction::Inbound => tls::vouch(&secured),
        };
        let now = (clock::now(), clock::wall());
        let standing = Standing::encrypted(generation, secured, chain, terms, now);
        Fate::In(Box::new(Entered {
            stream: Stream::Tls(Box::new(stream)),
            http2,
            scheme: "https",
            standing,
            vouched,
        }))
    }

    /// The first byte, without taking it. `None`: nothing came.
    async fn first_byte(&self, stream: &TcpStream) -> Option<u8> {
        let mut first = [0];
        let looked = tokio::time::timeout(IDLE_PATIENCE, stream.peek(&mut first)).await;
        matches!(looked, Ok(Ok(1))).then_some(first[0])
    }

    fn begin(&self, stream: &TcpStream) -> Option<UnderWay<'_>> {
        let now = clock::now();
        let Some((number, ousted)) = self.doors.room(now) else {
            self.refuse(stream, Kind::HandshakeOverflow, Refusal::TooMany);
            return None;
        };
        self.local.telemetry.secure.under_way.inc();
        let (doors, local, deadline) = (self.doors, self.local, now + PATIENCE);
        Some(UnderWay { doors, local, number, ousted, deadline })
    }

    /// Turns a client away with a reset.
    fn refuse(&self, stream: &TcpStream, kind: Kind, refusal: Refusal) -> Fate {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        self.turn_away(kind, refusal);
        Fate::Gone
    }

    fn turn_away(&self, kind: Kind, refusal: Refusal) {
        let telemetry = &self.local.telemetry;
        telemetry.metrics.fault(kind);
        if kind != Kind::PlaintextRefused {
            telemetry.secure.failed(Side::Downstream, refusal);
        }
        let name = self.local.snapshot();
        let name = listener(&name, self.listener).map(|listener| listener.name.clone()).unwrap_or_default();
        tracing::debug!(client = %self.remote, listener = %name, fault = kind.name(), "turned away: {refusal}");
        proxy::tell_denied(self.local, self.remote, self.listener, kind, &refusal);
        let now = clock::now();
        let unsaid = self.doors.unsaid.get();
        if self.doors.said.get().is_some_and(|at| now < at + QUIET) {
            self.doors.unsaid.set(unsaid + 1);
            return;
        }
        self.doors.said.set(Some(now));
        self.doors.unsaid.set(0);
        let fault = kind.name();
        tracing::warn!(client = %self.remote, listener = %name, fault, unsaid, "a client was turned away: {refusal}");
    }
}

/// Whether HTTP/2 begins a stream on which no protocol was agreed.
async fn prefaced(opened: &mut Opened<TcpStream>) -> Result<bool, Refusal> {
    let start = opened.stream.fill_buf().await.map_err(|error| Refusal::of_io(&error))?;
    let n = start.len().min(HTTP2_PREFACE.len());
    // No method begins like this.
    Ok(n > 2 && start[..n] == HTTP2_PREFACE[..n])
}

fn listener(snapshot: &Snapshot, number: usize) -> Option<&Arc<Listener>> {
    snapshot.listeners.get(number).and_then(Option::as_ref)
}

/// Shared by the listeners of one worker.
pub(super) type Shared = Rc<Doors>;
