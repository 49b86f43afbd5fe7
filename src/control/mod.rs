//! What is slow or rare: files, name look-ups, the admin API, the log. Never on the path of an exchange.

pub mod admin;
pub mod discover;
pub mod jwks;
pub mod log;
pub mod memory;
pub mod process;
pub mod reload;
pub mod scale;
