//! Who may speak to whom, as people write it: PeerAuthentication, RequestAuthentication, AuthorizationPolicy.
//!
//! What a policy asks is decoded to the model's own words here, as nothing in it refers to another object;
//! whom it asks is left to resolution. An object with errors still says whom it may have been meant for.

mod authorization;
mod jwt;
mod peer;
mod rules;
mod selection;
mod shape;

pub(crate) use authorization::decode as authorization_policy;
pub(crate) use jwt::decode as request_authentication;
pub(crate) use peer::decode as peer_authentication;
pub(crate) use selection::{lost, suspect};
pub(crate) use shape::{AUTHORIZATION_POLICY, PEER_AUTHENTICATION, REQUEST_AUTHENTICATION};
pub(super) use {selection::check as selector, shape::SELECTOR, shape::TARGET};

use crate::api::Meta;
use crate::model::{self, JwtRule, Mtls};
use crate::report::{At, Place};
use std::collections::BTreeMap;

/// `selector` and `targetRefs`: which workloads of its namespace (of the root namespace: of all) an object
/// concerns. Nothing written: all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// `selector.matchLabels`.
    pub labels: BTreeMap<String, String>,
    /// Where the selector stands.
    pub at: Place,
    /// `targetRefs`, or the one `targetRef`; then there are no labels.
    pub targets: Vec<TargetRef>,
}

impl Selection {
    /// Whether it concerns every workload.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.targets.is_empty()
    }
}

/// `targetRefs[]`; always of the object's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// `kind`.
    pub kind: String,
    /// `name`.
    pub name: At<String>,
}

/// `security.istio.io` PeerAuthentication.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerAuthentication {
    /// Identity.
    pub meta: Meta,
    /// `selector`.
    pub selection: Selection,
    /// `mtls.mode`; `None`: UNSET.
    pub mode: Option<Mtls>,
    /// `portLevelMtls`, by the workload's own port; `None`: UNSET.
    pub ports: BTreeMap<u16, Option<Mtls>>,
}

/// `security.istio.io` RequestAuthentication.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestAuthentication {
    /// Identity.
    pub meta: Meta,
    /// `selector` or `targetRefs`.
    pub selection: Selection,
    /// `jwtRules`.
    pub rules: Vec<JwtRule>,
}

/// `security.istio.io` AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// Identity.
    pub meta: Meta,
    /// `selector` or `targetRefs`.
    pub selection: Selection,
    /// What it says.
    pub policy: model::AuthorizationPolicy,
    /// `provider.name`, where the action is CUSTOM.
    pub provider: Option<At<String>>,
    /// Values of `principals`, each with its path.
    pub principals: Vec<(String, At<String>)>,
    /// The first thing in it that needs a verified token: its path and place.
    pub needs_token: Option<(String, Place)>,
}

/// A security object that is not used for its errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Who it is, as far as it says so.
    pub meta: Meta,
    /// Whom it concerns; `None`: that cannot be read, so everybody it could concern.
    pub selection: Option<Selection>,
}
