//! What policies mean: decision tables, and the compiled form held against a slow interpreter of the same model.

#![allow(clippy::unwrap_used)]

mod interpreter;
mod random;
mod tables;
