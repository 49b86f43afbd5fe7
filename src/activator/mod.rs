//! The activator: where exchanges wait for a slot, because a function is at zero or at its limit.
//!
//! It stands between the choice of a destination and the sending. A `Hold` belongs to one revision; a
//! `Ticket` is one exchange's place in it; the `Bell` tells the scaler that somebody began to wait. It
//! never opens a socket, never knows HTTP, never reads a clock and never chooses an endpoint: what is
//! granted is a type parameter.

mod bell;
mod hold;
mod learned;
mod outlook;
mod overload;
mod pace;
mod queue;
mod rest;
mod room;
#[cfg(test)]
mod tests;

pub use bell::Bell;
pub use hold::{Ask, Hold, HoldLimits, Parked, Ticket};
pub use learned::Learned;
pub use outlook::Outlook;
pub use room::Room;
