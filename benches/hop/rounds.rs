//! The order of the measurements: the same load in turn over every proxy, then memory, then instructions.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{Load, Taken, idle_connections};
use crate::process::{Place, Running, stay};
use crate::{Args, Proxy, Scale, instructions};

/// Keep-alive connections of a load.
pub const CONNECTIONS: usize = 64;

/// What was measured of one proxy. Lists have one entry for each round, in the order of rounds.
#[derive(Debug, Clone)]
pub struct Column {
    /// Of which.
    pub proxy: Proxy,
    /// CPU of one request, in microseconds.
    pub cpu: Vec<f64>,
    /// Requests a second.
    pub rate: Vec<f64>,
    /// Half of the requests took at most this.
    pub p50: Vec<Duration>,
    /// 99 % of the requests took at most this.
    pub p99: Vec<Duration>,
    /// Resident bytes before any load.
    pub resident_idle: u64,
    /// Resident bytes after all loads.
    pub resident_after: u64,
    /// Resident bytes of one more idle connection that has served a request.
    pub idle_connection: f64,
    /// User instructions of one request.
    pub instructions: Option<f64>,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Measured {
    /// Of the proxies that ran.
    pub columns: Vec<Column>,
    /// Whether every proxy that was wanted ran to the end.
    pub complete: bool,
    /// Whether instructions could be counted.
    pub counted: bool,
}

/// Measures every proxy that was not left out. One that fails is told of and left out of the rest.
pub fn measure(args: &Args, scale: &Scale) -> io::Result<Measured> {
    stay(Place::Beside);
    let upstream = Running::upstream()?;
    let wanted: Vec<Proxy> = Proxy::ALL.into_iter().filter(|proxy| !args.without.contains(proxy)).collect();
    let mut started = Vec::new();
    for proxy in &wanted {
        match start(args, *proxy, upstream.address, scale) {
            Ok(pair) => started.push(pair),
            Err(error) => eprintln!("hop: {} is left out: {error}", proxy.name()),
        }
    }
    let mut columns = loads(started, scale)?;
    let counted = instructions::available();
    columns.retain_mut(|column| {
        match memory_and_instructions(args, column, upstream.address, scale, counted) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("hop: {} is left out: {error}", column.proxy.name());
                false
            }
        }
    });
    Ok(Measured { complete: columns.len() == wanted.len(), columns, counted })
}

fn start(args: &Args, proxy: Proxy, upstream: SocketAddr, scale: &Scale) -> io::Result<(Column, Running)> {
    let running = Running::proxy(args, proxy, upstream, None)?;
    std::thread::sleep(scale.settle);
    let column = Column {
        proxy,
        cpu: Vec::new(),
        rate: Vec::new(),
        p50: Vec::new(),
        p99: Vec::new(),
        resident_idle: running.resident()?,
        resident_after: 0,
        idle_connection: 0.0,
        instructions: None,
    };
    Ok((column, running))
}

/// Gives each in turn the same load, round after round, beginning with another one each time.
fn loads(mut started: Vec<(Column, Running)>, scale: &Scale) -> io::Result<Vec<Column>> {
    for round in 0..scale.rounds {
        for (column, running) in &mut started {
            let (cpu, taken) = one_load(running, scale).map_err(|error| {
                io::Error::new(error.kind(), format!("{} under load: {error}", column.proxy.name()))
            })?;
            column.cpu.push(cpu.as_secs_f64() * 1e6 / f64::from(scale.requests));
            column.rate.push(f64::from(scale.requests) / taken.time.as_secs_f64());
            column.p50.push(taken.percentile(50.0));
            column.p99.push(taken.percentile(99.0));
        }
        eprintln!("hop: round {} of {}", round + 1, scale.rounds);
        // So that no proxy always runs after the same one. Columns keep their entries in order of rounds.
        started.rotate_left(1);
    }
    started.sort_by_key(|(column, _)| Proxy::ALL.iter().position(|proxy| *proxy == column.proxy));
    let mut columns = Vec::new();
    for (mut column, running) in started {
        std::thread::sleep(scale.settle);
        column.resident_after = running.resident()?;
        columns.push(column);
    }
    Ok(columns)
}

fn one_load(running: &Running, scale: &Scale) -> io::Result<(Duration, Taken)> {
    let mut load = Load::connect(running.address, CONNECTIONS)?;
    load.run(scale.warmup)?;
    let before = running.cpu()?;
    let taken = load.run(scale.requests)?;
    Ok((running.cpu()?.saturating_sub(before), taken))
}

/// What is measured of a proxy by itself: a fresh process that has freed nothing yet, then one under callgrind.
fn memory_and_instructions(
    args: &Args,
    column: &mut Column,
    upstream: SocketAddr,
    scale: &Scale,
    counted: bool,
) -> io::Result<()> {
    eprintln!("hop: memory and instructions of {}", column.proxy.name());
    let running = Running::proxy(args, column.proxy, upstream, None)?;
    let (few, many) = scale.idle;
    let _few = idle_connections(running.address, few)?;
    std::thread::sleep(scale.settle);
    let before = running.resident()?;
    let _more = idle_connections(running.address, many - few)?;
    std::thread::sleep(scale.settle);
    column.idle_connection = (running.resident()? as f64 - before as f64) / (many - few) as f64;
    drop(running);
    if counted {
        column.instructions = Some(instructions::per_request(args, column.proxy, upstream, scale)?);
    }
    Ok(())
}
