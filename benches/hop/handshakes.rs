//! What a full handshake of mutual TLS costs: pilotlight beside a rustls acceptor that does nothing else, with the
//! same certificates, in turn. The client is this process, which resumes nothing and is not counted.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::process::{Place, Running, Scratch, stay};
use crate::report::{figure, median, paired};
use crate::{Args, Scale, tls};

/// CPU of one handshake, at most so many times the acceptor's.
const MOST: f64 = 1.2;
/// A client waits no longer for the other side.
const SILENCE: Duration = Duration::from_secs(30);

/// Measures, prints, and says whether the bar was met.
pub fn compare(args: &Args, scale: &Scale) -> io::Result<bool> {
    stay(Place::Beside);
    let upstream = Running::upstream()?;
    let scratch = Scratch::new()?;
    tls::issue(scratch.path())?;
    let client = Arc::new(client(scratch.path())?);
    let own = Running::gateway(args, upstream.address, scratch.path())?;
    let bare = Running::acceptor(scratch.path())?;
    let count = scale.handshakes;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        let mut turns = [(&own, &mut ours), (&bare, &mut others)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (running, taken) in turns {
            shake(running.address, &client, count / 10)?;
            let before = running.cpu()?;
            shake(running.address, &client, count)?;
            let cpu = running.cpu()?.saturating_sub(before);
            taken.push(cpu.as_secs_f64() * 1e6 / f64::from(count));
        }
        eprintln!("hop: round {} of {}", round + 1, scale.rounds);
    }
    let ratio = paired(&ours, &others);
    println!("\nFull handshakes of mutual TLS 1.3, one at a time; {} rounds of {count}\n", scale.rounds);
    println!("CPU µs/handshake, rustls acceptor   {:>10}", figure(median(&others), 1));
    println!("CPU µs/handshake, pilotlight        {:>10}", figure(median(&ours), 1));
    let met = ratio <= MOST;
    let verdict = if met { "pass " } else { "MISS " };
    println!(
        "\n  {verdict} CPU of a handshake, times the acceptor's {:>12}  at most {MOST}",
        figure(ratio, 2)
    );
    Ok(met)
}

fn client(directory: &Path) -> io::Result<ClientConfig> {
    let mut config = tls::client(directory)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// So many connections, one after the other: each up to the end of its handshake, then its orderly end.
fn shake(to: SocketAddr, config: &Arc<ClientConfig>, count: u32) -> io::Result<()> {
    for _ in 0..count {
        let mut socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE))?;
        let name = ServerName::try_from(tls::HOST).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        connection.send_close_notify();
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        // Its end says that the other side has seen all of it.
        let mut rest = [0; 4096];
        loop {
            match socket.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
