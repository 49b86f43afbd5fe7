//! User instructions of one request, by callgrind: two loads of different length, and the difference of what each
//! took over the difference of their lengths. What starting and connecting takes falls out.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::load::Load;
use crate::process::{Running, Scratch};
use crate::rounds::CONNECTIONS;
use crate::{Args, Proxy, Scale};

/// Whether valgrind is installed.
pub fn available() -> bool {
    let asked =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Instructions of one request.
pub fn per_request(args: &Args, proxy: Proxy, upstream: SocketAddr, scale: &Scale) -> io::Result<f64> {
    let (few, many) = scale.instructions;
    let less = total(args, proxy, upstream, few)?;
    let more = total(args, proxy, upstream, many)?;
    Ok((more as f64 - less as f64) / f64::from(many - few))
}

/// Instructions of a whole life that serves so many requests.
fn total(args: &Args, proxy: Proxy, upstream: SocketAddr, requests: u32) -> io::Result<u64> {
    let scratch = Scratch::new()?;
    let file = scratch.path().join("callgrind.out");
    let running = Running::proxy(args, proxy, upstream, Some(&file))?;
    Load::connect(running.address, CONNECTIONS)?.run(requests)?;
    running.stop()?;
    let profile = fs::read_to_string(&file)?;
    let counted =
        |label| profile.lines().rev().find_map(|line| line.strip_prefix(label)?.trim().parse().ok());
    counted("totals:")
        .or_else(|| counted("summary:"))
        .ok_or_else(|| io::Error::other("callgrind wrote no total"))
}
