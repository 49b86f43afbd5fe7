//! `pilotlight check`: loads and resolves without running anything, and prints every problem.
//!
//! Silent when all is well. Exit status: 0 no errors, 1 errors, 2 usage.

use super::{Format, LoadArgs};
use std::path::PathBuf;

/// Arguments of `pilotlight check`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Exit status: 0 no errors (warnings may be printed), 1 errors, 2 wrong usage. No output: all is well."
)]
pub struct CheckArgs {
    /// Files and directories with YAML or JSON; directories are read with all below them
    #[arg(value_name = "PATH", default_value = ".")]
    pub paths: Vec<PathBuf>,

    /// How problems are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,

    /// How the YAML is read.
    #[command(flatten)]
    pub load: LoadArgs,
}
