//! One rule of a policy, compiled: where from, to do what, when. Everything must hold; an empty list does.

use super::facts::Facts;
use super::guard::Id;
use super::text::{Account, Block, Glob, OneOf, Path, Requester, Text};
use http::HeaderName;
use smallvec::SmallVec;

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: Id,
    pub(super) from: Box<[Source]>,
    pub(super) to: Box<[Operation]>,
    pub(super) when: Box<[Condition]>,
}

/// One `from.source`.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) principals: OneOf<Text>,
    pub(super) requesters: OneOf<Requester>,
    pub(super) namespaces: OneOf<Glob>,
    pub(super) accounts: OneOf<Account>,
    pub(super) domains: OneOf<Text>,
    pub(super) addresses: OneOf<Block>,
    pub(super) clients: OneOf<Block>,
}

/// One `to.operation`.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) hosts: OneOf<Text>,
    pub(super) ports: OneOf<u16>,
    pub(super) methods: OneOf<Text>,
    pub(super) paths: OneOf<Path>,
}

/// A field of the request's head.
#[derive(Debug)]
pub(super) enum Field {
    Named(HeaderName),
    Authority,
    Method,
    Target,
    Scheme,
}

/// One `when`.
#[derive(Debug)]
pub(super) enum Condition {
    /// A field of the head; whether a match refuses.
    Header(Field, OneOf<Text>, bool),
    SourceIp(OneOf<Block>),
    RemoteIp(OneOf<Block>),
    Namespace(OneOf<Glob>),
    Principal(OneOf<Text>),
    Account(OneOf<Account>),
    Domain(OneOf<Text>),
    Requester(OneOf<Requester>),
    /// A claim by its path.
    Claim(Box<[Box<str>]>, OneOf<Text>),
    DestinationIp(OneOf<Block>),
    DestinationPort(OneOf<u16>),
    Sni(OneOf<Text>),
}

impl Rule {
    #[inline]
    pub(super) fn matches(&self, facts: &Facts<'_>) -> bool {
        (self.to.is_empty() || self.to.iter().any(|operation| operation.matches(facts)))
            && (self.from.is_empty() || self.from.iter().any(|source| source.matches(facts)))
            && self.when.iter().all(|condition| condition.holds(facts))
    }
}

impl Source {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        principal(&self.principals, facts)
            && namespace(&self.namespaces, facts)
            && account(&self.accounts, facts)
            && domain(&self.domains, facts)
            && self.addresses.hold(|block| block.contains(facts.source))
            && self.clients.hold(|block| block.contains(facts.client))
            && requester(&self.requesters, facts)
    }
}

fn principal(wanted: &OneOf<Text>, facts: &Facts<'_>) -> bool {
    wanted.hold(|text| facts.peer.is_some_and(|peer| text.matches(peer.principal.as_bytes())))
}

fn namespace(wanted: &OneOf<Glob>, facts: &Facts<'_>) -> bool {
    wanted.hold(|glob| facts.peer.and_then(|peer| peer.namespace).is_some_and(|own| glob.matches(own)))
}

fn account(wanted: &OneOf<Account>, facts: &Facts<'_>) -> bool {
    wanted.hold(|account| facts.peer.is_some_and(|peer| account.is(&peer)))
}

fn domain(wanted: &OneOf<Text>, facts: &Facts<'_>) -> bool {
    wanted.hold(|text| facts.peer.is_some_and(|peer| text.matches(peer.domain.as_bytes())))
}

fn requester(wanted: &OneOf<Requester>, facts: &Facts<'_>) -> bool {
    wanted.hold(|who| {
        facts.claims.is_some_and(|claims| {
            // A claim that is absent is none, not an empty one.
            let (issuer, subject) = (claims.issuer(), claims.subject());
            matches!((issuer, subject), (Some(issuer), Some(subject)) if who.is(issuer, subject))
        })
    })
}

impl Operation {
    #[inline]
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.methods.hold(|text| text.matches(facts.method.as_bytes()))
            && self.paths.hold(|path| path.matches(facts.path))
            && self.hosts.hold(|text| text.matches_any_case(facts.host.as_bytes()))
            && self.ports.hold(|port| *port == facts.destination.port())
    }
}

impl Condition {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Condition::Header(field, wanted, refuses) => field.holds(wanted, *refuses, facts),
            Condition::SourceIp(blocks) => blocks.hold(|block| block.contains(facts.source)),
            Condition::RemoteIp(blocks) => blocks.hold(|block| block.contains(facts.client)),
            Condition::Namespace(wanted) => namespace(wanted, facts),
            Condition::Principal(wanted) => principal(wanted, facts),
            Condition::Account(wanted) => account(wanted, facts),
            Condition::Domain(wanted) => domain(wanted, facts),
            Condition::Requester(wanted) => requester(wanted, facts),
            Condition::Claim(path, wanted) => wanted.hold(|text| {
                facts.claims.is_some_and(|claims| claims.any(path, |one| text.matches(one.as_bytes())))
            }),
            Condition::DestinationIp(blocks) => blocks.hold(|block| block.contains(facts.destination.ip())),
            Condition::DestinationPort(ports) => ports.hold(|port| *port == facts.destination.port()),
            Condition::Sni(wanted) => {
                wanted.hold(|text| !facts.sni.is_empty() && text.matches(facts.sni.as_bytes()))
            }
        }
    }
}

impl Field {
    /// What is refused for one of several values, or for all of them as one, is refused; what is let in is let in for all
    /// of them as one, and for none that it must not have: so that no value hides behind another.
    fn holds(&self, wanted: &OneOf<Text>, refuses: bool, facts: &Facts<'_>) -> bool {
        let is = |value: &[u8]| wanted.hold(|text| text.matches(value));
        let name = match self {
            Field::Authority => return is(facts.host.as_bytes()),
            Field::Method => return is(facts.method.as_bytes()),
            Field::Target => return is(facts.target.as_bytes()),
            Field::Scheme => return is(facts.scheme.as_bytes()),
            Field::Named(name) => name,
        };
        let mut values = facts.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => wanted.hold(|_| false),
            (Some(value), None) => is(value.as_bytes()),
            // As one reader further on joins them, and as another reads them one by one.
            (Some(first), Some(second)) => {
                let mut all: SmallVec<[u8; 256]> = SmallVec::from_slice(first.as_bytes());
                for value in std::iter::once(second).chain(values) {
                    all.push(b',');
                    all.extend_from_slice(value.as_bytes());
                }
                let mut each = facts.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
                if refuses {
                    return is(&all) || each.any(is);
                }
                is(&all) && !each.any(|value| wanted.none.iter().any(|text| text.matches(value)))
            }
        }
    }
}
