//! What is slow or rare: files, name look-ups, the admin API, the log. Never on the path of an exchange.

pub mod log;
pub mod reload;
