//! `pilotlight echo`: a controllable upstream, a function to test with, and a target for load.
//!
//! It stands at the far end of the path, in a process of its own, and answers with what it received. It is
//! never part of the proxy: nothing here is reached by a proxied exchange except through a socket.

mod answer;
mod ask;
mod body;
mod call;
mod serve;
#[cfg(test)]
mod tests;
mod websocket;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::values::duration;
use answer::Identity;
use call::Proxies;
use serve::{Plan, Server};

/// What a request may ask of the echo, shown under `pilotlight echo --help`.
const OPTIONS: &str = "\
What a request may ask for, as a query parameter or as a header `x-echo-NAME`
(the query wins):
  delay=200ms         wait before the answer
  status=503          answer with this status
  size=4096           a body of so many bytes instead of the JSON; `size=0` is the
                      cheapest answer
  chunk=1024          send the body in pieces of so many bytes
  slow=2s             spread the body over this time
  fail=30             answer 503 (gRPC: status 14) to 30 % of such requests
  close=before        drop the connection without an answer; `close=head` after the
                      head, `close=body` in the middle of the body (over HTTP/2 the
                      stream is reset instead)
  header=NAME:VALUE   add a response header (repeatable)
  trailer=NAME:VALUE  add a trailer (repeatable; over HTTP/1.1 the client must send
                      `TE: trailers`)
  grpc=5              answer as a gRPC server does, with this `grpc-status`
  mirror=1            send the request body back as it arrives, trailers included
  call=URL            call on (repeatable, at most 16, one after the other) through
                      http_proxy / HTTP_PROXY, unless no_proxy / NO_PROXY names the
                      host; trace headers are passed on, answers nested. Write `&`
                      and `#` of the URL as %26 and %23.

A request whose content type is application/grpc gets its messages back and `grpc-status: 0`.
A request to upgrade to `websocket` gets its frames back.";

/// The command line of `pilotlight echo`.
#[derive(clap::Args, Debug, Clone)]
#[command(after_help = OPTIONS)]
pub struct EchoArgs {
    /// Where to listen, HTTP/1.1 and HTTP/2 (prior knowledge) on one port [default: 127.0.0.1:$PORT, and 8080
    /// when PORT is not set]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// The name it answers with [default: $K_SERVICE, else `echo`]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Wait this long before listening, as a slow start would (`1.5s`, `200ms`)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub start_delay: Option<Duration>,

    /// Stop by itself: after so many answers (`100`) or so long after it began to listen (`30s`). Answers under
    /// way are finished first; the exit code is 0 unless --exit-code says otherwise
    #[arg(long, value_name = "COUNT|DURATION", value_parser = exit_after)]
    pub exit_after: Option<ExitAfter>,

    /// The exit code of --exit-after
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    pub exit_code: u8,

    /// Threads that serve; they share the port
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Do not print the address it listens on
    #[arg(long, short)]
    pub quiet: bool,
}

/// When the echo stops by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitAfter {
    /// After so many answers.
    Requests(u64),
    /// So long after it began to listen.
    Time(Duration),
}

fn exit_after(text: &str) -> Result<ExitAfter, String> {
    match text.parse() {
        Ok(0) => Err("it would never answer: give at least 1".into()),
        Ok(count) => Ok(ExitAfter::Requests(count)),
        Err(_) => duration(text).map(ExitAfter::Time),
    }
}

/// The address to listen on: what was asked, where `:8080` means every interface, else loopback at `port`.
fn address(listen: Option<&str>, port: Option<&str>) -> String {
    match listen {
        Some(every) if every.starts_with(':') => format!("0.0.0.0{every}"),
        Some(given) => given.to_owned(),
        None => format!("127.0.0.1:{}", port.filter(|port| !port.is_empty()).unwrap_or("8080")),
    }
}

/// Serves until a signal or `--exit-after` ends it: 0 when it ended as asked, 1 when it could not listen.
pub fn run(args: EchoArgs) -> ExitCode {
    if let Some(delay) = args.start_delay {
        std::thread::sleep(delay);
    }
    let env = |name: &str| std::env::var(name).ok();
    let address = address(args.listen.as_deref(), env("PORT").as_deref());
    let identity = Identity {
        name: args.name.or_else(|| env("K_SERVICE")).unwrap_or_else(|| "echo".into()),
        service: env("K_SERVICE"),
        revision: env("K_REVISION"),
    };
    let plan = Plan {
        workers: usize::from(args.workers),
        exit_after: args.exit_after,
        proxies: Proxies::from_variables(env),
        signals: true,
    };
    let server = match Server::bind(&address, identity, plan) {
        Ok(server) => server,
        Err(error) => {
            eprintln!(
                "pilotlight echo: cannot listen on {address}: {error}; choose another with --listen or PORT"
            );
            return ExitCode::FAILURE;
        }
    };
    if !args.quiet {
        // A closed stdout is no reason not to serve.
        let _ = writeln!(io::stdout(), "echo listening on http://{}", server.address());
    }
    match server.run() {
        Ok(serve::End::Signal) => ExitCode::SUCCESS,
        Ok(serve::End::ExitAfter) => ExitCode::from(args.exit_code),
        Err(error) => {
            eprintln!("pilotlight echo: {error}");
            ExitCode::FAILURE
        }
    }
}
