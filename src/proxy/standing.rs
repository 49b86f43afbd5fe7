//! Whether a client's connection would be let in now: asked at the head of every exchange, answered anew only
//! when the configuration has changed or the client's certificate has ended.

use super::Connection;
use crate::clock;
use crate::fault::{Fault, Kind};
use crate::record::Secured;
use crate::snapshot::{Security, Snapshot};
use crate::telemetry::Series;
use crate::tls::{Chain, Choice, Refusal, Terms};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Series of one connection remembered; beyond it all are looked up again.
const MAX_SERIES: usize = 16;

/// How a client's connection was let in.
#[derive(Debug)]
pub struct Standing {
    /// What the handshake told; `None`: the connection is not encrypted.
    encrypted: Option<Box<Encrypted>>,
    /// The generation of the snapshot that it was last found good by.
    judged: Cell<u64>,
    /// When the client's certificate ends.
    ends: Option<Instant>,
    /// Why it would be refused now: it takes no more.
    over: Cell<Option<Refusal>>,
}

/// A series, and the same with the client's identity.
type Counted = (Arc<Series>, Arc<Series>);

/// An encrypted connection.
#[derive(Debug)]
struct Encrypted {
    secured: Arc<Secured>,
    chain: Option<Chain>,
    terms: RefCell<Arc<Terms>>,
    /// Counted with the client's identity: by the series without it.
    series: RefCell<SmallVec<[Counted; 2]>>,
}

impl Standing {
    /// Of a connection in plaintext, let in by the snapshot of this generation.
    pub fn plain(generation: u64) -> Standing {
        Standing { encrypted: None, judged: Cell::new(generation), ends: None, over: Cell::new(None) }
    }

    /// Of a connection whose handshake was done on `terms`.
    pub fn encrypted(
        generation: u64,
        secured: Secured,
        chain: Option<Chain>,
        terms: Arc<Terms>,
        now: (Instant, SystemTime),
    ) -> Standing {
        let left = secured.peer.as_ref().map(|peer| peer.not_after.duration_since(now.1).unwrap_or_default());
        let encrypted = Encrypted {
            secured: Arc::new(secured),
            chain,
            terms: RefCell::new(terms),
            series: RefCell::default(),
        };
        Standing {
            encrypted: Some(Box::new(encrypted)),
            judged: Cell::new(generation),
            // A certificate for all time ends beyond what the clock can say.
            ends: left.and_then(|left| now.0.checked_add(left)),
            over: Cell::new(None),
        }
    }

    /// What the handshake told.
    #[inline]
    pub fn secured(&self) -> Option<&Arc<Secured>> {
        self.encrypted.as_ref().map(|encrypted| &encrypted.secured)
    }

    /// Whether the client proved to be of the mesh.
    pub fn is_member(&self) -> bool {
        self.encrypted.as_ref().is_some_and(|encrypted| encrypted.terms.borrow().asks_for_members())
    }

    /// Whether it takes no more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.over.get().is_some()
    }
}

impl Connection {
    /// The client's SPIFFE identity without `spiffe://`, if it proved one.
    #[inline]
    pub fn principal(&self) -> Option<&str> {
        self.standing.secured().and_then(|secured| secured.principal())
    }

    /// Whether `port` of a workload's program takes requests over it: ports may differ.
    #[inline]
    pub(super) fn admits(&self, snapshot: &Snapshot, port: u16) -> bool {
        match snapshot
            .listeners
            .get(self.listener)
            .and_then(Option::as_ref)
            .map(|listener| &listener.security)
        {
            Some(Security::Mesh(inbound)) => inbound.admits(port, self.standing.secured().is_some()),
            _ => true,
        }
    }

    /// Whether it would be let in by `snapshot` at `now`.
    ///
    /// # Errors
    /// Not any more; no later answer is different.
    #[inline]
    pub fn stands(&self, snapshot: &Snapshot, now: Instant) -> Result<(), Fault> {
        let standing = &self.standing;
        if standing.judged.get() == snapshot.generation && standing.ends.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.judge(snapshot, now)
    }

    #[cold]
    fn judge(&self, snapshot: &Snapshot, now: Instant) -> Result<(), Fault> {
        let standing = &self.standing;
        let ended = standing.ends.is_some_and(|at| now >= at);
        let judged = match standing.over.get() {
            Some(before) => Err(before),
            None if ended => Err(Refusal::Expired),
            None => self.verdict(snapshot),
        };
        match judged {
            Ok(()) => {
                standing.judged.set(snapshot.generation);
                Ok(())
            }
            Err(refusal) => {
                if standing.over.replace(Some(refusal)).is_none() {
                    tracing::info!(client = %self.remote, "connection ends, it would be refused now: {refusal}");
                }
                Err(Fault::because(Kind::TrustEnded, refusal))
            }
        }
    }

    fn verdict(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let listener = snapshot.listeners.get(self.listener).and_then(Option::as_ref);
        // Where there is no listener its connections are closed as such.
        let Some(listener) = listener else { return Ok(()) };
        let encrypted = self.standing.encrypted.as_deref();
        let terms = match (&listener.security, encrypted) {
            (Security::Plain, None) => return Ok(()),
            (Security::Plain, Some(_)) => return Err(Refusal::IsTls),
            (Security::Servers(_), None) => return Err(Refusal::NotTls),
            (Security::Servers(servers), Some(encrypted)) => {
                match servers.find(encrypted.secured.sni.as_deref()) {
                    Some(Choice::Terminate(terms)) => terms,
                    Some(Choice::Unprepared) => return Err(Refusal::Unprepared),
                    Some(Choice::Passthrough(_)) | None => return Err(Refusal::UnknownName),
                }
            }
            (Security::Mesh(inbound), None) if inbound.takes_plaintext() => return Ok(()),
            (Security::Mesh(_), None) => return Err(Refusal::NoCertificate),
            (Security::Mesh(inbound), Some(_)) if !inbound.takes_tls() => return Err(Refusal::IsTls),
            (Security::Mesh(inbound), Some(_)) => inbound.terms().ok_or(Refusal::Unprepared)?,
        };
        let Some(encrypted) = encrypted else { return Ok(()) };
        let same = encrypted.terms.borrow().asks_the_same(terms);
        if !same {
            terms.admits(encrypted.chain.as_ref(), clock::wall())?;
        }
        *encrypted.terms.borrow_mut() = terms.clone();
        Ok(())
    }

    /// Where an exchange is counted for its destination: with the client's identity, if it proved one.
    pub(super) fn counted(&self, sink: &Arc<Series>) -> Arc<Series> {
        let Some(encrypted) = self.standing.encrypted.as_deref().filter(|e| e.secured.peer.is_some()) else {
            return sink.clone();
        };
        let mut series = encrypted.series.borrow_mut();
        if let Some((_, counted)) = series.iter().find(|(plain, _)| Arc::ptr_eq(plain, sink)) {
            return counted.clone();
        }
        if series.len() >= MAX_SERIES {
            series.clear();
        }
        let counted = self.local.telemetry.identified(sink, encrypted.secured.principal());
        series.push((sink.clone(), counted.clone()));
        counted
    }
}
