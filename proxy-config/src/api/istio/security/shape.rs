//! The fields of the kinds that ask something of callers.

use crate::api::shape::Shape::{self, Bool, Choice, Duration, List, Map, Object, StrictText, Text};
use crate::api::shape::{Field, LABELS, TEXTS, acts, required};

/// `selector` of the policy kinds. The labels stand under `matchLabels`, unlike a Gateway's.
pub(in crate::api::istio) const SELECTOR: Shape = Object(&[acts("matchLabels", LABELS)]);
pub(in crate::api::istio) const TARGET: &[Field] =
    &[acts("group", Text), required("kind", Text), required("name", Text), acts("namespace", Text)];

const MTLS: Shape = Object(&[acts("mode", Choice(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]))]);

pub(crate) const PEER_AUTHENTICATION: &[Field] =
    &[acts("selector", SELECTOR), acts("mtls", MTLS), acts("portLevelMtls", Map(&MTLS))];

pub(crate) const REQUEST_AUTHENTICATION: &[Field] = &[
    acts("selector", SELECTOR),
    acts("targetRef", Object(TARGET)),
    acts("targetRefs", List(&Object(TARGET))),
    acts("jwtRules", List(&Object(JWT_RULE))),
];

const JWT_RULE: &[Field] = &[
    acts("issuer", Text),
    acts("audiences", TEXTS),
    acts("jwksUri", Text),
    acts("jwks_uri", Text),
    acts("jwks", Text),
    acts("fromHeaders", List(&Object(&[required("name", Text), acts("prefix", Text)]))),
    acts("fromParams", TEXTS),
    acts("fromCookies", TEXTS),
    acts("forwardOriginalToken", Bool),
    acts("outputPayloadToHeader", Text),
    acts("outputClaimToHeaders", List(&Object(&[required("header", Text), required("claim", Text)]))),
    acts("spaceDelimitedClaims", TEXTS),
    acts("timeout", Duration),
];

pub(crate) const AUTHORIZATION_POLICY: &[Field] = &[
    acts("selector", SELECTOR),
    acts("targetRef", Object(TARGET)),
    acts("targetRefs", List(&Object(TARGET))),
    acts("action", Choice(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
    acts("provider", Object(&[acts("name", Text)])),
    acts("rules", List(&Object(RULE))),
];

const RULE: &[Field] = &[
    acts("from", List(&Object(&[acts("source", Object(SOURCE))]))),
    acts("to", List(&Object(&[acts("operation", Object(OPERATION))]))),
    acts("when", List(&Object(&[required("key", Text), acts("values", TEXTS), acts("notValues", TEXTS)]))),
];

const SOURCE: &[Field] = &[
    acts("principals", TEXTS),
    acts("notPrincipals", TEXTS),
    acts("requestPrincipals", TEXTS),
    acts("notRequestPrincipals", TEXTS),
    acts("namespaces", TEXTS),
    acts("notNamespaces", TEXTS),
    acts("serviceAccounts", TEXTS),
    acts("notServiceAccounts", TEXTS),
    acts("ipBlocks", TEXTS),
    acts("notIpBlocks", TEXTS),
    acts("remoteIpBlocks", TEXTS),
    acts("notRemoteIpBlocks", TEXTS),
    acts("trustDomains", TEXTS),
    acts("notTrustDomains", TEXTS),
];

/// Ports are strings here.
const PORT_TEXTS: Shape = List(&StrictText);

const OPERATION: &[Field] = &[
    acts("hosts", TEXTS),
    acts("notHosts", TEXTS),
    acts("ports", PORT_TEXTS),
    acts("notPorts", PORT_TEXTS),
    acts("methods", TEXTS),
    acts("notMethods", TEXTS),
    acts("paths", TEXTS),
    acts("notPaths", TEXTS),
];
