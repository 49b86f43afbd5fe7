//! Who may do what: AuthorizationPolicies and RequestAuthentications of one workload, compiled, and what they say
//! about one request.
//!
//! A mechanism: it is handed plain facts and gives a verdict. Evaluating policies allocates nothing; a token is
//! verified once and then remembered. It opens no socket, fetches no key, and knows no exchange. What it cannot
//! understand refuses.

mod callers;
mod compile;
mod facts;
mod guard;
pub mod jwt;
mod provider;
mod rule;
mod text;

pub use callers::{Callers, Passes};
pub use compile::{Trust, compile};
pub use facts::{Facts, Identity};
pub use guard::{Denied, Event, Guard, Id};
pub use jwt::KeyRing;
pub use provider::Provider;
